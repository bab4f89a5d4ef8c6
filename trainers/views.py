"""The views of an image over which an evaluation averages the logits, and a trained model elsewhere too."""

from __future__ import annotations

import dataclasses

import numpy as np

from trainers.data.batches import augment
from trainers.recipes import Augmentation, Recipe


@dataclasses.dataclass(frozen=True)
class View:
    """An image's own size, cut out of it with its edges reflected."""

    padding: int
    """Pixels reflected at each edge."""
    first: int
    """Row and column, of the padded image, where the view begins."""
    mirrored: bool
    """Whether it is turned left to right."""
    weight: float
    """Of its logits in the mean; those of a recipe's views sum to 1."""


def views_of(recipe: Recipe) -> list[View]:
    """What a recipe evaluates of each image; the image itself weighs as much as its two shifts (Jordan, 2024)."""
    shift = recipe.shift_averaging
    places = {shift: 0.5, 0: 0.25, 2 * shift: 0.25} if shift else {0: 1.0}
    sides = (False, True) if recipe.flip_averaging else (False,)
    return [
        View(shift, first, mirrored, weight / len(sides))
        for first, weight in places.items()
        for mirrored in sides
    ]


def show(images: np.ndarray, view: View) -> np.ndarray:
    """One view of uint8 [n, height, width, channels], of the same shape."""
    draws = np.repeat([[view.mirrored], [view.first], [view.first]], len(images), axis=1)
    return augment(np.array(images), Augmentation(flip=True, crop=view.padding), draws)
