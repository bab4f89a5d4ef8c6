"""Recipes' optimizers in PyTorch: instances of `torch.optim`'s own classes."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from trainers.recipes import AdamW, Optimizer, Sgd

SLOTS = {"velocity": "momentum_buffer", "mean": "exp_avg", "square": "exp_avg_sq"}
"""What an optimizer keeps of each weight: its neutral name, and PyTorch's."""


def build_optimizer(optimizer: Optimizer, weights: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Translate a recipe's optimizer; a decoupled decay of SGD is left to `decay_apart`."""
    if isinstance(optimizer, Sgd):
        return torch.optim.SGD(
            weights,
            optimizer.learning_rate,
            momentum=optimizer.momentum,
            nesterov=optimizer.nesterov,
            weight_decay=0.0 if optimizer.decoupled else optimizer.weight_decay,
            fused=True,
        )
    kind = torch.optim.AdamW if isinstance(optimizer, AdamW) else torch.optim.Adam
    return kind(
        weights,
        optimizer.learning_rate,
        betas=(optimizer.beta_1, optimizer.beta_2),
        eps=optimizer.epsilon,
        weight_decay=optimizer.weight_decay,
        fused=True,
    )


@torch.no_grad()
def decay_apart(optimizer: Optimizer, weights: Iterable[torch.nn.Parameter], learning_rate: float) -> None:
    """The decoupled decay of a step of SGD, which `torch.optim.SGD` does not have; nothing for other optimizers."""
    if isinstance(optimizer, Sgd) and optimizer.decoupled and optimizer.weight_decay:
        for weight in weights:
            if weight.grad is not None:
                weight.mul_(1 - learning_rate * optimizer.weight_decay)
