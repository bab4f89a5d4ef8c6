"""The views of an image over which an evaluation averages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trainers.contract import Task
from trainers.inputs import InputTransform
from trainers.loop import evaluate
from trainers.recipes import Recipe


class CornerReader:
    """Says class 1 as loudly as the pixel in the top left corner is bright."""

    def predict(self, images: np.ndarray) -> np.ndarray:
        corner = images[:, 0, 0, 0].astype(np.float32)
        return np.stack([np.zeros_like(corner), corner], axis=1)

    def all_reduce(self, values: np.ndarray) -> np.ndarray:
        return values


IMAGE = np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1)
MIDDLE, LEFT, RIGHT = 4, 0, 2


@pytest.mark.parametrize(
    ("views", "logit"),
    [
        ({}, LEFT),
        ({"flip_averaging": True}, (LEFT + RIGHT) / 2),
        # shifted down and right, the corner shows the reflected middle; shifted up and left, the middle itself
        ({"shift_averaging": 1}, LEFT / 2 + MIDDLE / 4 + MIDDLE / 4),
        ({"flip_averaging": True, "shift_averaging": 1}, (LEFT + RIGHT) / 4 + 2 * (MIDDLE + MIDDLE) / 8),
    ],
)
def test_an_evaluation_averages_the_logits_of_the_views_that_the_recipe_asks_for(
    views: dict[str, Any], logit: float
) -> None:
    inputs = InputTransform(scale=np.ones(1, np.float32), offset=np.zeros(1, np.float32))
    task = Task(
        recipe=Recipe(**views),
        seed=0,
        rank=0,
        world_size=1,
        image_shape=(3, 3, 1),
        num_classes=2,
        inputs=inputs,
    )
    _, _, confidences = evaluate(task, CornerReader(), IMAGE, np.array([1]))
    chance = 1 / (1 + np.exp(-logit))
    assert confidences == pytest.approx([max(chance, 1 - chance)])
