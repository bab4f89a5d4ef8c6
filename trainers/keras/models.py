"""The built-in networks in Keras. Layer names, shapes and order are those of `trainers/torch/models.py`.

Models take images [n, height, width, channels] and return logits [n, num_classes].
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable

import keras
import numpy as np
from keras import layers

from trainers.contract import own_model, padding_of
from trainers.initial import Weights
from trainers.recipes import BatchNorm

Norm = Callable[..., layers.Layer]
"""Makes a batch normalization, given its name."""


def build_model(
    name: str,
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    batch_norm: BatchNorm | None = None,
    synchronized: bool = False,
) -> keras.Model:
    """Build a network by name, or by calling the user's `package.module:function`.

    Args:
        name: of a built-in network, or `package.module:function`.
        image_shape: height, width, channels.
        num_classes: number of logits.
        batch_norm: constants of a built-in network's batch normalization; the recipe's defaults when left out.
        synchronized: whether that normalizes over the global batch instead of each worker's share.
    """
    if ":" in name:
        return _own_model(name, image_shape, num_classes)
    constants = batch_norm or BatchNorm()
    norm = functools.partial(
        layers.BatchNormalization,
        momentum=constants.momentum,
        epsilon=constants.epsilon,
        synchronized=synchronized,
    )
    inputs = keras.Input(image_shape)
    if name == "tutorial_cnn":
        outputs = _tutorial_cnn(inputs, num_classes, padding_of(name, image_shape))
    elif name == "lenet5":
        outputs = _lenet5(inputs, num_classes, padding_of(name, image_shape))
    elif name == "resnet9":
        outputs = _resnet9(inputs, num_classes, norm)
    elif name == "speednet":
        outputs = _speednet(inputs, num_classes, norm)
    else:
        outputs = _resnet18(inputs, num_classes, norm)
    return keras.Model(inputs, outputs, name=name)


def _own_model(name: str, image_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    """A user's model, called once: a subclassed one has no weights before."""

    def predict(model: keras.Model, shape: tuple[int, int, int]):
        return model(np.zeros((1, *shape), np.float32))

    return own_model(name, keras.Model, image_shape, num_classes, predict)


def _tutorial_cnn(x, num_classes: int, padding: str):
    x = layers.Conv2D(32, 3, padding=padding, activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(64, 3, padding=padding, activation="relu", name="conv2")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(64, 3, padding=padding, activation="relu", name="conv3")(x)
    x = layers.Dense(64, activation="relu", name="dense1")(layers.Flatten()(x))
    return layers.Dense(num_classes, name="dense2")(x)


def _lenet5(x, num_classes: int, padding: str):
    x = layers.Conv2D(6, 5, padding=padding, activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(16, 5, padding=padding, activation="relu", name="conv2")(x)
    x = layers.Flatten()(layers.MaxPooling2D(2)(x))
    x = layers.Dense(120, activation="relu", name="dense1")(x)
    x = layers.Dense(84, activation="relu", name="dense2")(x)
    return layers.Dense(num_classes, name="dense3")(x)


def _conv_norm(x, outputs: int, name: str, norm: Norm, *, size: int = 3, stride: int = 1):
    if size > 1:  # TensorFlow's own "same" padding is lopsided under a stride of 2
        x = layers.ZeroPadding2D(size // 2)(x)
    x = layers.Conv2D(outputs, size, stride, use_bias=False, name=f"{name}.conv")(x)
    return norm(name=f"{name}.norm")(x)


def _resnet9(x, num_classes: int, norm: Norm):
    def block(x, outputs: int, name: str):
        return layers.ReLU()(_conv_norm(x, outputs, name, norm))

    x = block(x, 64, "prep")
    x = layers.MaxPooling2D(2)(block(x, 128, "layer1"))
    x = layers.Add()([x, block(block(x, 128, "residual1a"), 128, "residual1b")])
    x = layers.MaxPooling2D(2)(block(x, 256, "layer2"))
    x = layers.MaxPooling2D(2)(block(x, 512, "layer3"))
    x = layers.Add()([x, block(block(x, 512, "residual3a"), 512, "residual3b")])
    x = layers.Dense(num_classes, use_bias=False, name="dense")(layers.GlobalMaxPooling2D()(x))
    return layers.Rescaling(0.125)(x)


def _speednet(x, num_classes: int, norm: Norm):
    for name, outputs in (("group1", 64), ("group2", 128), ("group3", 256)):
        x = layers.Conv2D(outputs, 3, padding="same", use_bias=False, name=f"{name}.conv")(x)
        if min(x.shape[1:3]) > 1:
            x = layers.MaxPooling2D(2)(x)
        x = norm(name=f"{name}.norm")(x)
        x = layers.ReLU()(x)
    x = layers.Dense(num_classes, use_bias=False, name="dense")(layers.GlobalMaxPooling2D()(x))
    return layers.Rescaling(0.2)(x)


def _resnet18(x, num_classes: int, norm: Norm):
    x = layers.ReLU()(_conv_norm(x, 64, "stem", norm))
    width = 64
    for stage, outputs in enumerate((64, 128, 256, 512), start=1):
        for block in (1, 2):
            name = f"block{stage}{block}"
            stride = 2 if stage > 1 and block == 1 else 1
            straight = x
            x = layers.ReLU()(_conv_norm(x, outputs, f"{name}.a", norm, stride=stride))
            x = _conv_norm(x, outputs, f"{name}.b", norm)
            if stride != 1 or width != outputs:
                straight = _conv_norm(straight, outputs, f"{name}.shortcut", norm, size=1, stride=stride)
            x = layers.ReLU()(layers.Add()([x, straight]))
            width = outputs
    return layers.Dense(num_classes, name="dense")(layers.GlobalAveragePooling2D()(x))


_ROLES = {
    "kernel": "kernel",
    "bias": "bias",
    "gamma": "scale",
    "beta": "offset",
    "moving_mean": "mean",
    "moving_variance": "variance",
}


def named_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Every weight under its neutral name: its path without the model's own name, and its role."""
    named = {}
    for variable in model.variables:
        if variable.dtype.startswith("float"):
            *layers_, kind = path_in(model, variable).split("/")
            named[".".join([*layers_, _ROLES.get(kind, kind)])] = variable
    return named


def single_value_norms(model: keras.Model) -> list[str]:
    """Names of the layers of batch normalization that get one value of each channel from an image.

    A layer within a subclassed model has no inputs of its own to look at, and is left out.
    """
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += single_value_norms(layer)
        elif isinstance(layer, layers.BatchNormalization):
            with contextlib.suppress(AttributeError, ValueError):
                if math.prod(layer.input.shape[1:-1]) == 1:
                    found.append(layer.name)
    return found


def path_in(model: keras.Model, variable: keras.Variable) -> str:
    """A variable's path without the model's own name."""
    return variable.path.removeprefix(f"{model.name}/")


def get_weights(model: keras.Model) -> Weights:
    """The weights of a network under their neutral names, in the layouts of `trainers.initial`."""
    return {name: np.array(variable) for name, variable in named_variables(model).items()}


def set_weights(model: keras.Model, weights: Weights) -> None:
    """The reverse of `get_weights`."""
    for name, variable in named_variables(model).items():
        variable.assign(weights[name])
