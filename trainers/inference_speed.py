"""How fast a trained model predicts, on the workers and threads that trained it."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable

import numpy as np

from trainers.contract import Engine, Task
from trainers.machine.timing import seconds_of_calls
from trainers.test_time_augmentation import augmented, augmented_copies

_BATCH = 64
_SECONDS = 0.2
_FEWEST_CALLS = 5


@dataclasses.dataclass(frozen=True)
class InferenceSpeed:
    """Medians over some calls, with every copy of an image that the recipe evaluates."""

    seconds: float
    """Latency: from one image to its prediction."""
    images_per_second: float
    """In batches of 64, or of all images where there are fewer."""


def inference_speed(task: Task, engine: Engine, images: np.ndarray) -> InferenceSpeed:
    """Time a model on one worker.

    Args:
        task: of the run.
        engine: the trained model.
        images: uint8 [n, height, width, channels], from the test split.
    """
    one, batch = images[:1], images[:_BATCH]

    def predict(shown: np.ndarray) -> None:
        for copy in augmented_copies(task.recipe):
            engine.forward(augmented(shown, copy))

    return InferenceSpeed(
        _median_seconds(lambda: predict(one)), len(batch) / _median_seconds(lambda: predict(batch))
    )


def _median_seconds(call: Callable[[], None]) -> float:
    return statistics.median(seconds_of_calls(call, fewest=_FEWEST_CALLS, at_least=_SECONDS))
