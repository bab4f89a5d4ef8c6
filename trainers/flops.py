"""The floating-point operations of a built-in network, by one formula for both frameworks."""

from __future__ import annotations

from collections.abc import Iterable

from trainers.contract import Task


def forward_flops(task: Task, layers: Iterable[tuple[int, int]]) -> int:
    """Operations of a forward pass of one image: two for each weight of a kernel at each position of its output.

    Args:
        task: of the run; its whitening is a convolution, too.
        layers: for each convolution and dense layer, the size of its kernel and the positions of its output.
    """
    whitening = task.inputs.kernel
    height, width, _ = task.model_shape
    first = [] if whitening is None else [(whitening.size, height * width)]
    return sum(2 * weights * positions for weights, positions in [*first, *layers])
