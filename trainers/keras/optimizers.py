"""Recipes' optimizers in Keras, with the update rules that `trainers.recipes` describes.

Keras' own classes differ from those rules, and from PyTorch, in ways that show: its SGD folds the
learning rate into the velocity, so a schedule acts late; its Adam adds epsilon before the bias
correction. The two subclasses below keep Keras' state and distribution and replace the formula.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

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
        rate = ops.cast(learning_rate, variable.dtype)
        if self._coupled_decay:
            gradient = gradient + self._coupled_decay * variable
        if self.momentum:
            velocity = self.momentums[self._get_variable_index(variable)]
            new_velocity = self.momentum * velocity + gradient
            self.assign(velocity, new_velocity)
            gradient = gradient + self.momentum * new_velocity if self.nesterov else new_velocity
        if self._decoupled_decay:
            gradient = gradient + self._decoupled_decay * variable
        self.assign_sub(variable, rate * gradient)


class RecipeAdam(keras.optimizers.Adam):
    def __init__(self, learning_rate: float, *, decoupled_decay: float, **kwargs) -> None:
        super().__init__(learning_rate, **kwargs)
        self._decoupled_decay = decoupled_decay

    def _distributed_tf_update_step(self, distribution, grads_and_vars, learning_rate) -> None:
        # The same for every variable: in each, they would be a third of the graph that is built before training.
        step = ops.cast(self.iterations + 1, "float32")
        correction_1, correction_2 = (1 - ops.power(beta, step) for beta in (self.beta_1, self.beta_2))
        self._of_root = ops.sqrt(correction_2)
        self._of_update = self._of_root / correction_1
        super()._distributed_tf_update_step(distribution, grads_and_vars, learning_rate)

    def update_step(self, gradient, variable, learning_rate) -> None:
        rate = ops.cast(learning_rate, variable.dtype)
        of_root, of_update = (ops.cast(value, variable.dtype) for value in (self._of_root, self._of_update))
        index = self._get_variable_index(variable)
        mean, square = self._momentums[index], self._velocities[index]
        new_mean = mean + (gradient - mean) * (1 - self.beta_1)
        new_square = square + (ops.square(gradient) - square) * (1 - self.beta_2)
        self.assign(mean, new_mean)
        self.assign(square, new_square)
        # The corrections are taken of numbers, not of every mean and square (Kingma and Ba, 2015, section 2).
        update = rate * of_update * new_mean / (ops.sqrt(new_square) + self.epsilon * of_root)
        if self._decoupled_decay:
            update = update + rate * self._decoupled_decay * variable
        self.assign_sub(variable, update)
