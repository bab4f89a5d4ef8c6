"""What PyTorch computes with in this process, as it says itself."""

from __future__ import annotations

from typing import Any

import torch


def observed() -> dict[str, Any]:
    """Threads and precision of matrix products."""
    return {
        "threads": torch.get_num_threads(),
        "threads between operations": torch.get_num_interop_threads(),
        "TF32": torch.get_float32_matmul_precision() != "highest",
    }
