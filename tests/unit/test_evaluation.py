"""The copies of an image over which an evaluation averages, and what its predictions come to."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from trainers.accuracy import balanced_accuracy
from trainers.contract import Task
from trainers.inference_speed import inference_speed
from trainers.inputs import InputTransform
from trainers.loop import evaluate
from trainers.recipes import Recipe


class CornerReader:
    """Says class 1 as loudly as the pixel in the top left corner is bright."""

    def predict(self, images: np.ndarray) -> np.ndarray:
        corner = images[:, 0, 0, 0].astype(np.float32)
        return np.stack([np.zeros_like(corner), corner], axis=1)

    def share_statistics(self) -> None:
        pass

    def all_reduce(self, values: np.ndarray) -> np.ndarray:
        return values


IMAGE = np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1)
MIDDLE, LEFT, RIGHT = 4, 0, 2


def task(recipe: Recipe, side: int) -> Task:
    return Task(
        recipe=recipe,
        seed=0,
        rank=0,
        world_size=1,
        image_shape=(side, side, 1),
        num_classes=2,
        inputs=InputTransform(scale=np.ones(1, np.float32), offset=np.zeros(1, np.float32)),
        class_weights=None,
    )


@pytest.mark.parametrize(
    ("copies", "logit"),
    [
        ({}, LEFT),
        ({"test_time_augmentation": {"flip": True}}, (LEFT + RIGHT) / 2),
        # shifted down and right, the corner shows the reflected middle; shifted up and left, the middle itself
        ({"test_time_augmentation": {"shift": 1}}, LEFT / 2 + MIDDLE / 4 + MIDDLE / 4),
        (
            {"test_time_augmentation": {"flip": True, "shift": 1}},
            (LEFT + RIGHT) / 4 + 2 * (MIDDLE + MIDDLE) / 8,
        ),
    ],
)
def test_an_evaluation_averages_the_logits_of_the_copies_that_the_recipe_asks_for(
    copies: dict[str, Any], logit: float
) -> None:
    _, _, confidences = evaluate(task(Recipe(**copies), 3), CornerReader(), IMAGE, np.array([1]))
    chance = 1 / (1 + np.exp(-logit))
    assert confidences == pytest.approx([max(chance, 1 - chance)])


@pytest.mark.parametrize(("side", "batch_size", "most"), [(32, 16, 512), (256, 16, 16), (256, 4, 8)])
def test_large_images_are_evaluated_fewer_at_a_time_though_no_fewer_than_are_trained(
    side: int, batch_size: int, most: int
) -> None:
    sizes = []

    class Counter(CornerReader):
        def predict(self, images: np.ndarray) -> np.ndarray:
            sizes.append(len(images))
            return super().predict(images)

    images = np.zeros((600, side, side, 1), np.uint8)
    evaluate(task(Recipe(batch_size=batch_size), side), Counter(), images, np.zeros(600, np.int64))
    assert sum(sizes) == 600 and max(sizes) == most


class SlowOnce:
    """Takes its time over each call, and longer over the first, as a compiler does."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def forward(self, images: np.ndarray) -> np.ndarray:
        time.sleep(0.01 if self.sizes else 0.5)
        self.sizes.append(len(images))
        return np.zeros((len(images), 2), np.float32)


def test_predictions_are_timed_warm_with_all_copies_of_an_image() -> None:
    engine = SlowOnce()
    images = np.zeros((100, 3, 3, 1), np.uint8)
    speed = inference_speed(
        task(Recipe.model_validate({"test_time_augmentation": {"flip": True}}), 3), engine, images
    )  # type: ignore[arg-type]
    assert 0.02 <= speed.seconds < 0.1, "two copies, and not the first call"
    assert 64 / 0.1 < speed.images_per_second <= 64 / 0.02
    assert set(engine.sizes) == {1, 64}


def test_balanced_accuracy_counts_every_class_that_has_images_alike() -> None:
    confusion = np.array([[90, 10, 0], [3, 1, 0], [0, 0, 0]])
    assert balanced_accuracy(confusion) == pytest.approx((0.9 + 0.25) / 2)
