"""A short training run written down step by step, so that two frameworks can be compared.

Weights and gradients are kept as sketches of 64 numbers each (Charikar et al., 2002: random signs,
random buckets): the difference of two sketches has, on average, the norm of the difference of what
they stand for. The same run is made a second time from weights moved by a rounding error. How far
it parts from the first tells how much of a difference between frameworks is rounding.
"""

from __future__ import annotations

import functools
import json
import zlib

import numpy as np

from trainers.contract import Engine, State, Steps, Task
from trainers.data import Dataset
from trainers.data.batches import epoch_steps
from trainers.initial import Weights
from trainers.recipes import Recipe, average_rates, learning_rates

SKETCH = 64
_ROUNDING = 1e-6


def parity_recipe(recipe: Recipe, *, batch_size: int) -> Recipe:
    """What is traced of a recipe: its work in float32 at a batch size that is quick."""
    return recipe.model_copy(
        update={
            "precision": "float32",
            "batch_size": min(recipe.batch_size, batch_size),
            "epochs": 1,
            "weight_average": 0.0,
            "flip_averaging": False,
        }
    )


def trace(task: Task, dataset: Dataset, engine: Engine, *, steps: int) -> dict[str, np.ndarray]:
    """Train a fresh engine for so many steps, the last on a partial batch, and write it down.

    Returns:
        names: JSON list of the weights' names; gradient_names likewise.
        losses, control_losses: float64 [steps], mean over the batch.
        gradients, control_gradients: float64 [steps, gradients, 64], sketches.
        weights, control_weights: float64 [steps + 1, weights, 64], before and after each step.
    """
    start = engine.state()
    arrays = _run(task, dataset, engine, steps)
    engine.load_state(_nudged(start))
    control = _run(task, dataset, engine, steps)
    return arrays | {f"control_{name}": control[name] for name in ("losses", "gradients", "weights")}


def _run(task: Task, dataset: Dataset, engine: Engine, steps: int) -> dict[str, np.ndarray]:
    size = task.recipe.batch_size
    images = min((steps - 1) * size + (size + 1) // 2, len(dataset.train_labels))
    count = -(-images // size)
    blocks = epoch_steps(
        dataset.train_images[:images],
        dataset.train_labels[:images],
        augmentation=task.recipe.augmentation,
        batch_size=size,
        learning_rates=learning_rates(task.recipe, count),
        average_rates=average_rates(task.recipe, count),
        seed=task.seed,
        epoch=1,
        rank=task.rank,
        world_size=task.world_size,
    )
    losses, gradients, weights = [], [], [engine.weights()]
    for step in (_single(block, place) for block in blocks for place in range(len(block))):
        gradients.append(engine.gradients(step))
        loss, _ = engine.train_steps(step)
        losses.append(engine.all_reduce(loss.astype(np.float64) * step.loss_scale)[0])
        weights.append(engine.weights())
    return {
        "names": np.array(json.dumps(sorted(weights[0]))),
        "gradient_names": np.array(json.dumps(sorted(gradients[0]))),
        "losses": np.array(losses),
        "gradients": np.stack([_sketches(values) for values in gradients]),
        "weights": np.stack([_sketches(values) for values in weights]),
    }


def _single(block: Steps, place: int) -> Steps:
    part = slice(place, place + 1)
    return Steps(
        block.images[part],
        block.labels[part],
        block.learning_rates[part],
        block.average_rates[part],
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


def _sketches(values: Weights) -> np.ndarray:
    return np.stack([_sketch(name, values[name]) for name in sorted(values)])


def _sketch(name: str, value: np.ndarray) -> np.ndarray:
    flat = value.astype(np.float64).ravel()
    if flat.size <= SKETCH:
        return np.pad(flat, (0, SKETCH - flat.size))
    buckets, signs = _hashes(name, flat.size)
    return np.bincount(buckets, weights=signs * flat, minlength=SKETCH)


@functools.cache
def _hashes(name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.integers(0, SKETCH, size, np.uint8), rng.choice(np.array([-1, 1], np.int8), size)
