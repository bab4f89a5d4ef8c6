"""Recipes' losses in Keras, summed over the examples of a worker's share."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from trainers.contract import check_losses, own_function
from trainers.recipes import OwnLoss, Recipe

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""From logits [n, classes] and labels [n] to the sum of the examples' losses."""


def build_loss(recipe: Recipe, num_classes: int, class_weights: np.ndarray | None) -> Loss:
    """Translate a recipe's loss, or call the user's function.

    Raises:
        InputError: the user's function cannot be found, or does not return one loss for each example.
    """
    if isinstance(recipe.loss, OwnLoss):
        own = own_function("loss", recipe.loss.name)
        check_losses(recipe.loss.name, own(tf.zeros((2, num_classes)), tf.zeros(2, tf.int64)))
        return lambda logits, labels: tf.reduce_sum(own(logits, labels))
    cross_entropy = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=recipe.loss.label_smoothing, reduction="sum"
    )

    def loss(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        weights = None if class_weights is None else tf.gather(class_weights, labels)
        return cross_entropy(tf.one_hot(labels, num_classes), logits, sample_weight=weights)

    return loss
