"""Faults for `tests.unit.trace_faults` to plant in a PyTorch engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from trainers.data.batches import Steps
from trainers.initial import Weights


def with_optimizer(kind: type[torch.optim.Optimizer], **options: Any) -> Callable[[Any], None]:
    """Another optimizer than the recipe's."""

    def plant(engine: Any) -> None:
        engine._optimizer = kind(engine._module.parameters(), lr=1.0, fused=True, **options)

    return plant


def with_group(**changes: Any) -> Callable[[Any], None]:
    """Another hyperparameter than the recipe's."""

    def plant(engine: Any) -> None:
        engine._optimizer.param_groups[0].update(changes)

    return plant


def couple_decay(engine: Any) -> None:
    with_group(weight_decay=engine._task.recipe.optimizer.weight_decay)(engine)
    optimizer = engine._task.recipe.optimizer.model_copy(update={"decoupled": False})
    recipe = engine._task.recipe.model_copy(update={"optimizer": optimizer})
    engine._task = dataclasses.replace(engine._task, recipe=recipe)


def each_norm(**changes: float) -> Callable[[Any], None]:
    def plant(engine: Any) -> None:
        for module in engine._module.modules():
            if isinstance(module, nn.BatchNorm2d):
                for name, value in changes.items():
                    setattr(module, name, value)

    return plant


def corrected_again(power: int) -> Callable[[Any], None]:
    """Batch variances times n / (n - 1), once more or, as if never, once less."""

    def plant(engine: Any) -> None:
        norms = [module for module in engine._module.modules() if isinstance(module, nn.BatchNorm2d)]
        values = {}
        for norm in norms:
            norm.register_forward_pre_hook(
                lambda norm, x: values.update({norm: x[0].numel() / x[0].shape[1]})
            )
        take = engine.take_step

        def take_and_correct(step: Steps) -> Any:
            before = {norm: norm.running_var.clone() for norm in norms}
            taken = take(step)
            for norm in norms:
                kept, n = (1 - norm.momentum) * before[norm], values[norm]
                norm.running_var.copy_(kept + (norm.running_var - kept) * (n / (n - 1)) ** power)
            return taken

        engine.take_step = take_and_correct

    return plant


def pad_lopsidedly(engine: Any) -> None:
    for module in engine._module.modules():
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2) and module.kernel_size == (3, 3):
            module.padding = (0, 0)
            module.register_forward_pre_hook(lambda _, x: (F.pad(x[0], (0, 1, 0, 1)),))


@torch.no_grad()
def start_biases_elsewhere(engine: Any) -> None:
    engine._module.conv1.bias.add_(0.01)


@torch.no_grad()
def round_weights(engine: Any) -> None:
    engine._module.conv1.weight.mul_(1 + 2e-7)


def sum_the_loss(engine: Any) -> None:
    average = engine._share_gradients
    engine._share_gradients = lambda pixels, labels, scale: average(pixels, labels, scale * 16)


def divide_partial_batches_by_the_size_of_full_ones(engine: Any) -> None:
    take = engine.take_step
    engine.take_step = lambda step: take(dataclasses.replace(step, loss_scale=1 / 16))


def load_velocities(scale: Callable[[float], float]) -> Callable[[Any], None]:
    """Velocities in other units, given the learning rate of the step before."""

    def plant(engine: Any) -> None:
        load, take, rates = engine.load_neutral_state, engine.take_step, [1.0]

        def load_scaled(state: Weights) -> None:
            factor = np.float32(scale(rates[-1]))
            load({name: factor * v if name.endswith("#velocity") else v for name, v in state.items()})

        def take_noted(step: Steps) -> Any:
            rates.append(float(step.learning_rates[0]))
            return take(step)

        engine.load_neutral_state, engine.take_step = load_scaled, take_noted

    return plant


def scale_rates(factor: float) -> Callable[[Any], None]:
    def plant(engine: Any) -> None:
        update = engine._update
        engine._update = lambda rate: update(factor * rate)

    return plant


FAULTS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "rounding": ("adamw", round_weights),
    "epsilon placement in Adam": ("adamw", with_group(eps=1e-7 / np.sqrt(1 - 0.999))),
    "another epsilon": ("adamw", with_group(eps=1e-5)),
    "weight decay coupling": (
        "adamw",
        with_optimizer(torch.optim.Adam, betas=(0.9, 0.999), eps=1e-7, weight_decay=0.1),
    ),
    "weight decay of Adam coupling": (
        "adam",
        with_optimizer(torch.optim.AdamW, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01),
    ),
    "weight decay of SGD coupling": ("one-cycle", couple_decay),
    "weight decay on both sides": ("one-cycle", with_group(weight_decay=0.1)),
    "weight decay left out": ("nesterov", with_group(weight_decay=0.0)),
    "another beta": ("adam", with_group(betas=(0.9, 0.99))),
    "momentum or its damping": ("momentum", with_group(dampening=0.9)),
    "Nesterov's momentum": ("nesterov", with_group(nesterov=False)),
    "velocity in the other framework's units": ("one-cycle", load_velocities(lambda rate: -rate)),
    "velocity of the step before": ("momentum", load_velocities(lambda rate: 0.9)),
    "learning rate": ("plain", scale_rates(1.001)),
    "batch-norm momentum": ("norm", each_norm(momentum=0.01)),
    "batch-norm epsilon": ("norm", each_norm(eps=1e-3)),
    "biased or unbiased batch-norm variance": ("norm", corrected_again(1)),
    "biased batch-norm variance": ("norm", corrected_again(-1)),
    "padding of strided convolutions": ("strided", pad_lopsidedly),
    "bias initialisation": ("adamw", start_biases_elsewhere),
    "loss reduction": ("adamw", sum_the_loss),
    "epoch-end partial batches": ("adamw", divide_partial_batches_by_the_size_of_full_ones),
}
