"""How fast a device multiplies matrices: what a model's speed is held against."""

from __future__ import annotations

from collections.abc import Callable

from trainers.machine.timing import seconds_of_calls

_REPEATS = 5


def matmul_side(*, on_gpu: bool) -> int:
    """Rows and columns of a square matrix that keeps a device busy for some hundredths of a second."""
    return 8192 if on_gpu else 1024


def fastest_matmul(multiply: Callable[[], float], side: int) -> float:
    """Floating-point operations per second of the fastest of a few products.

    Args:
        multiply: takes the product of two square matrices and waits for it.
        side: their rows and columns.
    """
    return 2 * side**3 / min(seconds_of_calls(multiply, fewest=_REPEATS))
