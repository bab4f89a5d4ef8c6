"""Traces PyTorch engines with the usual differences between frameworks planted in them.

Usage: python -m tests.unit.trace_faults OUTPUT
Writes <fault>/<array> for each fault, and for `none` and `rounding`, to an .npz.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tests.unit.measure_engine import IMAGES, LABELS, inputs
from trainers import parity
from trainers.contract import Steps, Task
from trainers.recipes import Recipe
from trainers.torch.engine import Runtime, TorchEngine

STEPS = 4
SMALL = IMAGES[:, :16, :16]
ADAM = {"model": "tutorial_cnn", "optimizer": {"name": "adamw", "weight_decay": 0.1, "epsilon": 1e-7}}
NORM = {"model": "speednet", "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9}}
STRIDED = NORM | {"model": "resnet18"}


@dataclasses.dataclass(frozen=True)
class Images:
    """What a trace needs of a data set."""

    train_images: np.ndarray
    train_labels: np.ndarray


def couple_decay(engine: Any) -> None:
    optimizer = engine._optimizer
    adam, optimizer.optimizer = optimizer.step, optimizer.optimizer.model_copy(update={"weight_decay": 0.0})

    def step(learning_rate: float) -> None:
        for weight in optimizer.weights:
            weight.grad.add_(weight.detach(), alpha=0.1)
        adam(learning_rate)

    optimizer.step = step


def move_epsilon(engine: Any) -> None:
    described = engine._optimizer.optimizer
    engine._optimizer.optimizer = described.model_copy(update={"epsilon": 1e-7 / np.sqrt(1 - 0.999)})


def each_norm(**changes: float) -> Callable[[Any], None]:
    def plant(engine: Any) -> None:
        for module in engine._module.modules():
            if isinstance(module, nn.BatchNorm2d):
                for name, value in changes.items():
                    setattr(module, name, value)

    return plant


def pad_lopsidedly(engine: Any) -> None:
    for module in engine._module.modules():
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2) and module.kernel_size == (3, 3):
            module.padding = (0, 0)
            module.register_forward_pre_hook(lambda _, x: (F.pad(x[0], (0, 1, 0, 1)),))


@torch.no_grad()
def start_biases_elsewhere(engine: Any) -> None:
    engine._module.conv1.bias.add_(0.01)


def sum_the_loss(engine: Any) -> None:
    average = engine._backward
    engine._backward = lambda loss, scale: average(loss, scale * 16)


def nothing(engine: Any) -> None:
    pass


def round_weights(engine: Any) -> None:
    with torch.no_grad():
        engine._module.conv1.weight.mul_(1 + 2e-7)


FAULTS: dict[str, tuple[dict[str, Any], Callable[[Any], None]]] = {
    "rounding": (ADAM, round_weights),
    "epsilon placement in Adam": (ADAM, move_epsilon),
    "weight decay coupling": (ADAM, couple_decay),
    "batch-norm momentum": (NORM, each_norm(momentum=0.01)),
    "batch-norm epsilon": (NORM, each_norm(eps=1e-3)),
    "padding of strided convolutions": (STRIDED, pad_lopsidedly),
    "bias initialisation": (ADAM, start_biases_elsewhere),
    "loss reduction": (ADAM, sum_the_loss),
}


def traced(recipe: dict[str, Any], plant: Callable[[Any], None]) -> dict[str, np.ndarray]:
    described = parity.parity_recipe(Recipe.model_validate(recipe), batch_size=16)
    task = Task(
        recipe=described,
        seed=0,
        rank=0,
        world_size=1,
        image_shape=SMALL.shape[1:],
        num_classes=10,
        inputs=inputs(None),
        class_weights=None,
    )
    engine: TorchEngine = Runtime(threads=1, use_gpu=False).engine(task)
    plant(engine)
    return parity.trace(task, Images(SMALL, LABELS), engine, steps=STEPS)  # type: ignore[arg-type]


def wrong_partial_batch(task: Task, dataset: Any, steps: int) -> Iterator[Steps]:
    """The last batch's loss divided by the full batch size, as if it were a full one."""
    for step in RIGHT_STEPS(task, dataset, steps):
        yield dataclasses.replace(step, loss_scale=1 / task.recipe.batch_size)


RIGHT_STEPS = parity.single_steps


def main(output: str) -> None:
    arrays: dict[str, np.ndarray] = {}
    bases = {"adam": ADAM, "norm": NORM, "strided": STRIDED}
    for name, recipe in bases.items():
        arrays |= {f"{name}/{key}": value for key, value in traced(recipe, nothing).items()}
    for fault, (recipe, plant) in FAULTS.items():
        base = next(name for name, other in bases.items() if other is recipe)
        arrays |= {f"{fault}/{key}": value for key, value in traced(recipe, plant).items()}
        arrays[f"{fault}/base"] = np.array(base)
    parity.single_steps = wrong_partial_batch
    fault = "epoch-end partial batches"
    arrays |= {f"{fault}/{key}": value for key, value in traced(ADAM, nothing).items()}
    arrays[f"{fault}/base"] = np.array("adam")
    np.savez(output, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(sys.argv[1])
