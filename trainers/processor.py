"""What the processors of this node can do."""

from __future__ import annotations

from pathlib import Path


def has_bfloat16() -> bool:
    """Whether these are x86 CPUs with AVX-512's bfloat16 instructions, as AMX comes with; others emulate them."""
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
