"""Recipes' optimizers in Keras: instances of Keras' own classes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from trainers.contract import own_function
from trainers.errors import InputError
from trainers.initial import Weights
from trainers.recipes import AdamW, Optimizer, OwnOptimizer, Recipe, Rmsprop, Sgd


def build_optimizer(recipe: Recipe, model: keras.Model) -> keras.optimizers.Optimizer:
    """Translate a recipe's optimizer, or call the user's function with the model.

    Raises:
        InputError: the user's function cannot be found, or returns no optimizer of Keras.
    """
    optimizer = recipe.optimizer
    if isinstance(optimizer, OwnOptimizer):
        made = own_function("optimizer", optimizer.name)(model)
        if not isinstance(made, keras.optimizers.Optimizer):
            raise InputError(
                f"optimizer {optimizer.name!r} returns {type(made).__name__}; a keras.optimizers.Optimizer is needed"
            )
        return made
    options: dict[str, Any] = {}
    if recipe.ema_decay:
        options = {"use_ema": True, "ema_momentum": recipe.ema_decay}
    if isinstance(optimizer, Sgd):
        if optimizer.decoupled:
            options["weight_decay"] = optimizer.weight_decay
        return keras.optimizers.SGD(
            optimizer.learning_rate, momentum=optimizer.momentum, nesterov=optimizer.nesterov, **options
        )
    if isinstance(optimizer, Rmsprop):
        return keras.optimizers.RMSprop(
            optimizer.learning_rate,
            rho=optimizer.rho,
            momentum=optimizer.momentum,
            epsilon=optimizer.epsilon,
            **options,
        )
    options |= {"beta_1": optimizer.beta_1, "beta_2": optimizer.beta_2, "epsilon": optimizer.epsilon}
    if isinstance(optimizer, AdamW):
        return keras.optimizers.AdamW(optimizer.learning_rate, weight_decay=optimizer.weight_decay, **options)
    return keras.optimizers.Adam(optimizer.learning_rate, **options)


def coupled_decay(optimizer: Optimizer) -> float:
    """The factor of an L2 term in the loss, since Keras' optimizers know no coupled decay."""
    if isinstance(optimizer, AdamW | OwnOptimizer) or (isinstance(optimizer, Sgd) and optimizer.decoupled):
        return 0.0
    return optimizer.weight_decay


def get_optimizer_state(
    optimizer: keras.optimizers.Optimizer, described: Optimizer, weights: dict[str, keras.Variable]
) -> Weights:
    """What an optimizer keeps of each weight, as `<weight>#<name>`, and its count of steps as `#steps`.

    The names are `velocity` of SGD and RMSprop with momentum, `mean` and `square` of Adam, `square` of RMSprop. A
    velocity is a sum of gradients, as in PyTorch; Keras' own variable contains the learning rate.

    Args:
        optimizer: from `build_optimizer`, built.
        described: of the recipe.
        weights: the trainable weights by neutral name.
    """
    variables = _state_variables(optimizer, described, weights)
    arrays = {
        key: np.array(variable) / _scale(key, optimizer, described) for key, variable in variables.items()
    }
    return arrays | {"#steps": np.array(optimizer.iterations)}


def set_optimizer_state(
    optimizer: keras.optimizers.Optimizer,
    described: Optimizer,
    weights: dict[str, keras.Variable],
    state: Weights,
) -> None:
    """The reverse of `get_optimizer_state`, at the learning rate that the optimizer has."""
    for key, variable in _state_variables(optimizer, described, weights).items():
        variable.assign(state[key] * _scale(key, optimizer, described))
    optimizer.iterations.assign(state["#steps"])


def _scale(key: str, optimizer: keras.optimizers.Optimizer, described: Optimizer) -> np.ndarray:
    """The factor from neutral optimizer state to that of Keras."""
    if not key.endswith("#velocity"):
        return np.ones((), np.float32)
    rate = np.array(optimizer.learning_rate)
    return -rate if isinstance(described, Sgd) else rate  # RMSprop subtracts its momentum


def _state_variables(
    optimizer: keras.optimizers.Optimizer, described: Optimizer, weights: dict[str, keras.Variable]
) -> dict[str, keras.Variable]:
    if isinstance(described, Sgd):
        endings = {"velocity": "momentum"} if described.momentum else {}
    elif isinstance(described, Rmsprop):
        endings = {"square": "velocity"} | ({"velocity": "momentum"} if described.momentum else {})
    else:
        endings = {"mean": "momentum", "square": "velocity"}
    named = {variable.name: variable for variable in optimizer.variables}
    return {
        f"{name}#{kind}": named[f"{weight.path.replace('/', '_')}_{ending}"]
        for name, weight in weights.items()
        for kind, ending in endings.items()
    }
