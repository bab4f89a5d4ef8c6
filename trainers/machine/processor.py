"""What the processors of this node can do."""

from __future__ import annotations

import os
from pathlib import Path

_WITHOUT_BFLOAT16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"}
"""Instruction sets that oneDNN may be limited to and that have no product of bfloat16 numbers."""


def has_bfloat16() -> bool:
    """Whether both frameworks compute bfloat16 with AVX-512's instructions for it here; otherwise they emulate it.

    Their kernels are oneDNN's, which uses no more instructions than ONEDNN_MAX_CPU_ISA allows.
    """
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in _WITHOUT_BFLOAT16:
        return False
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
