"""A trained Keras model for use elsewhere: with its preprocessing, in Keras' own format, and ONNX where it can be.

Twin of `trainers/torch/product.py`.
"""

from __future__ import annotations

from trainers.keras import lean  # noqa: F401

# isort: split
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np

from trainers.inputs import InputTransform
from trainers.keras.batch_norm import make_portable

FILE = "model.keras"


def product_of(
    model: keras.Model, transform: InputTransform, image_shape: tuple[int, int, int]
) -> keras.Model:
    """From uint8 pixels [n, height, width, channels] to probabilities, float32 [n, num_classes].

    The weights are copied, so that the product stays as it is when training goes on.
    """
    copied = keras.models.clone_model(model)
    copied.set_weights(model.get_weights())
    make_portable(copied)
    images = keras.Input(image_shape, dtype="uint8", name="images")
    x = keras.layers.Rescaling(transform.scale.tolist(), transform.offset.tolist(), dtype="float32")(images)
    if transform.kernel is not None:
        patch, _, _, features = transform.kernel.shape
        whiten = keras.layers.Conv2D(
            features, patch, strides=transform.stride, use_bias=False, activation="relu", name="whitening"
        )
        x = whiten(x)
        whiten.set_weights([transform.kernel])
        whiten.trainable = False
    return keras.Model(
        images, keras.layers.Softmax(dtype="float32")(copied(x, training=False)), name="product"
    )


def save(product: keras.Model, directory: Path, image_shape: tuple[int, int, int]) -> list[str]:
    """Write a model as Keras has it; returns the names of the files.

    Args:
        product: from an engine.
        directory: where to.
        image_shape: height, width, channels.
    """
    product.save(directory / FILE)
    written = [FILE]
    if find_spec("tf2onnx") is not None:
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
