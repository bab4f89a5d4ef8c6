"""How fast a trained model answers, on the workers and threads that trained it."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable

import numpy as np

from trainers.contract import Engine, Task
from trainers.timing import seconds_of_calls
from trainers.views import show, views_of

_BATCH = 64
_SECONDS = 0.2
_FEWEST_CALLS = 5


@dataclasses.dataclass(frozen=True)
class AnswerSpeed:
    """Medians over some calls, with every view of an image that the recipe evaluates."""

    seconds: float
    """From one image to its answer."""
    images_per_second: float
    """In batches of 64, or of all images where there are fewer."""


def answer_speed(task: Task, engine: Engine, images: np.ndarray) -> AnswerSpeed:
    """Time a model on one worker.

    Args:
        task: of the run.
        engine: the trained model.
        images: uint8 [n, height, width, channels], from the test split.
    """
    one, batch = images[:1], images[:_BATCH]

    def answer(shown: np.ndarray) -> None:
        for view in views_of(task.recipe):
            engine.forward(show(shown, view))

    return AnswerSpeed(
        _median_seconds(lambda: answer(one)), len(batch) / _median_seconds(lambda: answer(batch))
    )


def _median_seconds(call: Callable[[], None]) -> float:
    return statistics.median(seconds_of_calls(call, fewest=_FEWEST_CALLS, at_least=_SECONDS))
