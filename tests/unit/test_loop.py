"""When the training loop takes a loss for a sick one."""

from __future__ import annotations

import dataclasses
import time
from typing import ClassVar

import numpy as np
import pytest

from tests.unit.measure_engine import DATASET
from trainers.contract import EpochMetrics, Steps
from trainers.loop import DivergedError, Hooks, train
from trainers.recipes import CrossEntropy, Recipe
from trainers.tasks import make_task

RARE = dataclasses.replace(
    DATASET,
    train_images=np.zeros((10_000, 2, 2, 1), np.uint8),
    train_labels=np.repeat([0, 1], [9_999, 1]),
    class_names=["good", "broken"],
    channel_mean=np.zeros(1, np.float32),
    channel_std=np.ones(1, np.float32),
)
HOOKS = Hooks(after_epoch=lambda _: True, after_steps=lambda *_: None, heartbeat=lambda: None)
TASK = make_task(
    RARE,
    Recipe(batch_size=10, epochs=1, loss=CrossEntropy(class_weights="balanced")),
    seed=0,
    rank=0,
    world_size=1,
)


class Guesser:
    """Its loss for each example is so many times that of a blind guess, in the first step and in the others."""

    def __init__(self, first: float, others: float) -> None:
        self.first, self.others = first * np.log(2), others * np.log(2)
        self.steps = 0

    def train_steps(self, steps: Steps) -> tuple[np.ndarray, int]:
        assert TASK.class_weights is not None
        loss = self.others if self.steps else self.first
        self.steps += len(steps)
        return (loss * TASK.class_weights[steps.labels].sum(axis=1)).astype(np.float32), 0

    def all_reduce(self, values: np.ndarray) -> np.ndarray:
        return values


def guess(first: float, others: float) -> None:
    train(TASK, RARE, Guesser(first, others), first_epoch=1, prefetch=False, hooks=HOOKS)  # type: ignore[arg-type]


def test_a_rare_class_that_counts_much_is_no_divergence() -> None:
    guess(1, 1)


def test_a_loss_far_above_a_blind_guess_is_one_however_classes_count() -> None:
    with pytest.raises(DivergedError, match=r"became 13\.9, where a blind guess has 0\.69"):
        guess(1, 20)


def test_a_loss_that_begins_high_is_held_against_its_beginning() -> None:
    guess(20, 19)
    with pytest.raises(DivergedError, match=r"became 208, where the first step had 13\.86"):
        guess(20, 300)


def test_tracing_and_compiling_is_no_part_of_a_step() -> None:
    few = dataclasses.replace(RARE, train_images=RARE.train_images[:64], train_labels=np.arange(64) % 2)
    task = dataclasses.replace(TASK, recipe=Recipe(batch_size=10, epochs=2), class_weights=None)
    epochs: list[EpochMetrics] = []

    class Compiled:
        sizes: ClassVar[set[int]] = set()

        def train_steps(self, steps: Steps) -> tuple[np.ndarray, int]:
            if steps.labels.shape[1] not in self.sizes:
                self.sizes.add(steps.labels.shape[1])
                time.sleep(0.5)
            time.sleep(0.01 * len(steps))
            return np.ones(len(steps), np.float32), 0

        def all_reduce(self, values: np.ndarray) -> np.ndarray:
            return values

    hooks = dataclasses.replace(HOOKS, after_epoch=lambda metrics: epochs.append(metrics) or True)
    train(task, few, Compiled(), first_epoch=1, prefetch=False, hooks=hooks)  # type: ignore[arg-type]
    first, second = epochs
    assert 0.9 < first.compile_seconds < 1.5, "of a full batch and of the last one"
    assert first.step_seconds < 0.4
    assert second.compile_seconds == 0


def test_blocks_of_slow_steps_get_short_once_the_steps_were_timed() -> None:
    few = dataclasses.replace(RARE, train_images=RARE.train_images[:64], train_labels=np.arange(64) % 2)
    task = dataclasses.replace(TASK, recipe=Recipe(batch_size=10, epochs=2), class_weights=None)
    lengths: list[int] = []

    class Slow:
        def train_steps(self, steps: Steps) -> tuple[np.ndarray, int]:
            lengths.append(len(steps))
            time.sleep(0.15 * len(steps))
            return np.ones(len(steps), np.float32), 0

        def all_reduce(self, values: np.ndarray) -> np.ndarray:
            return values

    train(task, few, Slow(), first_epoch=1, prefetch=False, hooks=HOOKS)  # type: ignore[arg-type]
    assert lengths == [1, 5, 1, 3, 3, 1], "the first step of a size by itself"
