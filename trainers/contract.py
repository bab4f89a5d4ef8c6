"""What a framework gets and what it gives back, in terms that neither framework owns."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np

from trainers.errors import InputError
from trainers.recipes import Recipe

FRAMEWORKS = ("keras", "torch")

State = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One worker's part of one run."""

    recipe: Recipe
    """What to train and how."""
    seed: int
    """Decides initial weights, batch order and augmentation."""
    rank: int
    """This worker's place among the workers, from 0."""
    world_size: int
    """How many workers share each global batch."""
    image_shape: tuple[int, int, int]
    """Height, width and channels of an image."""
    num_classes: int
    """Number of labels, 0 to num_classes - 1."""
    input_scale: np.ndarray
    """Float32 [channels]: the model sees pixel * input_scale + input_offset."""
    input_offset: np.ndarray
    """Float32 [channels]."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """One worker's share of one global batch."""

    images: np.ndarray
    """Uint8 [share, height, width, channels]."""
    labels: np.ndarray
    """Int64 [share]."""
    learning_rate: float
    """Of this step."""
    loss_scale: float
    """1 / global batch size, or 0 for a worker whose share of the last batch is empty."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """What one epoch of one run measured, over all workers."""

    epoch: int
    """From 1."""
    step: int
    """Steps taken since the start of the run."""
    train_loss: float
    """Mean over the epoch's training examples, as the model was when it saw each."""
    train_accuracy: float
    validation_loss: float | None
    """None without a validation split."""
    validation_accuracy: float | None
    learning_rate: float
    """Of the epoch's last step."""
    images_per_second: float
    """Training examples over all workers, per second of data and step time."""
    data_seconds: float
    """Waiting for batches (slowest worker, like the other times)."""
    step_seconds: float
    """Forward, backward, gradient exchange and update."""
    evaluation_seconds: float


class Engine(Protocol):
    """One model being trained in one framework, on one worker."""

    def parameter_count(self) -> int:
        """Trainable weights."""

    def train_epoch(self, batches: Iterable[Batch]) -> tuple[float, int]:
        """Take one step for each batch; returns this worker's summed loss and correct answers."""

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits, float32 [n, num_classes], for uint8 [n, height, width, channels]."""

    def all_reduce(self, values: np.ndarray) -> np.ndarray:
        """Sum over the workers of a float64 array."""

    def state(self) -> State:
        """Everything needed to go on bit for bit: model, optimizer, random states."""

    def load_state(self, state: State) -> None:
        """The reverse of `state`."""


def load_model_function(name: str) -> Callable[..., Any]:
    """Import a user's `package.module:function`.

    Raises:
        InputError: the module or the function cannot be found.
    """
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]
    except ImportError as error:
        raise InputError(f"model {name!r}: cannot import {module!r}: {error}") from error
    except AttributeError as error:
        raise InputError(f"model {name!r}: {module!r} has no function {function!r}") from error


SMALLEST_UNPADDED = {"tutorial_cnn": 18, "lenet5": 16}
"""The published networks pad nothing; smaller images than this are padded to keep their size."""


def padding_of(model: str, image_shape: tuple[int, int, int]) -> str:
    """`valid` as published, or `same` where an image would shrink to nothing."""
    return "valid" if min(image_shape[:2]) >= SMALLEST_UNPADDED[model] else "same"
