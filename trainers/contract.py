"""What a framework gets and what it gives back, in terms that neither framework owns."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from trainers.data.batches import BlockLimits, Steps
from trainers.errors import InputError, place_of
from trainers.initial import Weights
from trainers.inputs import InputTransform
from trainers.recipes import Recipe

FRAMEWORKS: tuple[str, str] = ("keras", "torch")

State = dict[str, np.ndarray]

AUXILIARY_WEIGHT = 0.3
"""Of the loss of each auxiliary output in the training loss, as in GoogLeNet (Szegedy et al., 2015)."""
_USUAL_SIDES = (224, 299, 384, 256, 192, 160, 128, 96, 64, 48, 32, 28)
"""Pixels of images that models are usually built for."""


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
    inputs: InputTransform
    """From pixels to what the model sees."""
    class_weights: np.ndarray | None
    """What an example of each class counts in the training loss, float32 [num_classes]; None for one each."""

    @property
    def model_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of what the model sees."""
        return self.recipe.model_shape(self.image_shape)

    def in_float32(self) -> Task:
        """The same part, computed in float32: a trained model is tested and saved in it, whatever it was trained in."""
        recipe = self.recipe.model_copy(update={"precision": "float32"})
        return dataclasses.replace(self, recipe=recipe)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """What one epoch of one run measured, over all workers."""

    epoch: int
    """From 1."""
    step: int
    """Steps taken since the start of the run."""
    train_loss: float
    """Mean over the epoch's training examples, as the recipe counts them and as the model was when it saw each."""
    train_accuracy: float
    validation_loss: float | None
    """None without a validation split."""
    validation_accuracy: float | None
    validation_balanced_accuracy: float | None
    """With every class counted alike, however many images it has."""
    learning_rate: float | None
    """Of the epoch's last step; None for an optimizer of the user's own."""
    images_per_second: float
    """Training examples over all workers, per second of data and step time."""
    data_seconds: float
    """Waiting for batches (slowest worker, like the other times)."""
    step_seconds: float
    """Forward, backward, gradient exchange and update."""
    compile_seconds: float
    """Tracing and compiling: what the first step of each batch size takes longer than the fastest step."""
    evaluation_seconds: float


@dataclasses.dataclass(frozen=True)
class UnbiasedVariance:
    """How a moving variance takes over the unbiased variance of a batch."""

    rate: float
    """The share of the batch's variance that a step takes over."""
    values: int
    """How many values of each image the variance is of."""


class Engine(Protocol):
    """One model being trained in one framework, on one worker."""

    framework: str
    """`keras` or `torch`."""
    block_limits: BlockLimits
    """Of the blocks of steps that it takes at a time; the same on every worker."""
    warm_up_steps: int
    """Steps of each batch size until it is compiled."""

    def parameter_count(self) -> int:
        """Trainable weights."""

    def forward_flops(self) -> int | None:
        """Floating-point operations of the convolutions and matrix products for one image, a multiply-add as two.

        None where they cannot be counted: in a Keras model of the user's own.
        """

    def matmul_flops(self) -> float:
        """Floating-point operations per second that a large matrix product reaches here, in the recipe's precision."""

    def device_memory_peak(self) -> int:
        """Bytes of the GPU's memory that this model's training used at most; 0 without a GPU."""

    def hold(self, images: np.ndarray) -> bool:
        """Keep the training images on the device if they fit, so that blocks need only name them."""

    def staged(self, steps: Steps) -> Steps:
        """The same steps with their images and labels on the device; may be called in another thread."""

    def train_steps(self, steps: Steps) -> tuple[np.ndarray, int]:
        """Take the steps; returns each one's loss, summed over this worker's share, and correct predictions.

        The losses are [steps], those that the model adds of itself included.
        """

    def take_step(self, step: Steps) -> tuple[float, Weights]:
        """As `train_steps`, but a single step, and with what it took.

        Returns:
            The loss, summed over this worker's share, and the gradients of the global batch's mean loss, without
            weight decay, by neutral name.
        """

    def forward(self, images: np.ndarray) -> np.ndarray:
        """Logits, float32 [n, num_classes], for uint8 [n, height, width, channels], of the weights under training."""

    def predict(self, images: np.ndarray) -> np.ndarray:
        """As `forward`, with `ema_decay` of the averaged weights."""

    def unused_parameters(self) -> list[str]:
        """Trainable weights without a gradient in the last step, if several workers cannot exchange the others."""

    def single_value_norms(self) -> list[str]:
        """Layers of batch normalization that get one value of each channel from an image."""

    def share_statistics(self) -> None:
        """Give every worker the first one's moving statistics, which evaluation uses; called by all at once."""

    def weights(self) -> Weights:
        """The model's weights by neutral name."""

    def weight_names(self) -> dict[str, str]:
        """The framework's own name of each weight by its neutral name."""

    def unbiased_variances(self) -> dict[str, UnbiasedVariance]:
        """By their neutral names, the moving variances that keep the unbiased variance of each batch."""

    def neutral_state(self) -> Weights:
        """The model's weights and its optimizer's state, which both frameworks can load."""

    def load_neutral_state(self, state: Weights) -> None:
        """Take over what either framework's `neutral_state` gave."""

    def all_reduce(self, values: np.ndarray) -> np.ndarray:
        """Sum over the workers of a float64 array."""

    def state(self) -> State:
        """Everything needed to go on bit for bit: model, optimizer, random states."""

    def load_state(self, state: State) -> None:
        """The reverse of `state`."""


def own_function(field: str, name: str) -> Callable[..., Any]:
    """A user's `package.module:function`.

    Args:
        field: of the recipe, for the error.
        name: of the function.

    Raises:
        InputError: the module or the function cannot be found.
    """
    module, _, function = name.partition(":")
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{field} {name!r}: cannot import {module!r}: {error}{place_of(error)}") from error
    found: Callable[..., Any] | None = getattr(imported, function, None)
    if found is None:
        raise InputError(f"{field} {name!r}: {module!r} has no function {function!r}")
    return found


def own_model(
    name: str,
    kind: type,
    image_shape: tuple[int, int, int],
    num_classes: int,
    predict: Callable[[Any, tuple[int, int, int]], Any],
) -> Any:
    """What a user's `package.module:function` builds, after a prediction for one image.

    Args:
        name: of the function.
        kind: the framework's class of models.
        image_shape: height, width, channels.
        num_classes: number of logits.
        predict: a model's outputs in evaluation for one image of a shape.

    Raises:
        InputError: the module or the function cannot be found, what it returns is no model of the framework, or the
            model does not give logits for images of this shape.
    """
    model = own_function("model", name)(image_shape, num_classes)
    if not isinstance(model, kind):
        framework = kind.__module__.partition(".")[0]
        raise InputError(
            f"model {name!r} returns {type(model).__name__}; a {framework} {kind.__name__} is needed"
        )
    try:
        outputs = predict(model, image_shape)
    except Exception as error:
        side = _side_taken(model, image_shape, predict)
        if side is None:
            raise
        height, width, _ = image_shape
        raise InputError(
            f"model {name!r} takes images of {side}x{side} pixels but not of {width}x{height}; set data.image_size: "
            f"{side}, or build the model for the image_shape that its function gets"
        ) from error
    check_logits(name, outputs, num_classes)
    return model


def _side_taken(
    model: Any, image_shape: tuple[int, int, int], predict: Callable[[Any, tuple[int, int, int]], Any]
) -> int | None:
    """The side of the square images that a model was built for; None where it takes none of a usual size."""
    for side in _USUAL_SIDES:
        try:
            predict(model, (side, side, image_shape[2]))
        except Exception:  # of a model that is not tandem's
            continue
        return side
    return None


def logits_of(outputs: Any) -> Any:
    """A model's logits: its output, or what its outputs call `logits`."""
    if isinstance(outputs, Mapping):
        return outputs.get("logits", outputs)
    return getattr(outputs, "logits", outputs)


def training_logits(name: str, outputs: Any, num_classes: int) -> tuple[Any, list[Any]]:
    """A model's logits in training, and its auxiliary ones: those that follow the first in a tuple or list.

    Args:
        name: of the model.
        outputs: of one batch.
        num_classes: number of logits.

    Raises:
        InputError: these are not logits [n, num_classes].
    """
    found = [*outputs] if isinstance(outputs, tuple | list) else [logits_of(outputs)]
    found = [logits for logits in found if logits is not None]
    for logits in found:
        shape = getattr(logits, "shape", None)
        if shape is None or len(shape) != 2 or shape[1] != num_classes:
            raise InputError(
                f"model {name!r} gives {_described(logits)} in training; logits of shape (n, {num_classes}) are "
                "needed, alone, as `logits` of a mapping, or first in a tuple with auxiliary ones"
            )
    return found[0], found[1:]


def _described(outputs: Any) -> str:
    """The shape of a tensor, or the kind of anything else."""
    if isinstance(outputs, Mapping):
        return f"a {type(outputs).__name__} without `logits`"
    if isinstance(outputs, tuple | list):
        return f"a {type(outputs).__name__} of {len(outputs)} outputs"
    shape = getattr(outputs, "shape", None)
    return type(outputs).__name__ if shape is None else f"shape {tuple(shape)}"


def check_losses(name: str, losses: Any) -> None:
    """Refuse a user's loss by what it gave for two examples.

    Raises:
        InputError: these are not losses [2].
    """
    shape = getattr(losses, "shape", None)
    if shape is None or tuple(shape) != (2,):
        given = type(losses).__name__ if shape is None else f"shape {tuple(shape)}"
        raise InputError(
            f"loss {name!r} gives {given} for two examples; shape (2,) is needed, one loss for each"
        )


def check_logits(name: str, outputs: Any, num_classes: int) -> None:
    """Refuse a user's model by what it gave in evaluation for one image.

    Raises:
        InputError: these are not floating-point logits [1, num_classes].
    """
    logits = logits_of(outputs)
    shape = getattr(logits, "shape", None)
    if shape is None or tuple(shape) != (1, num_classes):
        raise InputError(
            f"model {name!r} gives {_described(logits)} for one image; logits of shape {(1, num_classes)} are "
            "needed, one for each class"
        )
    if "float" not in str(logits.dtype):
        raise InputError(
            f"model {name!r} gives logits of type {getattr(logits.dtype, 'name', logits.dtype)}; floating-point "
            "numbers are needed"
        )


SMALLEST_IMAGE = {"tutorial_cnn": 4, "lenet5": 4, "resnet9": 8}
"""Pixels that a network needs at least, where that is more than 1."""

SINGLE_VALUE_BELOW = {"resnet9": 16, "resnet18": 9, "speednet": 16}
"""Of an image whose sides are below so many pixels, the network's last normalization sees one value a channel."""

SMALLEST_UNPADDED = {"tutorial_cnn": 18, "lenet5": 16}
"""The published networks pad nothing; smaller images than this are padded to keep their size."""


def padding_of(model: str, image_shape: tuple[int, int, int]) -> str:
    """`valid` as published, or `same` where an image would shrink to nothing."""
    return "valid" if min(image_shape[:2]) >= SMALLEST_UNPADDED[model] else "same"
