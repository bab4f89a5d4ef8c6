"""Which examples make up each batch, and what augmentation does to them.

Both are drawn from (seed, epoch) alone. They depend neither on the framework nor on the world
size: the union of the workers' shares at a step is always the same set of examples.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trainers.contract import Batch
from trainers.recipes import Augmentation

_ORDER, _AUGMENT = 0, 1
_EXAMPLES_PER_GATHER = 2048


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Batches in an epoch, the last of which may be smaller."""
    return -(-num_examples // batch_size)


def epoch_order(num_examples: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order in which one epoch visits the examples, int64 [num_examples]."""
    return np.random.default_rng([seed, epoch, _ORDER]).permutation(num_examples)


def epoch_batches(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    augmentation: Augmentation,
    batch_size: int,
    learning_rates: np.ndarray,
    seed: int,
    epoch: int,
    rank: int,
    world_size: int,
) -> Iterator[Batch]:
    """One worker's share of every batch of an epoch.

    Args:
        images: uint8 [n, height, width, channels], the whole training split.
        labels: int64 [n].
        augmentation: what to do to each image.
        batch_size: global; divided over the workers, the last batch as evenly as it goes.
        learning_rates: float32 [steps], one for each step of this epoch.
        seed: the run's.
        epoch: from 1.
        rank: of this worker.
        world_size: number of workers.
    """
    n = len(labels)
    order = epoch_order(n, seed=seed, epoch=epoch)
    draws = _draw(augmentation, n, seed=seed, epoch=epoch)
    starts = np.arange(0, n, batch_size)
    sizes = np.minimum(batch_size, n - starts)
    low, high = starts + sizes * rank // world_size, starts + sizes * (rank + 1) // world_size
    empty = low == high
    low = np.minimum(low, n - 1)  # an empty share still takes part in the exchange, at no weight
    high = np.maximum(high, low + 1)
    scale = np.where(empty, 0.0, 1 / sizes)

    steps_per_gather = max(1, _EXAMPLES_PER_GATHER * world_size // batch_size)
    for first in range(0, len(starts), steps_per_gather):
        steps = range(first, min(first + steps_per_gather, len(starts)))
        positions = np.concatenate([np.arange(low[step], high[step]) for step in steps])
        gathered = augment(images[order[positions]], augmentation, draws[:, positions])
        gathered_labels = labels[order[positions]]
        end = 0
        for step in steps:
            begin, end = end, end + int(high[step] - low[step])
            yield Batch(
                gathered[begin:end],
                gathered_labels[begin:end],
                float(learning_rates[step]),
                float(scale[step]),
            )


def _draw(augmentation: Augmentation, n: int, *, seed: int, epoch: int) -> np.ndarray:
    """Flip, row shift and column shift for each place in the epoch's order, int64 [3, n]."""
    rng = np.random.default_rng([seed, epoch, _AUGMENT])
    flips = rng.integers(0, 2, n) if augmentation.flip else np.zeros(n, np.int64)
    shifts = rng.integers(0, 2 * augmentation.crop + 1, (2, n))
    return np.concatenate([flips[None], shifts])


def augment(images: np.ndarray, augmentation: Augmentation, draws: np.ndarray) -> np.ndarray:
    """Shift and mirror uint8 [n, height, width, channels] as drawn, int64 [3, n]."""
    n, height, width, _ = images.shape
    flips, row_shifts, column_shifts = draws
    if augmentation.crop:
        pad = augmentation.crop
        padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
        rows = row_shifts[:, None] + np.arange(height)
        columns = column_shifts[:, None] + np.arange(width)
        columns = np.where(flips[:, None] == 1, columns[:, ::-1], columns)
        images = padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    elif augmentation.flip:
        mirrored = flips == 1
        images[mirrored] = images[mirrored, :, ::-1]
    return images
