"""Train a recipe in both frameworks side by side, every step of one from the other's state.

Keras leads. PyTorch starts each step from Keras' weights and optimizer state, so that a difference
is one step's own and never the sum of those before.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from orchestrator.execution.worker import make_task
from trainers.contract import FRAMEWORKS
from trainers.data import DataSpec, open_dataset
from trainers.initial import Weights
from trainers.parity import TakenStep, described, single_steps, take_step
from trainers.recipes import Recipe


def traces(recipe: Recipe, data: DataSpec, *, threads: int, steps: int) -> list[dict[str, np.ndarray]]:
    """Trace a recipe in both frameworks on the Ray cluster that is connected.

    Args:
        recipe: what to train.
        data: on what.
        threads: of each framework.
        steps: to train for.

    Returns:
        The arrays of `trainers.parity.described`, for Keras and for PyTorch.
    """
    import ray

    actor: Any = ray.remote(num_cpus=0)(_Side)
    leader, follower = (
        actor.remote(framework, recipe, data, threads=threads, steps=steps) for framework in FRAMEWORKS
    )
    going = [True]
    while all(going):
        state = leader.state.remote()
        going = ray.get([follower.step.remote(state), leader.step.remote(None)])
    taken: list[dict[str, np.ndarray]] = ray.get([leader.trace.remote(), follower.trace.remote()])
    for side in (leader, follower):
        ray.kill(side)
    return taken


class _Side:
    """One framework of a lockstep, in a process of its own."""

    def __init__(self, framework: str, recipe: Recipe, data: DataSpec, *, threads: int, steps: int) -> None:
        engines = importlib.import_module(f"trainers.{framework}.engine")
        runtime = engines.Runtime(threads=threads, use_gpu=False)
        dataset = open_dataset(data)
        task = make_task(dataset, recipe, seed=0, rank=0, world_size=1)
        self._engine = runtime.engine(task)
        self._steps = single_steps(task, dataset, steps)
        self._initial = self._engine.weights()
        self._taken: list[TakenStep] = []

    def state(self) -> Weights:
        """What the other side starts its next step from."""
        return self._engine.neutral_state()  # type: ignore[no-any-return]

    def step(self, state: Weights | None) -> bool:
        """Take the next step, from the other side's state if there is one; False after the last."""
        step = next(self._steps, None)
        if step is None:
            return False
        if state is not None:
            self._engine.load_neutral_state(state)
        self._taken.append(take_step(self._engine, step))
        return True

    def trace(self) -> dict[str, np.ndarray]:
        """The steps taken, as `trainers.parity.described`."""
        return described(self._initial, self._taken)
