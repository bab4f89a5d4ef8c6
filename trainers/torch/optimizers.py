"""Recipes' optimizers in PyTorch, whose update rules are the ones `trainers.recipes` describes."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from trainers.recipes import AdamW, Optimizer, Sgd


def build_optimizer(optimizer: Optimizer, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Translate a recipe's optimizer; the fused kernels give the same update in one call."""
    if isinstance(optimizer, Sgd):
        return torch.optim.SGD(
            parameters,
            lr=optimizer.learning_rate,
            momentum=optimizer.momentum,
            nesterov=optimizer.nesterov,
            weight_decay=0.0 if optimizer.decoupled else optimizer.weight_decay,
            fused=True,
        )
    kind = torch.optim.AdamW if isinstance(optimizer, AdamW) else torch.optim.Adam
    return kind(
        parameters,
        lr=optimizer.learning_rate,
        betas=(optimizer.beta_1, optimizer.beta_2),
        eps=optimizer.epsilon,
        weight_decay=optimizer.weight_decay if isinstance(optimizer, AdamW) else 0.0,
        fused=True,
    )


@torch.no_grad()
def decay_weights(optimizer: Optimizer, parameters: list[torch.nn.Parameter], learning_rate: float) -> None:
    """The decoupled weight decay that PyTorch's SGD lacks; AdamW brings its own."""
    if isinstance(optimizer, Sgd) and optimizer.decoupled and optimizer.weight_decay:
        torch._foreach_mul_(parameters, 1 - learning_rate * optimizer.weight_decay)


_SLOTS = {"velocity": "momentum_buffer", "mean": "exp_avg", "square": "exp_avg_sq"}


def set_slots(
    optimizer: torch.optim.Optimizer, slots: dict[tuple[torch.Tensor, str], torch.Tensor], steps: int
) -> None:
    """Replace what an optimizer remembers of each weight, and its count of steps."""
    for (weight, slot), value in slots.items():
        optimizer.state[weight][_SLOTS[slot]] = value
        if slot != "velocity":
            optimizer.state[weight]["step"] = torch.tensor(float(steps))
