"""Models of the kinds that people bring to Keras, right and wrong, for the check before training."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

Shape = tuple[int, int, int]


def body(shape: Shape) -> tuple[Any, Any]:
    images = keras.Input(shape)
    x = layers.Conv2D(8, 3, 2, activation="relu")(images)
    return images, layers.GlobalAveragePooling2D()(x)


class Auxiliary(keras.Model):
    """Main and auxiliary logits in training, as GoogLeNet."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.flatten = layers.Flatten()
        self.head = layers.Dense(classes)
        self.auxiliary = layers.Dense(classes)

    def call(self, x: Any, training: bool = False) -> Any:
        x = self.flatten(x)
        first = self.auxiliary(x)
        return (self.head(x), first) if training else self.head(x)


class Raising(keras.Model):
    def call(self, x: Any, training: bool = False) -> Any:
        raise KeyError("no such thing")  # line of the sentence


def softmax(shape: Shape, classes: int) -> Any:
    images, x = body(shape)
    return keras.Model(images, layers.Dense(classes, activation="softmax")(x))


def auxiliary(shape: Shape, classes: int) -> Any:
    return Auxiliary(classes)


def mapped(shape: Shape, classes: int) -> Any:
    images, x = body(shape)
    return keras.Model(images, {"logits": layers.Dense(classes)(x)})


def pair(shape: Shape, classes: int) -> Any:
    images, x = body(shape)
    return keras.Model(images, [layers.Dense(classes)(x), layers.Dense(classes)(x)])


def one_sigmoid(shape: Shape, classes: int) -> Any:
    images, x = body(shape)
    return keras.Model(images, layers.Dense(1, activation="sigmoid")(x))


def with_lambda(shape: Shape, classes: int) -> Any:
    images, x = body(shape)
    return keras.Model(images, layers.Dense(classes)(layers.Lambda(lambda x: x * 2)(x)))


def norm(shape: Shape, classes: int) -> Any:
    images, x = body(shape)
    return keras.Model(images, layers.Dense(classes)(layers.BatchNormalization(name="last_norm")(x)))


def of_28_pixels(shape: Shape, classes: int) -> Any:
    images, x = body((28, 28, shape[2]))
    return keras.Model(images, layers.Dense(classes)(x))


def augmented(shape: Shape, classes: int) -> Any:
    return keras.Sequential(
        [keras.Input(shape), layers.RandomFlip("horizontal"), layers.Flatten(), layers.Dense(classes)]
    )


def raising(shape: Shape, classes: int) -> Any:
    return Raising()
