"""When the training loop takes a loss for a sick one."""

from __future__ import annotations

import dataclasses
import time
from typing import ClassVar

import numpy as np
import pytest

from tests.unit.measure_engine import DATASET
from trainers.contract import EpochMetrics
from trainers.data.batches import IN_CACHE, Steps
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


class Fake:
    """What the loop needs of an engine on CPUs, but for its steps."""

    block_limits = IN_CACHE
    warm_up_steps = 1

    def hold(self, images: np.ndarray) -> bool:
        return False

    def staged(self, steps: Steps) -> Steps:
        return steps

    def all_reduce(self, values: np.ndarray) -> np.ndarray:
        return values


class Guesser(Fake):
    """Its loss for each example at each step is so many times that of a blind guess; the last stays."""

    def __init__(self, *times: float) -> None:
        self.losses = np.array(times) * np.log(2)
        self.steps = 0

    def train_steps(self, steps: Steps) -> tuple[np.ndarray, int]:
        assert TASK.class_weights is not None
        places = np.arange(self.steps, self.steps + len(steps))
        self.steps += len(steps)
        losses = self.losses[np.minimum(places, len(self.losses) - 1)]
        return (losses * TASK.class_weights[steps.labels].sum(axis=1)).astype(np.float32), 0


def guess(*times: float, **recipe: object) -> int:
    """Train on losses that are so many times that of a blind guess; returns how many steps were taken."""
    guesser = Guesser(*times)
    task = dataclasses.replace(TASK, recipe=Recipe(**TASK.recipe.model_dump() | recipe))
    train(task, RARE, guesser, first_epoch=1, prefetch=False, hooks=HOOKS)  # type: ignore[arg-type]
    return guesser.steps


def test_a_rare_class_that_counts_much_is_no_divergence() -> None:
    assert guess(1) == 1000


def test_a_loss_that_stays_far_above_a_blind_guess_is_one_however_classes_count() -> None:
    with pytest.raises(DivergedError) as caught:
        guess(20)
    told = str(caught.value)
    assert "stayed above 6.93, 10 times that of a blind guess, for 500 steps, to 13.9 at step 500" in told
    assert "set stop_on_divergence to more steps or to false" in told


@pytest.mark.parametrize("recovers_after", [1, 12, 499])
def test_a_model_whose_loss_is_high_at_first_goes_on(recovers_after: int) -> None:
    assert guess(*[1e4] * recovers_after, 1) == 1000


def test_steps_above_the_limit_count_in_a_row() -> None:
    assert guess(*([20, 20, 1] * 300), stop_on_divergence=3) == 1000


@pytest.mark.parametrize(("steps", "ends_at"), [(1, 1), (40, 40), (True, 500)])
def test_the_number_of_steps_may_be_set(steps: int, ends_at: int) -> None:
    with pytest.raises(DivergedError, match=f"at step {ends_at} "):
        guess(20, stop_on_divergence=steps)


@pytest.mark.parametrize("off", [False, 0])
@pytest.mark.parametrize("loss", [20, np.nan, np.inf])
def test_the_guard_may_be_switched_off(off: object, loss: float) -> None:
    assert guess(1, loss, stop_on_divergence=off) == 1000


@pytest.mark.parametrize(("loss", "word"), [(np.nan, "NaN"), (np.inf, "infinite")])
def test_a_loss_that_is_not_finite_ends_a_run_at_once(loss: float, word: str) -> None:
    with pytest.raises(
        DivergedError, match=rf"the loss became {word} at step 7 \(epoch 1\) with learning rate"
    ):
        guess(*[1] * 6, loss)


def test_the_learning_rate_is_not_blamed_before_any_update() -> None:
    with pytest.raises(DivergedError) as caught:
        guess(np.nan)
    assert "the loss became NaN at step 1 (epoch 1), before any update of the weights" in str(caught.value)
    assert "learning" not in str(caught.value)


def test_tracing_and_compiling_is_no_part_of_a_step() -> None:
    few = dataclasses.replace(RARE, train_images=RARE.train_images[:64], train_labels=np.arange(64) % 2)
    task = dataclasses.replace(TASK, recipe=Recipe(batch_size=10, epochs=2), class_weights=None)
    epochs: list[EpochMetrics] = []

    class Compiled(Fake):
        sizes: ClassVar[set[int]] = set()

        def train_steps(self, steps: Steps) -> tuple[np.ndarray, int]:
            if steps.labels.shape[1] not in self.sizes:
                self.sizes.add(steps.labels.shape[1])
                time.sleep(0.5)
            time.sleep(0.01 * len(steps))
            return np.ones(len(steps), np.float32), 0

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

    class Slow(Fake):
        def train_steps(self, steps: Steps) -> tuple[np.ndarray, int]:
            lengths.append(len(steps))
            time.sleep(0.15 * len(steps))
            return np.ones(len(steps), np.float32), 0

    train(task, few, Slow(), first_epoch=1, prefetch=False, hooks=HOOKS)  # type: ignore[arg-type]
    assert lengths == [1, 5, 1, 3, 3, 1], "the first step of a size by itself"


def test_steps_until_a_graph_is_replayed_are_counted_as_warm_up() -> None:
    few = dataclasses.replace(RARE, train_images=RARE.train_images[:64], train_labels=np.arange(64) % 2)
    task = dataclasses.replace(TASK, recipe=Recipe(batch_size=10, epochs=2), class_weights=None)
    lengths: list[int] = []

    class Graphs(Fake):
        warm_up_steps = 3

        def train_steps(self, steps: Steps) -> tuple[np.ndarray, int]:
            lengths.append(len(steps))
            return np.ones(len(steps), np.float32), 0

    train(task, few, Graphs(), first_epoch=1, prefetch=True, hooks=HOOKS)  # type: ignore[arg-type]
    assert lengths == [1, 1, 1, 3, 1, 6, 1], (
        "the last batch is smaller, and has been taken once in each epoch"
    )
