"""Faults for `tests.unit.trace_faults` to plant in a Keras engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops


class LateEpsilon(keras.optimizers.AdamW):
    """Epsilon after the bias correction, as in PyTorch."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        step = ops.cast(self.iterations + 1, "float32")
        index = self._get_variable_index(variable)
        mean, square = self._momentums[index], self._velocities[index]
        self.assign(mean, self.beta_1 * mean + (1 - self.beta_1) * gradient)
        self.assign(square, self.beta_2 * square + (1 - self.beta_2) * gradient**2)
        root = ops.sqrt(square / (1 - self.beta_2**step))
        self.assign_sub(variable, learning_rate * mean / (1 - self.beta_1**step) / (root + self.epsilon))


class ImmediateSchedule(keras.optimizers.SGD):
    """A velocity without the learning rate, as in PyTorch, written into Keras' state with it."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        velocity = self.momentums[self._get_variable_index(variable)]
        before = velocity / -ops.where(self.last_rate == 0, learning_rate, self.last_rate)
        self.assign(velocity, -learning_rate * (self.momentum * before + gradient))
        self.assign_add(variable, velocity)

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        super().apply(grads, trainable_variables)
        self.last_rate.assign(self.learning_rate)


def with_optimizer(kind: type[keras.optimizers.Optimizer], **options: Any) -> Callable[[Any], None]:
    """Another optimizer than the recipe's."""

    def plant(engine: Any) -> None:
        optimizer = kind(**options)
        if kind is ImmediateSchedule:
            optimizer.last_rate = keras.Variable(0.0)
        optimizer.build(engine._model.trainable_variables)
        engine._optimizer = optimizer

    return plant


def each_norm(**changes: float) -> Callable[[Any], None]:
    def plant(engine: Any) -> None:
        for layer in engine._model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                for name, value in changes.items():
                    setattr(layer, name, value)

    return plant


def load_unconverted(engine: Any) -> None:
    """Velocities as they are written, without the learning rate."""
    load = engine.load_neutral_state

    def load_as_written(state: dict[str, np.ndarray]) -> None:
        scale = -1 / float(engine._optimizer.learning_rate)
        load({name: scale * v if name.endswith("#velocity") else v for name, v in state.items()})

    engine.load_neutral_state = load_as_written


SGD: dict[str, Any] = {"learning_rate": 0.01, "momentum": 0.9}
FAULTS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "epsilon placement in Adam": (
        "adamw",
        with_optimizer(LateEpsilon, learning_rate=0.001, weight_decay=0.1, epsilon=1e-7),
    ),
    "weight decay left out": ("one-cycle", with_optimizer(keras.optimizers.SGD, **SGD)),
    "weight decay twice": ("adamw", with_optimizer(keras.optimizers.AdamW, weight_decay=0.2, epsilon=1e-7)),
    "velocity in the other framework's units": ("one-cycle", load_unconverted),
    "velocity without the learning rate": (
        "one-cycle",
        with_optimizer(ImmediateSchedule, weight_decay=0.1, **SGD),
    ),
    "Nesterov's momentum": ("nesterov", with_optimizer(keras.optimizers.SGD, nesterov=False, **SGD)),
    "batch-norm momentum": ("norm", each_norm(momentum=0.99)),
    "batch-norm epsilon": ("norm", each_norm(epsilon=1e-3)),
}
