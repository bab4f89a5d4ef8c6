"""Recipes' optimizers in PyTorch, whose update rules are the ones `trainers.recipes` describes.

PyTorch's own kernels do the work, called by the functions behind its optimizers: to make one of the classes of
`torch.optim` imports the compiler, `torch._dynamo`, which takes two thirds as long as PyTorch itself.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from trainers.recipes import Adam, AdamW, Optimizer, Sgd

_SLOTS = {"velocity": "momentum_buffer", "mean": "exp_avg", "square": "exp_avg_sq"}


class FusedOptimizer:
    """One optimizer over a model's weights, each step a call for all of them."""

    def __init__(self, optimizer: Optimizer, weights: Iterable[torch.nn.Parameter]) -> None:
        self.optimizer = optimizer
        self.weights = list(weights)
        self.slots: list[dict[str, torch.Tensor]] = [{} for _ in self.weights]
        """What is remembered of each weight, by PyTorch's names; empty before its first gradient."""

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move the weights that have a gradient."""
        moved = [place for place, weight in enumerate(self.weights) if weight.grad is not None]
        weights = [self.weights[place] for place in moved]
        gradients = [weight.grad for weight in weights]
        slots = [self.slots[place] for place in moved]
        if isinstance(self.optimizer, Sgd):
            _sgd_step(self.optimizer, weights, gradients, slots, learning_rate)
        else:
            _adam_step(self.optimizer, weights, gradients, slots, learning_rate)

    def set_slots(self, slots: dict[tuple[torch.Tensor, str], torch.Tensor], steps: int) -> None:
        """Replace what is remembered of each weight, by the names of `trainers.recipes`, and the count of steps."""
        places = {weight: place for place, weight in enumerate(self.weights)}
        for (weight, slot), value in slots.items():
            remembered = self.slots[places[weight]]
            remembered[_SLOTS[slot]] = value
            if slot != "velocity":
                remembered["step"] = torch.tensor(float(steps))


def _sgd_step(
    optimizer: Sgd,
    weights: list[torch.Tensor],
    gradients: list[torch.Tensor],
    slots: list[dict[str, torch.Tensor]],
    learning_rate: float,
) -> None:
    if optimizer.decoupled and optimizer.weight_decay:
        torch._foreach_mul_(weights, 1 - learning_rate * optimizer.weight_decay)
    sgd(
        weights,
        gradients,
        _remembered("momentum_buffer", weights, slots) if optimizer.momentum else [None] * len(weights),
        lr=learning_rate,
        momentum=optimizer.momentum,
        dampening=0.0,
        nesterov=optimizer.nesterov,
        weight_decay=0.0 if optimizer.decoupled else optimizer.weight_decay,
        maximize=False,
        fused=True,
    )


def _adam_step(
    optimizer: Adam,
    weights: list[torch.Tensor],
    gradients: list[torch.Tensor],
    slots: list[dict[str, torch.Tensor]],
    learning_rate: float,
) -> None:
    adam(
        weights,
        gradients,
        _remembered("exp_avg", weights, slots),
        _remembered("exp_avg_sq", weights, slots),
        [],
        _remembered("step", weights, slots),
        lr=learning_rate,
        beta1=optimizer.beta_1,
        beta2=optimizer.beta_2,
        eps=optimizer.epsilon,
        weight_decay=optimizer.weight_decay if isinstance(optimizer, AdamW) else 0.0,
        decoupled_weight_decay=isinstance(optimizer, AdamW),
        amsgrad=False,
        maximize=False,
        fused=True,
    )


def _remembered(
    name: str, weights: list[torch.Tensor], slots: list[dict[str, torch.Tensor]]
) -> list[torch.Tensor]:
    """A slot of each weight, which begins at zero."""
    for weight, own in zip(weights, slots, strict=True):
        if name not in own:
            own[name] = torch.zeros((), device=weight.device) if name == "step" else torch.zeros_like(weight)
    return [own[name] for own in slots]
