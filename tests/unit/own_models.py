"""Models of a user's own, for tests. Each imports its framework when it is built."""

from __future__ import annotations

from typing import Any


def keras_model(image_shape: tuple[int, int, int], num_classes: int) -> Any:
    """With regularizers, a loss of its own, dropout and batch normalization."""
    import keras
    from keras import layers

    class Centred(layers.Layer):
        """Adds a loss that keeps the mean of what it sees near zero."""

        def call(self, inputs: Any) -> Any:
            self.add_loss(0.1 * keras.ops.mean(inputs) ** 2)
            return inputs

    decay = keras.regularizers.L2(1e-3)
    return keras.Sequential(
        [
            keras.Input(image_shape),
            layers.Conv2D(8, 3, kernel_regularizer=decay),
            layers.BatchNormalization(),
            layers.ReLU(),
            Centred(),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(16, activation="relu", activity_regularizer=keras.regularizers.L1(1e-4)),
            layers.Dense(num_classes, kernel_regularizer=decay),
        ]
    )


def torch_model(image_shape: tuple[int, int, int], num_classes: int) -> Any:
    """With dropout and batch normalization."""
    from torch import nn

    height, width, channels = image_shape
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(8 * (height - 2) * (width - 2), num_classes),
    )
