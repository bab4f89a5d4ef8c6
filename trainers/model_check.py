"""Try the models and other parts of a user's own before training: one training step and one prediction of each.

    python -m trainers.model_check REQUEST FOUND

A process of its own, one for each framework, reads a `Request` as JSON and writes a `Found` as JSON. It has one
worker, whose batch is as large as the largest share of a worker in training.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from trainers.contract import Engine, Task
from trainers.data import Dataset, DataSpec, open_dataset
from trainers.data.batches import Steps
from trainers.errors import TandemError, one_line
from trainers.machine.memory import is_out_of_memory
from trainers.parity.trace import single_steps
from trainers.recipes import Recipe, TestTimeAugmentation
from trainers.tasks import make_task

_SUM_TOLERANCE = 1e-3
_NAMES_SHOWN = 3


class Arm(BaseModel):
    """What to try of one arm."""

    name: str
    recipe: Recipe


class Request(BaseModel):
    """What a process tries."""

    framework: str
    module_path: str
    """Directory that users' own modules are imported from."""
    data: DataSpec
    arms: list[Arm]
    workers: tuple[int, int]
    """The fewest and the most workers that share a batch."""
    threads: int
    use_gpu: bool


class Found(BaseModel):
    """What came out of it."""

    problems: list[str] = []
    """What would make a run fail or its results wrong."""
    notes: list[str] = []


def check(request: Request) -> Found:
    """Try all arms of a request."""
    sys.path.insert(0, request.module_path)
    engines = importlib.import_module(f"trainers.{request.framework}.engine")
    sys.dont_write_bytecode = True  # a check leaves no files beside the user's modules
    runtime = engines.Runtime(threads=request.threads, use_gpu=request.use_gpu)
    dataset = open_dataset(request.data)
    found = Found()
    tried: dict[str, Found] = {}
    # TensorFlow cannot switch determinism off again.
    for arm in sorted(request.arms, key=lambda arm: arm.recipe.is_deterministic(on_gpu=request.use_gpu)):
        recipe = _tried(arm.recipe)
        key = recipe.model_dump_json()
        if key not in tried:
            tried[key] = _check_recipe(recipe, dataset, runtime, request)
        found.problems += [f"arms.{arm.name}: {problem}" for problem in tried[key].problems]
        found.notes += [f"arms.{arm.name}: {note}" for note in tried[key].notes]
    return found


def _tried(recipe: Recipe) -> Recipe:
    """The recipe without what a single step does not depend on."""
    return recipe.model_copy(
        update={
            "epochs": 1,
            "early_stopping": None,
            "compile": False,
            "ema_decay": 0.0,
            "test_time_augmentation": TestTimeAugmentation(),
        }
    )


def _check_recipe(recipe: Recipe, dataset: Dataset, runtime: Any, request: Request) -> Found:
    fewest, most = request.workers
    share = -(-recipe.batch_size // fewest)
    of_worker = recipe.resolved(bfloat16=runtime.computes_bfloat16()).model_copy(
        update={"batch_size": share, "sync_batch_norm": False}
    )
    task = make_task(dataset, of_worker, seed=0, rank=0, world_size=1)
    try:
        engine: Engine = runtime.engine(task)
        notes = _lone_images(recipe, engine, len(dataset.train_labels), most)
        if notes and request.framework == "torch":  # it raises an error there
            return Found(problems=notes)
        problems = _look(recipe, engine, next(single_steps(task, dataset, steps=2)), most)
        if problems:
            return Found(problems=problems)
        if ":" in recipe.model:
            notes += _saving(recipe, engine, task, request.framework)
        return Found(notes=notes)
    except Exception as error:  # of code that is not tandem's
        if is_out_of_memory(error):
            images = f"{share} images, a worker's share of batch_size {recipe.batch_size},"
            return Found(notes=[f"a step with {images} ran out of memory here"])
        return Found(problems=[one_line(error)])


def _look(recipe: Recipe, engine: Engine, step: Steps, most_workers: int) -> list[str]:
    """Predict and take one training step."""
    name, images = f"model {recipe.model!r}", step.images[0]
    logits = engine.forward(images)
    unlike = int((~np.isfinite(logits)).any(axis=1).sum())
    if unlike:
        return [f"{name} gives logits that are NaN or infinite for {unlike} of {len(images)} images"]
    if ":" in recipe.model and _are_probabilities(logits):
        return [
            f"{name} gives probabilities: its outputs lie between 0 and 1 and add up to 1; logits are needed, so "
            "leave out the last softmax"
        ]
    if engine.parameter_count() == 0:
        return [f"{name} has no trainable weights; leave some of them trainable"]
    losses, _ = engine.train_steps(step)
    if not np.isfinite(losses).all():
        return [
            f"the loss of the first batch is {'NaN' if np.isnan(losses).any() else 'infinite'}, before any update of "
            "the weights; look at the loss and at the range of the model's inputs"
        ]
    unused = engine.unused_parameters()
    if unused and most_workers > 1 and not recipe.find_unused_parameters:
        more = f" and {len(unused) - _NAMES_SHOWN} more" if len(unused) > _NAMES_SHOWN else ""
        return [
            f"{name} does not use its weights {', '.join(unused[:_NAMES_SHOWN])}{more} in training, which fails on "
            "several workers; remove them, or set find_unused_parameters: true"
        ]
    return []


def _are_probabilities(outputs: np.ndarray) -> bool:
    inside = (outputs >= 0).all() and (outputs <= 1).all()
    return bool(inside and (np.abs(outputs.sum(axis=1) - 1) < _SUM_TOLERANCE).all())


def _lone_images(recipe: Recipe, engine: Engine, examples: int, most_workers: int) -> list[str]:
    """Whether batch normalization gets one value of each channel, from a worker's share of a single image."""
    if ":" not in recipe.model:
        return []
    sizes = {"batch": recipe.batch_size, "last batch": examples % recipe.batch_size}
    lone = [which for which, size in sizes.items() if size and size // most_workers < 2]
    norms = engine.single_value_norms() if lone else []
    if not norms:
        return []
    return [
        f"batch_size {recipe.batch_size} leaves a worker one image of the {lone[0]}, and batch normalization "
        f"{norms[0]!r} of model {recipe.model!r} has no variance of a single value; choose another batch_size"
    ]


def _saving(recipe: Recipe, engine: Any, task: Task, framework: str) -> list[str]:
    """Whether `tandem model` could save the model and `tandem predict` load it."""
    exported: Any = importlib.import_module(f"trainers.{framework}.exported_model")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            exported.save(engine.exported_model(), Path(scratch), task.image_shape, as_onnx=False)
            exported.load(Path(scratch))
        except Exception as error:  # of a framework, about a model that is not tandem's
            reason = one_line(error)
            return [
                f"model {recipe.model!r} trains, but tandem model cannot save it, or not so that it loads: {reason}"
            ]
    return []


def main(request: Path, found: Path) -> None:
    """Read a request, and write what was found."""
    result = check(Request.model_validate_json(request.read_text()))
    found.write_text(result.model_dump_json())


if __name__ == "__main__":
    try:
        main(*map(Path, sys.argv[1:]))
    except TandemError as error:
        sys.exit(str(error))
