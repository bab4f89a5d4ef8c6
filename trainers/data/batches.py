"""Which examples make up each batch, and what augmentation does to them.

Both are drawn from (seed, epoch) alone. They depend neither on the framework nor on the world
size: the union of the workers' shares at a step is always the same set of examples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from trainers.recipes import Augmentation

_ORDER, _AUGMENT, _SIDE = 0, 1, 2
GUESSED_STEP_SECONDS = 0.05
"""Before a step was timed."""


@dataclasses.dataclass(frozen=True)
class BlockLimits:
    """How much work a block holds at most."""

    bytes: int
    """Of its images."""
    steps: int
    seconds: float = 0.5


IN_CACHE = BlockLimits(bytes=8 << 20, steps=32)
"""Blocks that a CPU's caches hold."""
ON_GPU = BlockLimits(bytes=256 << 20, steps=512)
"""Blocks of so many steps that the host's work between two of them does not count."""


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which training images a block holds and how each is augmented, for a device that holds the images."""

    places: np.ndarray
    """Int64 [steps, share], of the images in the training split."""
    draws: np.ndarray
    """Int64 [3, steps, share]: flip, row shift and column shift."""
    augmentation: Augmentation

    def __getitem__(self, steps: slice) -> Selection:
        return Selection(self.places[steps], self.draws[:, steps], self.augmentation)


@dataclasses.dataclass(frozen=True)
class Steps:
    """One worker's share of a few consecutive global batches of one size."""

    images: np.ndarray | Selection
    """Uint8 [steps, share, height, width, channels], or which images of those that the device holds."""
    labels: np.ndarray
    """Int64 [steps, share]."""
    learning_rates: np.ndarray
    """Float32 [steps]; NaN for an optimizer of the user's own, which has its own."""
    loss_scale: float
    """1 / global batch size, or 0 for a worker whose share of the last batch is empty."""
    staged: Any = None
    """Images and labels on the device, once the engine has put them there."""

    def __len__(self) -> int:
        return len(self.learning_rates)

    def part(self, first: int, last: int | None = None) -> Steps:
        """Some of the steps, from `first` to before `last`."""
        steps = slice(first, last)
        return dataclasses.replace(
            self,
            images=self.images[steps],
            labels=self.labels[steps],
            learning_rates=self.learning_rates[steps],
        )


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Batches in an epoch, the last of which may be smaller."""
    return -(-num_examples // batch_size)


def epoch_order(num_examples: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order in which one epoch visits the examples, int64 [num_examples]."""
    return np.random.default_rng([seed, epoch, _ORDER]).permutation(num_examples)


def epoch_steps(
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
    first_step: int = 0,
    step_seconds: float = GUESSED_STEP_SECONDS,
    limits: BlockLimits = IN_CACHE,
    selects: bool = False,
) -> Iterator[Steps]:
    """One worker's share of every batch of an epoch, in blocks of a few steps.

    Args:
        images: uint8 [n, height, width, channels], the whole training split.
        labels: int64 [n].
        augmentation: what to do to each image.
        batch_size: global; divided over the workers as evenly as it goes.
        learning_rates: float32 [steps], one for each step of this epoch.
        seed: the run's.
        epoch: from 1.
        rank: of this worker.
        world_size: number of workers.
        first_step: of the epoch, from 0; where to go on in the middle of it.
        step_seconds: what a step takes at best, the same on every worker, which limits a block.
        limits: of a block, the same on every worker.
        selects: whether blocks name their images instead of holding them.
    """
    n = len(labels)
    order = epoch_order(n, seed=seed, epoch=epoch)
    draws = _draw(augmentation, order, seed=seed, epoch=epoch)
    whole = n // batch_size
    step_bytes = images[0].nbytes * batch_size / world_size
    together = max(1, int(min(limits.bytes / step_bytes, limits.seconds / step_seconds, limits.steps)))
    firsts = [step for step in range(whole) if step % together == 0 or step == first_step]
    blocks = list(zip(firsts, [*firsts[1:], whole], strict=True)) if firsts else []
    if n % batch_size:
        blocks.append((whole, whole + 1))
    for first, last in blocks:
        if first < first_step:
            continue
        size = min(batch_size, n - first * batch_size)
        low, high = size * rank // world_size, size * (rank + 1) // world_size
        scale = 1 / size
        if low == high:  # an empty share still takes part in the exchange, at no weight
            low, high, scale = 0, 1, 0.0
        places = (np.arange(first, last)[:, None] * batch_size + np.arange(low, high)).ravel()
        shape = last - first, high - low
        chosen = order[places]
        block: np.ndarray | Selection
        if selects:
            block = Selection(chosen.reshape(shape), draws[:, places].reshape(3, *shape), augmentation)
        else:
            made = augment(images[chosen], augmentation, draws[:, places])
            block = made.reshape(*shape, *made.shape[1:])
        yield Steps(block, labels[chosen].reshape(shape), learning_rates[first:last], scale)


def prefetched(blocks: Iterator[Steps]) -> Iterator[Steps]:
    """The same blocks, the next one made in a thread while the caller works on one."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        upcoming = thread.submit(next, blocks, None)
        while (block := upcoming.result()) is not None:
            upcoming = thread.submit(next, blocks, None)
            yield block


def _draw(augmentation: Augmentation, order: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """Flip, row shift and column shift for each place in the epoch's order, int64 [3, n].

    An image is mirrored in every other epoch, so that two epochs show both of its sides (Jordan, 2024).
    """
    n = len(order)
    flips = np.zeros(n, np.int64)
    if augmentation.flip:
        of_all_epochs = np.random.default_rng([seed, 0, _SIDE])  # epochs count from 1
        first_side = of_all_epochs.integers(0, 2, n)
        flips = (first_side[order] + epoch) % 2
    rng = np.random.default_rng([seed, epoch, _AUGMENT])
    shifts = rng.integers(0, 2 * augmentation.crop + 1, (2, n))
    return np.concatenate([flips[None], shifts])


def augment(images: np.ndarray, augmentation: Augmentation, draws: np.ndarray) -> np.ndarray:
    """Shift and mirror uint8 [n, height, width, channels] as drawn, int64 [3, n]."""
    n, height, width, _ = images.shape
    flips, row_shifts, column_shifts = draws
    if augmentation.crop:
        pad = augmentation.crop
        padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
        windows = windows.transpose(0, 1, 2, 4, 5, 3)
        images = windows[np.arange(n), row_shifts, column_shifts]
    if augmentation.flip:
        mirrored = flips == 1
        images[mirrored] = images[mirrored, :, ::-1]
    return images


def source_pixels(selection: Selection, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where `augment` takes each row and each column of each image from: int64 [n, height] and [n, width]."""
    flips, row_shifts, column_shifts = selection.draws.reshape(3, -1)
    pad = selection.augmentation.crop
    rows, columns = (
        np.pad(np.arange(side), pad, mode="reflect")[shifts[:, None] + np.arange(side)]
        for side, shifts in ((height, row_shifts), (width, column_shifts))
    )
    return rows, np.where(flips[:, None] == 1, columns[:, ::-1], columns)
