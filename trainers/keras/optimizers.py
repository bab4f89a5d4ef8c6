"""Recipes' optimizers in Keras, with the update rules that `trainers.recipes` describes.

Keras' own classes differ from those rules, and from PyTorch, in ways that show: its SGD folds the
learning rate into the velocity, so a schedule acts late; its Adam adds epsilon before the bias
correction. The two subclasses below keep Keras' state and distribution and replace the formula, by
kernels of TensorFlow's that read and write each weight once.
"""

from __future__ import annotations

import functools

import keras
import numpy as np
import tensorflow as tf

from trainers.initial import Weights
from trainers.recipes import AdamW, Optimizer, Sgd


def build_optimizer(optimizer: Optimizer) -> keras.optimizers.Optimizer:
    """Translate a recipe's optimizer."""
    if isinstance(optimizer, Sgd):
        return RecipeSgd(
            optimizer.learning_rate,
            momentum=optimizer.momentum,
            nesterov=optimizer.nesterov,
            decay=optimizer.weight_decay,
            decoupled=optimizer.decoupled,
        )
    return RecipeAdam(
        optimizer.learning_rate,
        beta_1=optimizer.beta_1,
        beta_2=optimizer.beta_2,
        epsilon=optimizer.epsilon,
        decoupled_decay=optimizer.weight_decay if isinstance(optimizer, AdamW) else 0.0,
    )


def get_slots(optimizer: keras.optimizers.Optimizer, names: list[str]) -> Weights:
    """What an optimizer remembers of each weight, as `<weight>#<slot>`, and its count of steps.

    Args:
        optimizer: one of the two below, built.
        names: neutral names of its variables, in its order.
    """
    slots = {"velocity": getattr(optimizer, "momentums", [])}
    if isinstance(optimizer, RecipeAdam):
        slots = {"mean": optimizer._momentums, "square": optimizer._velocities}
    arrays = {
        f"{name}#{slot}": np.array(value)
        for slot, values in slots.items()
        for name, value in zip(names, values, strict=False)
    }
    return arrays | {"#steps": np.array(optimizer.iterations)}


class RecipeSgd(keras.optimizers.SGD):
    def __init__(self, learning_rate: float, *, decay: float, decoupled: bool, **kwargs) -> None:
        super().__init__(learning_rate, **kwargs)
        self._coupled_decay = 0.0 if decoupled else decay
        self._decoupled_decay = decay if decoupled else 0.0

    def update_step(self, gradient, variable, learning_rate) -> None:
        rate = tf.cast(learning_rate, variable.dtype)
        if self._coupled_decay:
            gradient = gradient + self._coupled_decay * variable
        if self._decoupled_decay:
            self.assign_sub(variable, rate * self._decoupled_decay * variable)
        if not self.momentum:
            self.assign_sub(variable, rate * gradient)
            return
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=self.momentums[self._get_variable_index(variable)].value.handle,
            lr=rate,
            grad=gradient,
            momentum=tf.cast(self.momentum, variable.dtype),
            use_nesterov=self.nesterov,
        )


class RecipeAdam(keras.optimizers.Adam):
    def __init__(self, learning_rate: float, *, decoupled_decay: float, **kwargs) -> None:
        super().__init__(learning_rate, **kwargs)
        self._decoupled_decay = decoupled_decay

    def _distributed_tf_update_step(self, distribution, grads_and_vars, learning_rate) -> None:
        # The same for every variable: in each, they would be a third of the graph that is built before training.
        step = tf.cast(self.iterations + 1, tf.float32)
        correction_1, correction_2 = (1 - tf.pow(beta, step) for beta in (self.beta_1, self.beta_2))
        self._of_root = tf.sqrt(correction_2)
        self._of_update = self._of_root / correction_1
        super()._distributed_tf_update_step(distribution, grads_and_vars, learning_rate)

    def update_step(self, gradient, variable, learning_rate) -> None:
        if self._decoupled_decay:
            decay = tf.cast(learning_rate * self._decoupled_decay, variable.dtype)
            self.assign_sub(variable, decay * variable)
        # The corrections are taken of numbers, not of every mean and square (Kingma and Ba, 2015, section 2).
        rate, epsilon = learning_rate * self._of_update, self.epsilon * self._of_root
        index = self._get_variable_index(variable)
        mean, square = self._momentums[index].value, self._velocities[index].value
        number = functools.partial(tf.cast, dtype=variable.dtype)
        if variable.dtype.size < tf.float32.size:  # the kernel's beta_2 would round to 1
            mean.assign_add((gradient - mean) * (1 - self.beta_1))
            square.assign_add((tf.square(gradient) - square) * (1 - self.beta_2))
            self.assign_sub(variable, number(rate) * mean / (tf.sqrt(square) + number(epsilon)))
            return
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=mean.handle,
            v=square.handle,
            beta1_power=number(0),
            beta2_power=number(0),
            lr=number(rate),
            beta1=number(self.beta_1),
            beta2=number(self.beta_2),
            epsilon=number(epsilon),
            grad=gradient,
        )
