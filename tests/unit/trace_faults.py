"""Traces one framework's engine as it is, and with each usual fault planted in it.

Usage: python -m tests.unit.trace_faults FRAMEWORK OUTPUT
Writes `<case>/<array>` to an .npz, where a case is a recipe of `RECIPES` or a fault of the framework. A process for
each framework, since TensorFlow and PyTorch cannot share one.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.unit.measure_engine import IMAGES, LABELS, inputs
from trainers.contract import Task
from trainers.data import Dataset
from trainers.parity import trace as parity_trace
from trainers.recipes import Recipe

STEPS = 4
MOMENTUM: dict[str, Any] = {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9}
RECIPES: dict[str, dict[str, Any]] = {
    "plain": {"optimizer": {"name": "sgd"}},
    "momentum": {"optimizer": MOMENTUM},
    "one-cycle": {"optimizer": MOMENTUM | {"weight_decay": 0.1, "decoupled": True}, "schedule": "one_cycle"},
    "nesterov": {"optimizer": MOMENTUM | {"nesterov": True, "weight_decay": 0.1}, "schedule": "one_cycle"},
    "adam": {"optimizer": {"name": "adam", "weight_decay": 0.01}},
    "adamw": {"optimizer": {"name": "adamw", "weight_decay": 0.1, "epsilon": 1e-7}},
    "slow square": {"optimizer": {"name": "adam", "beta_2": 0.99999, "epsilon": 1e-15}},
    "norm": {"model": "speednet", "optimizer": MOMENTUM},
    "strided": {"model": "resnet18", "optimizer": MOMENTUM},
}
Plant = Callable[[Any], None]
Case = tuple[str, Plant]
"""The recipe's name, and what is done to the engine."""


def nothing(engine: Any) -> None:
    pass


def faults(framework: str) -> dict[str, Case]:
    """The planted faults of a framework, by name."""
    module = importlib.import_module(f"tests.unit.faults_{framework}")
    return module.FAULTS  # type: ignore[no-any-return]


def traced(runtime: Any, recipe: str, plant: Plant) -> dict[str, np.ndarray]:
    described = parity_trace.parity_recipe(Recipe.model_validate(RECIPES[recipe]), batch_size=16)
    dataset = Dataset(
        train_images=IMAGES[:, :16, :16],
        train_labels=LABELS,
        validation_images=IMAGES[:0],
        validation_labels=LABELS[:0],
        test_images=IMAGES[:0],
        test_labels=LABELS[:0],
        class_names=[str(label) for label in range(10)],
        fingerprint="",
        warnings=[],
        channel_mean=np.zeros(3, np.float32),
        channel_std=np.ones(3, np.float32),
    )
    task = Task(
        recipe=described,
        seed=0,
        rank=0,
        world_size=1,
        image_shape=(16, 16, 3),
        num_classes=10,
        inputs=inputs(None),
        class_weights=None,
    )
    engine = runtime.engine(task)
    plant(engine)
    return parity_trace.trace(task, dataset, engine, steps=STEPS)


def main(framework: str, output: str) -> None:
    runtime = importlib.import_module(f"trainers.{framework}.engine").Runtime(threads=1, use_gpu=False)
    cases = {name: (name, nothing) for name in RECIPES} | faults(framework)
    arrays = {}
    for case, (recipe, plant) in cases.items():
        found = traced(runtime, recipe, plant)
        arrays |= {f"{case}/{key}": value for key, value in found.items()}
    np.savez(output, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
