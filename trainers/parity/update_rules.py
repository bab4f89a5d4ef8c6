"""The update rules of both frameworks' optimizer classes in numpy, and how they differ.

Parity compares each framework's update with its own rule, given the gradient of that very step. What remains
between the two rules at the same weights, gradients and optimizer state is a difference of the frameworks, which has a
name here, a formula and a source.

Optimizer state is written in PyTorch's terms: `velocity` is a decayed sum of gradients, `mean` and `square` are Adam's
moments before bias correction. Keras' velocity is that sum times minus the learning rate of each gradient's step.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from trainers.contract import FRAMEWORKS
from trainers.recipes import Adam, AdamW, Optimizer, Rmsprop, Sgd


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnownDifference:
    """A difference between the frameworks' classes for the same hyperparameters."""

    sentence: str
    """What each framework does."""
    formula: str
    """How Keras' update follows from PyTorch's, or the other way round."""
    source: str
    """Where each framework defines it."""


VELOCITY, EPSILON, CORRECTION, VARIANCE = "velocity", "epsilon", "correction", "variance"
ROOT_EPSILON = "epsilon of RMSprop"

KNOWN_DIFFERENCES = {
    VELOCITY: KnownDifference(
        sentence="Keras' SGD and RMSprop keep the learning rate in their velocity, so a schedule acts late",
        formula="Keras' step has last_rate * momentum * v where PyTorch's has rate * momentum * v, "
        "times momentum again with Nesterov",
        source="keras.optimizers.SGD and RMSprop, torch.optim.SGD and RMSprop",
    ),
    EPSILON: KnownDifference(
        sentence="Keras' Adam adds epsilon before the bias correction, PyTorch's after it",
        formula="PyTorch with epsilon equals Keras with epsilon * sqrt(1 - beta_2^t)",
        source="keras.optimizers.Adam, torch.optim.Adam",
    ),
    CORRECTION: KnownDifference(
        sentence="Keras computes Adam's bias correction in float32",
        formula="1 - beta^t is rounded to a multiple of 2^-24, which counts where beta_2 is near 1",
        source="keras.optimizers.Adam",
    ),
    ROOT_EPSILON: KnownDifference(
        sentence="Keras' RMSprop adds epsilon below the square root, PyTorch's to the root",
        formula="Keras divides by sqrt(square + epsilon), PyTorch by sqrt(square) + epsilon",
        source="keras.optimizers.RMSprop, torch.optim.RMSprop",
    ),
    VARIANCE: KnownDifference(
        sentence="PyTorch keeps the unbiased batch variance for evaluation, Keras the biased",
        formula="PyTorch's batch variance is n / (n - 1) times Keras', of n values a channel",
        source="torch.nn.BatchNorm2d, keras.layers.BatchNormalization",
    ),
}
"""By name, in the order of reports."""


def state_names(optimizer: Optimizer) -> tuple[str, ...]:
    """What an optimizer keeps of each weight."""
    if isinstance(optimizer, Sgd):
        return ("velocity",) if optimizer.momentum else ()
    if isinstance(optimizer, Rmsprop):
        return ("square", "velocity") if optimizer.momentum else ("square",)
    return "mean", "square"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moment:
    """One weight before a step, with what decides its update."""

    weight: np.ndarray
    gradient: np.ndarray
    """Of the loss, without weight decay."""
    optimizer_state: dict[str, np.ndarray]
    """Those of `state_names`."""
    steps: int
    """Taken before."""
    rate: float
    """The learning rate of this step."""
    last_rate: float
    """The learning rate of the step before."""


def step(framework: str, optimizer: Optimizer, moment: Moment) -> dict[str, np.ndarray]:
    """What a step of the framework's optimizer comes to.

    Returns:
        update: what it adds to the weight; and by the names of `state_names` the optimizer state after it.
    """
    rate_of_velocity = moment.last_rate if framework == "keras" else moment.rate
    if isinstance(optimizer, Sgd):
        return _sgd(optimizer, moment, rate_of_velocity=rate_of_velocity)
    if isinstance(optimizer, Rmsprop):
        below = framework == "keras"
        return _rmsprop(optimizer, moment, rate_of_velocity=rate_of_velocity, epsilon_below_root=below)
    if framework == "keras":
        return _adam(optimizer, moment, number=np.float32, corrects_epsilon=False)
    return _adam(optimizer, moment, number=np.float64, corrects_epsilon=True)


def differences(optimizer: Optimizer, moment: Moment) -> dict[str, np.ndarray]:
    """Keras' update less PyTorch's at the same moment, split by the names of `KNOWN_DIFFERENCES`."""
    if isinstance(optimizer, Sgd) and (not optimizer.momentum or moment.rate == moment.last_rate):
        return {}
    keras, torch = (step(framework, optimizer, moment)["update"] for framework in FRAMEWORKS)
    if isinstance(optimizer, Sgd):
        return {VELOCITY: keras - torch}
    if isinstance(optimizer, Rmsprop):
        with_same_velocity = _rmsprop(
            optimizer, moment, rate_of_velocity=moment.rate, epsilon_below_root=True
        )["update"]
        is_late = optimizer.momentum and moment.rate != moment.last_rate
        of_velocity = {VELOCITY: keras - with_same_velocity} if is_late else {}
        return of_velocity | {ROOT_EPSILON: with_same_velocity - torch}
    exact = _adam(optimizer, moment, number=np.float64, corrects_epsilon=False)["update"]
    return {EPSILON: exact - torch, CORRECTION: keras - exact}


def mistakes(framework: str, optimizer: Optimizer, moment: Moment) -> dict[str, dict[str, np.ndarray]]:
    """What a step would come to under each of the usual mistakes, by its name."""
    others = step("torch" if framework == "keras" else "keras", optimizer, moment)
    made = {}
    if isinstance(optimizer, Adam):
        made["epsilon placement in Adam"] = others
    if isinstance(optimizer, Rmsprop):
        made["epsilon placement or velocity of RMSprop"] = others
    if optimizer.weight_decay:
        if not isinstance(optimizer, Rmsprop):
            made["weight decay coupling"] = step(framework, _coupled_otherwise(optimizer), moment)
        undecayed = optimizer.model_copy(update={"weight_decay": 0.0})
        made["weight decay left out"] = step(framework, undecayed, moment)
    if isinstance(optimizer, Sgd) and optimizer.momentum:
        made["learning rate in the velocity"] = others
        scale = -moment.last_rate if framework == "torch" else -1 / moment.last_rate
        unconverted = dataclasses.replace(
            moment, optimizer_state={"velocity": scale * moment.optimizer_state["velocity"]}
        )
        made["velocity in the other framework's units"] = step(framework, optimizer, unconverted)
        nesterov = optimizer.model_copy(update={"nesterov": not optimizer.nesterov})
        made["Nesterov's momentum"] = step(framework, nesterov, moment)
        damped = dataclasses.replace(moment, gradient=(1 - optimizer.momentum) * moment.gradient)
        made["momentum or its damping"] = step(framework, optimizer, damped)
    return made


def _sgd(optimizer: Sgd, moment: Moment, *, rate_of_velocity: float) -> dict[str, np.ndarray]:
    gradient, decay = _decayed(optimizer, moment)
    rate, momentum = moment.rate, optimizer.momentum
    if not momentum:
        return {"update": decay - rate * gradient}
    moved = momentum * rate_of_velocity * moment.optimizer_state["velocity"] + rate * gradient
    ahead = momentum * moved + rate * gradient if optimizer.nesterov else moved
    return {"update": decay - ahead, "velocity": moved / rate}


def _rmsprop(
    optimizer: Rmsprop, moment: Moment, *, rate_of_velocity: float, epsilon_below_root: bool
) -> dict[str, np.ndarray]:
    gradient, _ = _decayed(optimizer, moment)
    square = moment.optimizer_state["square"]
    square = square + (1 - optimizer.rho) * (gradient**2 - square)
    epsilon = optimizer.epsilon
    root = np.sqrt(square + epsilon) if epsilon_below_root else np.sqrt(square) + epsilon
    moved = moment.rate * gradient / root
    if not optimizer.momentum:
        return {"update": -moved, "square": square}
    moved = optimizer.momentum * rate_of_velocity * moment.optimizer_state["velocity"] + moved
    return {"update": -moved, "square": square, "velocity": moved / moment.rate}


def _adam(
    optimizer: Adam, moment: Moment, *, number: type[np.floating], corrects_epsilon: bool
) -> dict[str, np.ndarray]:
    gradient, decay = _decayed(optimizer, moment)
    of_mean, of_square = (
        float(number(1) - number(beta) ** number(moment.steps + 1))
        for beta in (optimizer.beta_1, optimizer.beta_2)
    )
    mean, square = moment.optimizer_state["mean"], moment.optimizer_state["square"]
    mean = mean + (1 - optimizer.beta_1) * (gradient - mean)
    square = square + (1 - optimizer.beta_2) * (gradient**2 - square)
    epsilon = optimizer.epsilon * (of_square**0.5 if corrects_epsilon else 1.0)
    update = decay - moment.rate * of_square**0.5 / of_mean * mean / (np.sqrt(square) + epsilon)
    return {"update": update, "mean": mean, "square": square}


def _decayed(optimizer: Optimizer, moment: Moment) -> tuple[np.ndarray, np.ndarray | float]:
    """The gradient with a coupled decay, and what a decoupled one adds to the weight."""
    if not optimizer.weight_decay:
        return moment.gradient, 0.0
    if is_decoupled(optimizer):
        return moment.gradient, -moment.rate * optimizer.weight_decay * moment.weight
    return moment.gradient + optimizer.weight_decay * moment.weight, 0.0


def is_decoupled(optimizer: Optimizer) -> bool:
    """Whether weight decay stays out of the gradient."""
    return isinstance(optimizer, AdamW) or (isinstance(optimizer, Sgd) and optimizer.decoupled)


def _coupled_otherwise(optimizer: Optimizer) -> Optimizer:
    if isinstance(optimizer, Sgd):
        return optimizer.model_copy(update={"decoupled": not optimizer.decoupled})
    fields = optimizer.model_dump(exclude={"name"})
    return Adam(**fields) if isinstance(optimizer, AdamW) else AdamW(**fields)
