"""Train the same work in both frameworks side by side, every step of one from the other's state.

Keras leads. PyTorch starts each step from Keras' weights and optimizer state, so that a difference is one step's own
and never the sum of those before.
"""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.planning.parity_plan import Work
from trainers.contract import FRAMEWORKS, Engine
from trainers.data import DataSpec, open_dataset
from trainers.data.batches import Steps
from trainers.errors import InputError
from trainers.initial import Weights
from trainers.parity.correspondence import SAME_NAMES, Correspondence, Described, correspond
from trainers.parity.trace import TOLERANCE, Tracer, rounded_otherwise, single_steps
from trainers.recipes import Recipe
from trainers.tasks import make_task

_CONTROLS = 8
"""Steps that PyTorch takes once more to tell how far rounding moves their gradients."""


def traces(
    work: Work,
    data: DataSpec,
    *,
    module_path: Path,
    workers: int,
    threads: int,
    gpus: float,
    steps: int,
) -> list[dict[str, np.ndarray]]:
    """Trace one work in both frameworks on the Ray cluster that is connected.

    Args:
        work: what to train.
        data: on what.
        module_path: directory that a user's own models are imported from.
        workers: of each framework.
        threads: of each worker.
        gpus: of each worker, which both frameworks share; 0 for CPUs.
        steps: to train for.

    Returns:
        The arrays of `trainers.parity.trace.Tracer`, for Keras and for PyTorch.

    Raises:
        InputError: the models' weights do not correspond, or a model draws random numbers.
    """
    import ray

    actor: Any = ray.remote(num_cpus=0, num_gpus=gpus / 2 if gpus <= 1 else gpus)(_Side)
    pairs = [
        [actor.remote(framework, module_path, threads=threads, gpus=gpus) for framework in FRAMEWORKS]
        for _ in range(workers)
    ]
    leaders, followers = ([pair[place] for pair in pairs] for place in range(2))
    try:
        return _in_lockstep(leaders, followers, work, data, steps)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, InputError) else error from None
    finally:
        for side in itertools.chain(*pairs):
            ray.kill(side)


def _in_lockstep(
    leaders: list[Any], followers: list[Any], work: Work, data: DataSpec, steps: int
) -> list[dict[str, np.ndarray]]:
    import ray

    started = []
    for sides, recipe in zip((leaders, followers), work.recipes, strict=True):
        addresses = ray.get([side.address.remote() for side in sides])
        started.append(
            [
                side.start.remote(recipe, data, addresses=addresses, rank=rank, steps=steps)
                for rank, side in enumerate(sides)
            ]
        )
    (keras, *_), (torch, *_) = (ray.get(sides) for sides in started)
    correspondence = SAME_NAMES
    if work.is_own:
        correspondence = correspond(keras, torch, weights=work.names.weights, flattened=work.names.flattened)
    ray.get([side.begin.remote(SAME_NAMES) for side in leaders])
    ray.get([side.begin.remote(correspondence) for side in followers])
    going = [True]
    while all(going):
        states = [leader.state.remote() for leader in leaders]
        taken = [side.step.remote(state) for side, state in zip(followers, states, strict=True)]
        going = ray.get(taken + [leader.step.remote(None) for leader in leaders])
    arrays: list[dict[str, np.ndarray]] = ray.get([leaders[0].arrays.remote(), followers[0].arrays.remote()])
    return arrays


class _Side:
    """One worker of one framework of a lockstep, in a process of its own."""

    def __init__(self, framework: str, module_path: Path, *, threads: int, gpus: float) -> None:
        sys.path.insert(0, str(module_path))
        self._framework = framework
        self._threads = threads
        self._gpus = gpus

    def address(self) -> str:
        """A free `host:port` on this worker's node."""
        from trainers.ray_train.launch import free_address

        return free_address()

    def start(
        self, recipe: Recipe, data: DataSpec, *, addresses: list[str], rank: int, steps: int
    ) -> Described:
        """Join the framework's other workers and build the model; returns its weights' names and shapes.

        Raises:
            InputError: the model draws random numbers in training.
        """
        if len(addresses) > 1:
            trainer = importlib.import_module(f"trainers.{self._framework}.trainer")
            trainer.join(addresses=addresses, index=rank, has_own_gpu=self._gpus >= 1)
        engines = importlib.import_module(f"trainers.{self._framework}.engine")
        runtime = engines.Runtime(threads=self._threads, use_gpu=self._gpus > 0)
        dataset = open_dataset(data)
        self._task = make_task(dataset, recipe, seed=0, rank=rank, world_size=len(addresses))
        self._engine: Engine = runtime.engine(self._task)
        self._steps = single_steps(self._task, dataset, steps)
        if ":" in recipe.model:
            self._check_repeatable(next(single_steps(self._task, dataset, steps)))
        shapes = {name: weight.shape for name, weight in self._engine.weights().items()}
        return Described(names=self._engine.weight_names(), shapes=shapes)

    def _check_repeatable(self, step: Steps) -> None:
        state = self._engine.neutral_state()
        losses = []
        for _ in range(2):
            loss, _ = self._engine.take_step(step)
            losses.append(loss)
            self._engine.load_neutral_state(state)
        if abs(losses[0] - losses[1]) > TOLERANCE * abs(losses[0]):
            raise InputError(
                f"parity: model {self._task.recipe.model!r} gives different losses for the same batch and weights; "
                "it draws random numbers, as dropout does: set its rates to 0"
            )

    def begin(self, correspondence: Correspondence) -> None:
        """Get ready for the first step.

        Args:
            correspondence: from this model's weights to the leader's.
        """
        self._correspondence = correspondence
        self._tracer = Tracer(self._task, self._engine, correspondence)
        self._state = self._engine.neutral_state()
        self._controls = 0

    def state(self) -> Weights:
        """What the other framework's worker starts its next step from."""
        return self._state

    def step(self, state: Weights | None) -> bool:
        """Take the next step, from the leader's state if there is one; False after the last."""
        step = next(self._steps, None)
        if step is None:
            return False
        if state is not None:
            self._engine.load_neutral_state(self._correspondence.to_torch(state))
        self._state = self._tracer.take(step, self._state if state is None else state)
        if state is not None and self._controls < _CONTROLS:
            self._controls += 1
            self._engine.load_neutral_state(self._correspondence.to_torch(rounded_otherwise(state)))
            self._tracer.take_control(step)
        return True

    def arrays(self) -> dict[str, np.ndarray]:
        """The steps taken, as `trainers.parity.trace.Tracer.arrays`."""
        return self._tracer.arrays()
