"""A training recipe as data: each framework translates the same description.

Nothing here imports a framework. `trainers/keras/optimizers.py` and `trainers/torch/optimizers.py` make an
optimizer of the framework's own class from an `Optimizer`. The learning rate of every step is computed here,
once, for both.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

BUILT_IN_MODELS = ("tutorial_cnn", "lenet5", "resnet9", "resnet18", "speednet")

_OWN = "package.module:function"

RECIPE_TAGS = frozenset(
    {"sgd", "adam", "adamw", "rmsprop", "constant", "cosine", "one_cycle", "plateau", "cross_entropy", _OWN}
)
"""What validation errors put into the path of a field to tell the kinds of optimizer, schedule and loss apart."""


class Block(BaseModel):
    """Base of every block of an experiment file: immutable, unknown fields refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Sgd(Block):
    """Stochastic gradient descent: `keras.optimizers.SGD` or `torch.optim.SGD`."""

    name: Literal["sgd"] = "sgd"
    learning_rate: float = Field(0.01, gt=0, description="Peak learning rate.")
    momentum: float = Field(0.0, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(
        0.0, ge=0, description="Coupled L2 decay: the gradient g becomes g + weight_decay * w."
    )
    decoupled: bool = Field(
        False, description="Decay apart from the gradient: w = w - lr * weight_decay * w."
    )

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Sgd:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0, such as momentum: 0.9")
        return self


class Adam(Block):
    """Adam (Kingma and Ba, 2015): `keras.optimizers.Adam` or `torch.optim.Adam`."""

    name: Literal["adam"] = "adam"
    learning_rate: float = Field(0.001, gt=0, description="Peak learning rate.")
    beta_1: float = Field(0.9, ge=0, lt=1)
    beta_2: float = Field(0.999, ge=0, lt=1)
    epsilon: float = Field(
        1e-8, gt=0, description="PyTorch adds it after the bias correction, Keras before it."
    )
    weight_decay: float = Field(
        0.0, ge=0, description="Coupled L2 decay: the gradient g becomes g + weight_decay * w."
    )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    name: Literal["adamw"] = "adamw"  # type: ignore[assignment]
    weight_decay: float = Field(0.01, ge=0, description="Decoupled decay: w = w - lr * weight_decay * w.")


class Rmsprop(Block):
    """RMSprop (Hinton, 2012): `keras.optimizers.RMSprop` or `torch.optim.RMSprop`."""

    name: Literal["rmsprop"] = "rmsprop"
    learning_rate: float = Field(0.001, gt=0, description="Peak learning rate.")
    rho: float = Field(
        0.9, ge=0, lt=1, description="Decay of the mean square of the gradients; PyTorch's alpha."
    )
    momentum: float = Field(0.0, ge=0, lt=1)
    epsilon: float = Field(
        1e-8, gt=0, description="PyTorch adds it to the root of the mean square, Keras below it."
    )
    weight_decay: float = Field(
        0.0, ge=0, description="Coupled L2 decay: the gradient g becomes g + weight_decay * w."
    )


class OwnOptimizer(Block):
    """An optimizer of the user's own, with its own learning rate, schedule, clipping and parameter groups."""

    name: str = Field(description="The package.module:function that makes it.")


class Constant(Block):
    """The peak learning rate throughout."""

    name: Literal["constant"] = "constant"


class Cosine(Block):
    """Linear warm-up over a share of the steps, then half a cosine down to zero."""

    name: Literal["cosine"] = "cosine"
    warmup: float = Field(0.0, ge=0, lt=1, description="Share of all steps spent warming up.")


class OneCycle(Block):
    """Linear from zero up to the peak over a share of the steps, then linear down to zero."""

    name: Literal["one_cycle"] = "one_cycle"
    warmup: float = Field(0.25, gt=0, lt=1, description="Share of all steps spent going up.")


class Plateau(Block):
    """The peak learning rate, and less of it whenever the validation loss no longer gets lower."""

    name: Literal["plateau"] = "plateau"
    factor: float = Field(0.1, gt=0, lt=1, description="What the learning rate is then multiplied by.")
    patience: int = Field(5, gt=0, description="Epochs in a row without a lower validation loss.")


class CrossEntropy(Block):
    """Softmax cross-entropy, averaged over the global batch."""

    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weights: Literal["balanced"] | None = Field(
        None, description="Have every class count alike in training, however many images it has."
    )


class OwnLoss(Block):
    """A loss of the user's own."""

    name: str = Field(description="The package.module:function that gives each example's loss.")


class Augmentation(Block):
    """Random changes to training images, drawn from one stream for both frameworks."""

    flip: bool = Field(
        False, description="Mirror each image left to right in every other epoch, half of them in each."
    )
    crop: int = Field(0, ge=0, description="Shift by up to this many pixels, edges reflected.")


class TestTimeAugmentation(Block):
    """The evaluation of each image as the mean of the logits of several copies of it."""

    flip: bool = Field(False, description="The image and its mirror image.")
    shift: int = Field(
        0,
        ge=0,
        description="The image, and with half its weight the image shifted by so many pixels up and left, and down and "
        "right (Jordan, 2024).",
    )


class BatchNorm(Block):
    """Batch normalization in the built-in networks; a model of the user's own has its own constants."""

    momentum: float = Field(
        0.9,
        ge=0,
        lt=1,
        description="Share of the moving statistics that a step keeps, as in Keras; PyTorch's momentum is 1 less this.",
    )
    epsilon: float = Field(1e-5, gt=0, description="Added to the variance.")


class Whitening(Block):
    """A fixed first layer: whitened patches of the image, their positive and negative parts apart.

    The model sees 2 * patch² * channels channels instead of the image's (Page, 2018; Jordan, 2024).
    """

    patch: int = Field(3, gt=0, description="Side of the square patches, in pixels.")
    stride: int = Field(2, gt=0, description="Pixels between patches; 2 halves the model's resolution.")


class EarlyStopping(Block):
    """Ends a run that no longer gets better on the validation split, and tests its best epoch."""

    patience: int = Field(
        5, gt=0, description="Epochs without a higher validation accuracy, or an equal one at a lower loss."
    )


def _named(default: str, written: Any) -> BeforeValidator:
    """Accept `optimizer: adam` for `optimizer: {name: adam}`, and fill in a name left out.

    `written` is the type that the published schema shows for the field.
    """

    def name(value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        return {"name": default} | value if isinstance(value, dict) else value

    return BeforeValidator(name, json_schema_input_type=written)


def _kind(value: Any) -> str:
    """The tag of an optimizer or a loss: its name, or that it is the user's own."""
    name = str(value.get("name") if isinstance(value, dict) else getattr(value, "name", value))
    return _OWN if re.fullmatch(r"[\w.]+:\w+", name) else name


BuiltInOptimizer = Sgd | Adam | AdamW | Rmsprop
Optimizer = Annotated[
    Annotated[
        Annotated[Sgd, Tag("sgd")]
        | Annotated[Adam, Tag("adam")]
        | Annotated[AdamW, Tag("adamw")]
        | Annotated[Rmsprop, Tag("rmsprop")]
        | Annotated[OwnOptimizer, Tag(_OWN)],
        Discriminator(_kind),
    ],
    _named("adam", str | Sgd | Adam | AdamW | Rmsprop | OwnOptimizer),
]
Schedule = Annotated[
    Annotated[Constant | Cosine | OneCycle | Plateau, Field(discriminator="name")],
    _named(
        "constant",
        Literal["constant", "cosine", "one_cycle", "plateau"] | Constant | Cosine | OneCycle | Plateau,
    ),
]
Loss = Annotated[
    Annotated[
        Annotated[CrossEntropy, Tag("cross_entropy")] | Annotated[OwnLoss, Tag(_OWN)],
        Discriminator(_kind),
    ],
    _named("cross_entropy", str | CrossEntropy | OwnLoss),
]


DIVERGENCE_STEPS = 500


def _divergence_steps(value: Any) -> Any:
    """Accept false for 0, and true for the default."""
    return value * DIVERGENCE_STEPS if isinstance(value, bool) else value


class Recipe(Block):
    """How one arm is trained. The same recipe means the same work in either framework."""

    model: str = Field(
        "tutorial_cnn",
        description=f"One of {', '.join(BUILT_IN_MODELS)}, or your own as package.module:function.",
    )
    optimizer: Optimizer = Adam()
    schedule: Schedule = Constant()
    loss: Loss = CrossEntropy()
    augmentation: Augmentation = Augmentation()
    inputs: Literal["raw", "unit", "symmetric", "standardized", "imagenet"] = Field(
        "standardized",
        description="Pixel scaling: 0..255, 0..1, -1..1, zero mean and unit variance per channel, or by the mean and "
        "standard deviation of ImageNet.",
    )
    whitening: Whitening | None = Field(None, description="Fixed first layer of whitened patches.")
    batch_norm: BatchNorm = BatchNorm()
    sync_batch_norm: bool = Field(
        False,
        description="Batch normalization over the global batch instead of each worker's share; PyTorch needs GPUs.",
    )
    find_unused_parameters: bool = Field(
        False,
        description="PyTorch on several workers: look in every step for weights that have no gradient, which "
        "`DistributedDataParallel` refuses otherwise.",
    )
    init: Literal["framework", "glorot_uniform", "he_normal", "fan_in_uniform"] = Field(
        "glorot_uniform",
        description="Initial weights: each framework's own, or the same numbers for both from one distribution.",
    )
    batch_size: int = Field(128, gt=0, description="Global batch size, divided over the workers.")
    accumulate: int | None = Field(
        None,
        gt=1,
        description="Parts that each worker's share of a batch is computed in, one after the other, to save memory.",
    )
    gradient_clip: float | None = Field(
        None,
        gt=0,
        description="Most that the norm of all gradients of a batch together may be; larger ones are scaled down.",
    )
    epochs: int = Field(10, gt=0)
    early_stopping: EarlyStopping | None = Field(
        None,
        description="End a run that no longer gets better on the validation split, and test its best epoch.",
    )
    precision: Literal["float32", "auto", "tf32", "bfloat16"] = Field(
        "float32",
        description="bfloat16 computes in mixed precision and keeps float32 weights; auto is that where the "
        "processors have instructions for it, and float32 elsewhere; tf32 rounds the factors of products on "
        "GPUs that can, and is float32 elsewhere.",
    )
    deterministic: bool | Literal["auto"] = Field(
        "auto",
        description="Only kernels that give the same result again, which costs speed on GPUs; auto is true on CPUs and "
        "false on GPUs.",
    )
    compile: bool = Field(
        False,
        description="Compile the forward and backward pass: `torch.compile`, with CUDA graphs on a single GPU, or "
        "`jit_compile` (XLA) for Keras.",
    )
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay per step of an exponential moving average of the weights, which is evaluated; 0 for none.",
    )
    test_time_augmentation: TestTimeAugmentation = TestTimeAugmentation()

    stop_on_divergence: Annotated[
        int, BeforeValidator(_divergence_steps, json_schema_input_type=int | bool)
    ] = Field(
        DIVERGENCE_STEPS,
        ge=0,
        description="End a run whose loss is not finite, or ten times that of a blind guess for so many steps in a "
        "row; false to let it go on.",
    )

    @model_validator(mode="after")
    def _own_optimizer_has_its_own_schedule(self) -> Recipe:
        if isinstance(self.optimizer, OwnOptimizer) and not isinstance(self.schedule, Constant):
            raise ValueError(
                f"schedule {self.schedule.name} is for built-in optimizers; make the schedule of "
                f"{self.optimizer.name} in that function, and leave this one out"
            )
        if self.accumulate is not None and self.accumulate > self.batch_size:
            raise ValueError(f"accumulate {self.accumulate} exceeds batch_size {self.batch_size}")
        return self

    def model_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Height, width and channels that the model sees of an image."""
        if self.whitening is None:
            return image_shape
        patch, stride = self.whitening.patch, self.whitening.stride
        height, width = ((side - patch) // stride + 1 for side in image_shape[:2])
        return height, width, 2 * patch**2 * image_shape[2]

    def is_deterministic(self, *, on_gpu: bool) -> bool:
        """`deterministic`, with auto resolved by the device."""
        return not on_gpu if self.deterministic == "auto" else self.deterministic

    def resolved(self, *, bfloat16: bool) -> Recipe:
        """The recipe with `precision: auto` resolved, by whether the processors compute bfloat16 themselves."""
        if self.precision != "auto":
            return self
        return self.model_copy(update={"precision": "bfloat16" if bfloat16 else "float32"})


def class_weights(loss: CrossEntropy | OwnLoss, labels: np.ndarray, num_classes: int) -> np.ndarray | None:
    """What an example of each class counts in the loss, float32 [num_classes]; None for one each.

    Balanced, it is n / (num_classes * n of the class) (King and Zeng, 2001), so that the examples' mean is 1.

    Args:
        loss: of the recipe.
        labels: int64 [n], of the training images.
        num_classes: number of labels; one without images gets a weight that nothing uses.
    """
    if isinstance(loss, OwnLoss) or loss.class_weights is None:
        return None
    counts = np.bincount(labels, minlength=num_classes)
    return (len(labels) / (num_classes * np.maximum(counts, 1))).astype(np.float32)
