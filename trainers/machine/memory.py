"""What to say to a run that ran out of memory."""

from __future__ import annotations

import dataclasses
from typing import Any

from trainers.contract import Task
from trainers.data import Dataset
from trainers.data.batches import epoch_steps
from trainers.errors import TandemError
from trainers.schedules import learning_rates

_WORDS = ("not enough memory", "out of memory", "can't allocate memory")


class OutOfMemoryError(TandemError):
    """A step did not fit into memory; says which batch size would."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of either framework, or of Python, says that memory ran out."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ in ("OutOfMemoryError", "ResourceExhaustedError")
        or any(words in str(error).lower() for words in _WORDS)
    )


def fitting_batch_size(task: Task, dataset: Dataset, runtime: Any) -> int | None:
    """Halve the batch until a step succeeds; None if not even one image fits.

    Args:
        task: that ran out of memory; trained by one worker.
        dataset: what it was trained on.
        runtime: of the framework, which makes engines.
    """
    size = task.recipe.batch_size // 2
    while size:
        recipe = task.recipe.model_copy(update={"batch_size": size})
        try:
            engine = runtime.engine(dataclasses.replace(task, recipe=recipe))
            block = epoch_steps(
                dataset.train_images[:size],
                dataset.train_labels[:size],
                augmentation=recipe.augmentation,
                batch_size=size,
                learning_rates=learning_rates(recipe, 1),
                seed=task.seed,
                epoch=1,
                rank=0,
                world_size=1,
            )
            engine.train_steps(next(block))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            size //= 2
        else:
            return size
    return None
