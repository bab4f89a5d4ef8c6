"""Twenty steps of a tandem engine, and the same steps of a plain script, for comparison.

Usage: python -m tests.unit.native_steps SIDE FRAMEWORK CASES DIRECTORY RANK [ADDRESS ...]
SIDE is `engine`, and then `plain`, which starts from the engines' weights. With two addresses, as one of two workers.
The .npz that it writes holds `<case>/<array>`: losses, float64 [20], of the global batches; the weights after the last
step; logits of one batch.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from trainers.contract import State, Task
from trainers.data.batches import Steps
from trainers.inputs import InputTransform
from trainers.recipes import Recipe
from trainers.schedules import learning_rates

STEPS, BATCH, SEED = 20, 8, 3
IMAGE_SHAPE, CLASSES = (16, 16, 3), 10
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (STEPS, BATCH, *IMAGE_SHAPE)).astype(np.uint8)
LABELS = RNG.integers(0, CLASSES, (STEPS, BATCH))
SCALE, OFFSET = np.full(3, 1 / 128, np.float32), np.full(3, -1, np.float32)  # without rounding
SPEEDNET: dict[str, Any] = {
    "model": "speednet",
    "optimizer": {
        "name": "sgd",
        "learning_rate": 0.01,
        "momentum": 0.9,
        "weight_decay": 0.1,
        "decoupled": True,
    },
    "loss": {"label_smoothing": 0.1},
    "ema_decay": 0.9,
}
CASES: dict[str, dict[str, Any]] = {
    "tutorial_cnn": {"model": "tutorial_cnn", "optimizer": {"name": "adam", "learning_rate": 0.001}},
    "lenet5": {
        "model": "lenet5",
        "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9, "nesterov": True},
        "schedule": "one_cycle",
        "init": "framework",
    },
    "resnet9": {"model": "resnet9", "optimizer": {"name": "adamw", "learning_rate": 0.001}},
    "resnet18": {"model": "resnet18", "optimizer": {"name": "sgd", "learning_rate": 0.01}},
    "speednet": SPEEDNET,
    "synchronized": SPEEDNET | {"sync_batch_norm": True},
    "own": {"model": "tests.unit.own_models:{framework}_model", "optimizer": "adam"},
    "own parts": {
        "model": "tutorial_cnn",
        "optimizer": "tests.unit.own_models:{framework}_optimizer",
        "loss": "tests.unit.own_models:{framework}_loss",
    },
}


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained, the same by both sides."""

    recipe: Recipe
    rank: int
    world_size: int

    @property
    def images(self) -> np.ndarray:
        """This worker's share of every batch."""
        return np.ascontiguousarray(np.array_split(IMAGES, self.world_size, axis=1)[self.rank])

    @property
    def labels(self) -> np.ndarray:
        """Likewise."""
        return np.ascontiguousarray(np.array_split(LABELS, self.world_size, axis=1)[self.rank])

    @property
    def rates(self) -> np.ndarray:
        """The learning rate of every step."""
        return learning_rates(self.recipe, STEPS)


def case_of(name: str, framework: str, *, rank: int, world_size: int) -> Case:
    """What a name stands for in a framework."""
    fields = {
        field: value.format(framework=framework) if isinstance(value, str) else value
        for field, value in CASES[name].items()
    }
    return Case(Recipe.model_validate(fields | {"batch_size": BATCH}), rank, world_size)


def engine_steps(runtime: Any, case: Case) -> tuple[State, dict[str, np.ndarray]]:
    """An engine's state before its steps, and what they come to."""
    task = Task(
        recipe=case.recipe,
        seed=SEED,
        rank=case.rank,
        world_size=case.world_size,
        image_shape=IMAGE_SHAPE,
        num_classes=CLASSES,
        inputs=InputTransform(scale=SCALE, offset=OFFSET),
        class_weights=None,
    )
    engine = runtime.engine(task)
    start = engine.state()
    losses, _ = engine.train_steps(Steps(case.images, case.labels, case.rates, 1 / BATCH))
    engine.share_statistics()
    state = engine.state()
    weights = [state[name] for name in state if name.startswith("model/") and state[name].dtype == np.float32]
    return start, {
        "losses": engine.all_reduce(losses.astype(np.float64)) / BATCH,
        "weights": np.concatenate([weight.ravel() for weight in weights]),
        "logits": engine.predict(IMAGES[0]),
    }


def main(side: str, framework: str, names: str, directory: str, rank: str, *addresses: str) -> None:
    plain = importlib.import_module(f"tests.unit.plain_{framework}")
    plain.join(int(rank), addresses)
    starts = Path(directory, "start.npz")
    described = {
        name: case_of(name, framework, rank=int(rank), world_size=max(len(addresses), 1))
        for name in names.split(",")
    }
    arrays: dict[str, dict[str, np.ndarray]] = {}
    if side == "engine":
        runtime = importlib.import_module(f"trainers.{framework}.engine").Runtime(threads=1, use_gpu=False)
        begun = {}
        for name, case in described.items():
            start, arrays[name] = engine_steps(runtime, case)
            begun |= {f"{name}/{key}": value for key, value in start.items()}
        if rank == "0":
            np.savez(starts, **begun)
    else:
        with np.load(starts) as archive:
            for name, case in described.items():
                kept = {key: archive[key] for key in archive.files if key.startswith(f"{name}/")}
                start = {key.removeprefix(f"{name}/"): value for key, value in kept.items()}
                arrays[name] = plain.steps(name, case, start)
    flat = {f"{name}/{key}": value for name, found in arrays.items() for key, value in found.items()}
    np.savez(Path(directory, f"{side}-{rank}.npz"), **flat)
    plain.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
