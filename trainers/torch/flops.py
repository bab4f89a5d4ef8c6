"""Floating-point operations of a computation, by the formulas of PyTorch's own counter.

`torch.utils.flop_counter.FlopCounterMode` imports the compiler, `torch._dynamo`, at its first operation.
"""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class FlopCounter(TorchDispatchMode):
    """Counts those of the convolutions and matrix products within its block, a multiply-add as two."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None) -> Any:
        kwargs = kwargs or {}
        result = operation(*args, **kwargs)
        if formula := flop_registry.get(operation._overloadpacket):
            self.total += formula(*args, **kwargs, out_val=result)
        return result
