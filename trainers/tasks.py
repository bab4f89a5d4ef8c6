"""One worker's task from a data set and a recipe."""

from __future__ import annotations

from trainers.contract import Task
from trainers.data import Dataset
from trainers.inputs import input_transform
from trainers.recipes import Recipe, class_weights


def make_task(dataset: Dataset, recipe: Recipe, *, seed: int, rank: int, world_size: int) -> Task:
    """One worker's part of a run on a data set."""
    return Task(
        recipe=recipe,
        seed=seed,
        rank=rank,
        world_size=world_size,
        image_shape=dataset.image_shape,
        num_classes=len(dataset.class_names),
        inputs=input_transform(dataset, recipe),
        class_weights=class_weights(recipe.loss, dataset.train_labels, len(dataset.class_names)),
    )
