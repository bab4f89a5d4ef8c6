"""When the training loop takes a loss for a sick one."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from tests.unit.measure_engine import DATASET
from trainers.contract import Steps
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
    """Its loss for each example is so many times that of a blind guess."""

    def __init__(self, times: float) -> None:
        self.loss = times * np.log(2)

    def train_steps(self, steps: Steps) -> tuple[np.ndarray, int]:
        assert TASK.class_weights is not None
        return (self.loss * TASK.class_weights[steps.labels].sum(axis=1)).astype(np.float32), 0

    def all_reduce(self, values: np.ndarray) -> np.ndarray:
        return values


def guess(times: float) -> None:
    train(TASK, RARE, Guesser(times), first_epoch=1, prefetch=False, hooks=HOOKS)  # type: ignore[arg-type]


def test_a_rare_class_that_counts_much_is_no_divergence() -> None:
    guess(1)


def test_a_loss_far_above_a_blind_guess_is_one_however_classes_count() -> None:
    with pytest.raises(DivergedError, match=r"became 13\.9, where a blind guess has 0\.69"):
        guess(20)


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
    assert lengths == [6, 1, 3, 3, 1]
