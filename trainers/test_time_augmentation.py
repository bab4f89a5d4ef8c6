"""The copies of an image over which an evaluation averages the logits, and a trained model elsewhere too."""

from __future__ import annotations

import dataclasses

import numpy as np

from trainers.data.batches import augment
from trainers.recipes import Augmentation, Recipe


@dataclasses.dataclass(frozen=True)
class AugmentedCopy:
    """An image's own size, cut out of it with its edges reflected."""

    padding: int
    """Pixels reflected at each edge."""
    first: int
    """Row and column, of the padded image, where the copy begins."""
    mirrored: bool
    """Whether it is turned left to right."""
    weight: float
    """Of its logits in the mean; those of a recipe's copies sum to 1."""


def augmented_copies(recipe: Recipe) -> list[AugmentedCopy]:
    """What a recipe evaluates of each image; the image itself weighs as much as its two shifts (Jordan, 2024)."""
    shift = recipe.test_time_augmentation.shift
    places = {shift: 0.5, 0: 0.25, 2 * shift: 0.25} if shift else {0: 1.0}
    sides = (False, True) if recipe.test_time_augmentation.flip else (False,)
    return [
        AugmentedCopy(shift, first, mirrored, weight / len(sides))
        for first, weight in places.items()
        for mirrored in sides
    ]


def augmented(images: np.ndarray, copy: AugmentedCopy) -> np.ndarray:
    """One copy of uint8 [n, height, width, channels], of the same shape."""
    draws = np.repeat([[copy.mirrored], [copy.first], [copy.first]], len(images), axis=1)
    return augment(np.array(images), Augmentation(flip=True, crop=copy.padding), draws)
