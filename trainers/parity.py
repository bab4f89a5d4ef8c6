"""A short training run written down step by step, so that two frameworks can be compared.

Weights and gradients are kept as sketches of 64 numbers each (Charikar et al., 2002: random signs,
random buckets): the difference of two sketches has, on average, the norm of the difference of what
they stand for.

`trace` lets one framework run by itself. The same run is made a second time from weights moved by a
rounding error: how far it parts from the first tells how much of a difference is rounding.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import zlib
from collections.abc import Iterable, Iterator

import numpy as np

from trainers.contract import Engine, State, Steps, Task
from trainers.data import Dataset
from trainers.data.batches import epoch_steps
from trainers.initial import Weights
from trainers.recipes import Recipe, learning_rates

SKETCH = 64
_ROUNDING = 1e-6


def parity_recipe(recipe: Recipe, *, batch_size: int) -> Recipe:
    """What is traced of a recipe: its work in float32 at a batch size that is quick."""
    return recipe.model_copy(
        update={
            "precision": "float32",
            "batch_size": min(recipe.batch_size, batch_size),
            "epochs": 1,
            "early_stopping": None,
            "weight_average": 0.0,
            "flip_averaging": False,
            "shift_averaging": 0,
        }
    )


def trace(task: Task, dataset: Dataset, engine: Engine, *, steps: int) -> dict[str, np.ndarray]:
    """Train a fresh engine for so many steps, the last on a partial batch, and write it down.

    Returns:
        names: JSON list of the weights' names; gradient_names likewise.
        initial: float64 [weights, 64], sketches of the weights before the first step.
        losses, control_losses: float64 [steps], mean over the batch.
        gradients, control_gradients: float64 [steps, gradients, 64], sketches.
        updates, control_updates: float64 [steps, weights, 64], weights after less before a step.
    """
    start = engine.state()
    arrays = _run(task, dataset, engine, steps)
    engine.load_state(_nudged(start))
    control = _run(task, dataset, engine, steps)
    return arrays | {f"control_{name}": control[name] for name in ("losses", "gradients", "updates")}


def _run(task: Task, dataset: Dataset, engine: Engine, steps: int) -> dict[str, np.ndarray]:
    initial = engine.weights()
    taken = [take_step(engine, step) for step in single_steps(task, dataset, steps)]
    return described(initial, taken)


@dataclasses.dataclass(frozen=True)
class TakenStep:
    """What one step did."""

    loss: float
    gradients: dict[str, np.ndarray]
    """Sketches, float64 [64], by neutral name."""
    updates: dict[str, np.ndarray]
    """Likewise, of weights after less before."""


def take_step(engine: Engine, step: Steps) -> TakenStep:
    """Take one step and keep its loss, gradients and updates."""
    gradients = engine.gradients(step)
    before = engine.weights()
    loss, _ = engine.train_steps(step)
    after = engine.weights()
    return TakenStep(
        float(engine.all_reduce(loss.astype(np.float64) * step.loss_scale)[0]),
        {name: _sketch(name, value) for name, value in gradients.items()},
        {name: _sketch(name, value - before[name]) for name, value in after.items()},
    )


def described(initial: Weights, taken: list[TakenStep]) -> dict[str, np.ndarray]:
    """The arrays of `trace` for steps that were taken, without a control."""

    def stacked(sketches: Iterable[dict[str, np.ndarray]]) -> np.ndarray:
        return np.stack([np.stack([step[name] for name in sorted(step)]) for step in sketches])

    return {
        "names": np.array(json.dumps(sorted(taken[0].updates))),
        "gradient_names": np.array(json.dumps(sorted(taken[0].gradients))),
        "initial": np.stack([_sketch(name, initial[name]) for name in sorted(initial)]),
        "losses": np.array([step.loss for step in taken]),
        "gradients": stacked(step.gradients for step in taken),
        "updates": stacked(step.updates for step in taken),
    }


def single_steps(task: Task, dataset: Dataset, steps: int) -> Iterator[Steps]:
    """The first steps of a run, one by one; the last on a partial batch."""
    size = task.recipe.batch_size
    images = min((steps - 1) * size + (size + 1) // 2, len(dataset.train_labels))
    count = -(-images // size)
    blocks = epoch_steps(
        dataset.train_images[:images],
        dataset.train_labels[:images],
        augmentation=task.recipe.augmentation,
        batch_size=size,
        learning_rates=learning_rates(task.recipe, count),
        seed=task.seed,
        epoch=1,
        rank=task.rank,
        world_size=task.world_size,
    )
    return (_single(block, place) for block in blocks for place in range(len(block)))


def _single(block: Steps, place: int) -> Steps:
    part = slice(place, place + 1)
    return Steps(
        block.images[part],
        block.labels[part],
        block.learning_rates[part],
        block.loss_scale,
    )


def _nudged(state: State) -> State:
    rng = np.random.default_rng(0)
    return {
        name: value * (1 + np.float32(_ROUNDING) * rng.choice([-1, 1], value.shape).astype(np.float32))
        if name.startswith("model/") and value.dtype == np.float32
        else value
        for name, value in state.items()
    }


def _sketch(name: str, value: np.ndarray) -> np.ndarray:
    flat = value.astype(np.float64, order="C").ravel()
    if flat.size <= SKETCH:
        return np.pad(flat, (0, SKETCH - flat.size))
    buckets, signs = _hashes(name, flat.size)
    return np.bincount(buckets, weights=signs * flat, minlength=SKETCH)


@functools.cache
def _hashes(name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.integers(0, SKETCH, size, np.uint8), rng.choice(np.array([-1, 1], np.int8), size)
