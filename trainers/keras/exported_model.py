"""A trained Keras model for use elsewhere: with its preprocessing, in Keras' own format, and ONNX where it can be.

Twin of `trainers/torch/exported_model.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np

from trainers.contract import logits_of
from trainers.inputs import InputTransform
from trainers.test_time_augmentation import AugmentedCopy

FILE = "model.keras"


def exported_model(
    model: keras.Model,
    transform: InputTransform,
    copies: list[AugmentedCopy],
    image_shape: tuple[int, int, int],
    *,
    is_built_in: bool,
) -> keras.Model:
    """From uint8 pixels [n, height, width, channels] to probabilities, float32 [n, num_classes].

    The weights are copied, so that the exported model stays as it is when training goes on.
    """
    # Keras clones a subclassed model of the user's own without a function only.
    copied = keras.models.clone_model(model, clone_function=_portable if is_built_in else None)
    copied.set_weights(model.get_weights())
    images = keras.Input(image_shape, dtype="uint8", name="images")
    x = keras.layers.Rescaling(transform.scale.tolist(), transform.offset.tolist(), dtype="float32")(images)
    whiten = None
    if transform.kernel is not None:
        patch, _, _, features = transform.kernel.shape
        whiten = keras.layers.Conv2D(
            features, patch, strides=transform.stride, use_bias=False, activation="relu", name="whitening"
        )
        whiten.build((None, *image_shape))
        whiten.set_weights([transform.kernel])
        whiten.trainable = False

    def logits(x):
        outputs = copied(x if whiten is None else whiten(x), training=False)
        return keras.ops.cast(logits_of(outputs), "float32")

    mean = sum(copy.weight * logits(_augmented(x, copy)) for copy in copies)
    return keras.Model(images, keras.layers.Softmax(dtype="float32")(mean), name="exported_model")


def _portable(layer: keras.Layer) -> keras.Layer:
    """A copy of a layer; batch normalization without synchronization, which other backends of Keras refuse."""
    config = layer.get_config()
    if isinstance(layer, keras.layers.BatchNormalization):
        config["synchronized"] = False
    return type(layer).from_config(config)


def _augmented(x, copy: AugmentedCopy):
    """As `trainers.test_time_augmentation.augmented`, of a layer's output."""
    _, height, width, _ = x.shape
    if copy.padding:
        edges = (copy.padding, copy.padding)
        padded = keras.ops.pad(x, ((0, 0), edges, edges, (0, 0)), mode="reflect")
        x = padded[:, copy.first : copy.first + height, copy.first : copy.first + width]
    return keras.ops.flip(x, axis=2) if copy.mirrored else x


def save(
    model: keras.Model, directory: Path, image_shape: tuple[int, int, int], *, as_onnx: bool = True
) -> list[str]:
    """Write a model as Keras has it; returns the names of the files.

    Args:
        model: from an engine.
        directory: where to.
        image_shape: height, width, channels.
        as_onnx: whether to write ONNX as well, where it can be.
    """
    model.save(directory / FILE)
    written = [FILE]
    if as_onnx and find_spec("tf2onnx") is not None:
        model(np.zeros((1, *image_shape), np.uint8))  # the exporter takes no model that was never called
        model.export(directory / "model.onnx", format="onnx", verbose=False)
        written.append("model.onnx")
    return written


def load(directory: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A saved model as a function from uint8 images to probabilities."""
    model = keras.models.load_model(directory / FILE, safe_mode=True, compile=False)

    def predict(images: np.ndarray) -> np.ndarray:
        return np.asarray(model(images, training=False))

    return predict
