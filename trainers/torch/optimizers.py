"""Recipes' optimizers in PyTorch, whose update rules are the ones `trainers.recipes` describes.

PyTorch's own kernels do the work, called by the functions behind its optimizers: to make one of the classes of
`torch.optim` imports the compiler, `torch._dynamo`, which takes two thirds as long as PyTorch itself.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from trainers.recipes import AdamW, Optimizer, Sgd

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
        optimizer = self.optimizer
        if isinstance(optimizer, Sgd):
            if optimizer.decoupled and optimizer.weight_decay:
                torch._foreach_mul_(weights, 1 - learning_rate * optimizer.weight_decay)
            sgd(
                weights,
                gradients,
                self._remembered("momentum_buffer", moved) if optimizer.momentum else [None] * len(moved),
                lr=learning_rate,
                momentum=optimizer.momentum,
                dampening=0.0,
                nesterov=optimizer.nesterov,
                weight_decay=0.0 if optimizer.decoupled else optimizer.weight_decay,
                maximize=False,
                fused=True,
            )
        else:
            adam(
                weights,
                gradients,
                self._remembered("exp_avg", moved),
                self._remembered("exp_avg_sq", moved),
                [],
                self._remembered("step", moved),
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

    def _remembered(self, name: str, places: list[int]) -> list[torch.Tensor]:
        """One slot of some weights; it begins at zero."""
        for place in places:
            weight, slots = self.weights[place], self.slots[place]
            if name not in slots:
                slots[name] = (
                    torch.zeros((), device=weight.device) if name == "step" else torch.zeros_like(weight)
                )
        return [self.slots[place][name] for place in places]

    def set_slots(self, slots: dict[tuple[torch.Tensor, str], torch.Tensor], steps: int) -> None:
        """Replace what is remembered of each weight, by the names of `trainers.recipes`, and the count of steps."""
        places = {weight: place for place, weight in enumerate(self.weights)}
        for (weight, slot), value in slots.items():
            remembered = self.slots[places[weight]]
            remembered[_SLOTS[slot]] = value
            if slot != "velocity":
                remembered["step"] = torch.tensor(float(steps))
