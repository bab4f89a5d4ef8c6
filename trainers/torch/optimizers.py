"""Recipes' optimizers in PyTorch: instances of `torch.optim`'s own classes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from trainers.contract import own_function
from trainers.errors import InputError
from trainers.recipes import AdamW, BuiltInOptimizer, Optimizer, OwnOptimizer, Rmsprop, Sgd


def state_names(optimizer: Optimizer) -> dict[str, str]:
    """What an optimizer keeps of each weight: its neutral name, and PyTorch's."""
    square = "square_avg" if isinstance(optimizer, Rmsprop) else "exp_avg_sq"
    return {"velocity": "momentum_buffer", "mean": "exp_avg", "square": square}


def build_optimizer(
    optimizer: Optimizer, module: nn.Module
) -> tuple[torch.optim.Optimizer, LRScheduler | None]:
    """Translate a recipe's optimizer, or call the user's function with the module.

    A decoupled decay of SGD is left to `decay_apart`. A scheduler, which only a user's function gives, takes a step
    after each of the optimizer's.

    Raises:
        InputError: the user's function cannot be found, or returns neither an optimizer of PyTorch nor a pair of one
            and a scheduler.
    """
    if not isinstance(optimizer, OwnOptimizer):
        return _built_in(optimizer, module.parameters()), None
    made = own_function("optimizer", optimizer.name)(module)
    own, scheduler = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(own, torch.optim.Optimizer) or not isinstance(scheduler, LRScheduler | None):
        raise InputError(
            f"optimizer {optimizer.name!r} returns {type(made).__name__}; a torch.optim.Optimizer is needed, or a "
            "pair of one and a torch.optim.lr_scheduler.LRScheduler"
        )
    return own, scheduler


def _built_in(optimizer: BuiltInOptimizer, weights: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    if isinstance(optimizer, Sgd):
        return torch.optim.SGD(
            weights,
            optimizer.learning_rate,
            momentum=optimizer.momentum,
            nesterov=optimizer.nesterov,
            weight_decay=0.0 if optimizer.decoupled else optimizer.weight_decay,
            fused=True,
        )
    if isinstance(optimizer, Rmsprop):
        return torch.optim.RMSprop(
            weights,
            optimizer.learning_rate,
            alpha=optimizer.rho,
            eps=optimizer.epsilon,
            weight_decay=optimizer.weight_decay,
            momentum=optimizer.momentum,
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
def decay_apart(optimizer: BuiltInOptimizer, weights: Iterable[nn.Parameter], learning_rate: float) -> None:
    """The decoupled decay of a step of SGD, which `torch.optim.SGD` does not have; nothing for other optimizers."""
    if isinstance(optimizer, Sgd) and optimizer.decoupled and optimizer.weight_decay:
        for weight in weights:
            if weight.grad is not None:
                weight.mul_(1 - learning_rate * optimizer.weight_decay)
