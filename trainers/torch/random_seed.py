"""Seeds PyTorch for a training function."""

from __future__ import annotations

import torch


def seed(value: int) -> None:
    """Seed the random numbers of PyTorch, on CPUs and GPUs."""
    torch.manual_seed(value)
