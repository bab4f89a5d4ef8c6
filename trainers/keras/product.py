"""A trained Keras model for use elsewhere: with its preprocessing, in Keras' own format, and ONNX where it can be.

Twin of `trainers/torch/product.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np

from trainers.contract import logits_of
from trainers.inputs import InputTransform
from trainers.views import View

FILE = "model.keras"


def product_of(
    model: keras.Model,
    transform: InputTransform,
    views: list[View],
    image_shape: tuple[int, int, int],
    *,
    is_built_in: bool,
) -> keras.Model:
    """From uint8 pixels [n, height, width, channels] to probabilities, float32 [n, num_classes].

    The weights are copied, so that the product stays as it is when training goes on.
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

    mean = sum(view.weight * logits(_shown(x, view)) for view in views)
    return keras.Model(images, keras.layers.Softmax(dtype="float32")(mean), name="product")


def _portable(layer: keras.Layer) -> keras.Layer:
    """A copy of a layer; batch normalization without synchronization, which other backends of Keras refuse."""
    config = layer.get_config()
    if isinstance(layer, keras.layers.BatchNormalization):
        config["synchronized"] = False
    return type(layer).from_config(config)


def _shown(x, view: View):
    """As `trainers.views.show`, of a layer's output."""
    _, height, width, _ = x.shape
    if view.padding:
        edges = (view.padding, view.padding)
        padded = keras.ops.pad(x, ((0, 0), edges, edges, (0, 0)), mode="reflect")
        x = padded[:, view.first : view.first + height, view.first : view.first + width]
    return keras.ops.flip(x, axis=2) if view.mirrored else x


def save(
    product: keras.Model, directory: Path, image_shape: tuple[int, int, int], *, as_onnx: bool = True
) -> list[str]:
    """Write a model as Keras has it; returns the names of the files.

    Args:
        product: from an engine.
        directory: where to.
        image_shape: height, width, channels.
        as_onnx: whether to write ONNX as well, where it can be.
    """
    product.save(directory / FILE)
    written = [FILE]
    if as_onnx and find_spec("tf2onnx") is not None:
        product(np.zeros((1, *image_shape), np.uint8))  # the exporter takes no model that was never called
        product.export(directory / "model.onnx", format="onnx", verbose=False)
        written.append("model.onnx")
    return written


def load(directory: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A saved model as a function from uint8 images to probabilities."""
    model = keras.models.load_model(directory / FILE, safe_mode=True, compile=False)

    def predict(images: np.ndarray) -> np.ndarray:
        return np.asarray(model(images, training=False))

    return predict
