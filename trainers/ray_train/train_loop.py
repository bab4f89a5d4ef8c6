"""One `fit()` of Ray Train for a training function of the user's own, by Ray Train's contract.

The function is imported by its name in each worker, where nothing stands between it and `ray.train`.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from trainers.errors import ForeignError, one_line
from trainers.ray_train.ray_trainers import FRAMEWORKS, load_function, load_trainer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """What the first worker knows when the function is about to be called."""

    entered_at: float
    """When the worker began, in seconds since the epoch."""
    import_seconds: float
    """Of the function's module."""
    workers: int
    checkpoint: str | None
    """Path of the checkpoint that the function is given, below the run's directory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainLoop:
    """What one `fit()` runs. The same name in the same storage goes on from the last checkpoint."""

    name: str
    storage_url: str
    """Holds a directory with the run's name."""
    function: str | Callable[..., None]
    """`package.module:function`, or the function itself."""
    config: dict[str, Any]
    seed: int
    """Of Python's, NumPy's and the framework's random numbers, the same in each worker."""
    trainer: str
    datasets: str | None
    """Function that returns the Ray datasets by name."""
    module_path: str
    """Directory that the user's modules are imported from."""
    workers: int | tuple[int, int]
    resources: dict[str, float]
    accelerator_type: str | None
    """The kind of GPU of each worker, as Ray names it."""
    label_selector: dict[str, str] | None
    """Of the nodes of each worker."""
    checkpoints: dict[str, Any]
    """Arguments of Ray Train's `CheckpointConfig`."""
    hang_seconds: float
    callback: Any
    """A `ray.train.UserCallback`."""
    on_start: Callable[[Start], None]
    """Called by the first worker before the function."""
    on_end: Callable[[], None]
    """Called by the first worker when the function has returned."""


def fit(loop: TrainLoop) -> Exception | None:
    """Train to the end; returns why that failed, if it did."""
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig

    from trainers.ray_train.launch import outcome_of, scaling_config

    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(loop.hang_seconds)
    _import_from(loop.module_path)
    try:
        _send_by_value(loop)
        datasets = {} if loop.datasets is None else _called(load_function(loop.datasets), loop.config)
        trainer = load_trainer(loop.trainer)(
            _train,
            train_loop_config={"loop": loop},
            scaling_config=scaling_config(
                loop.workers,
                loop.resources,
                accelerator_type=loop.accelerator_type,
                label_selector=loop.label_selector,
            ),
            run_config=RunConfig(
                name=loop.name,
                storage_path=loop.storage_url,
                failure_config=FailureConfig(max_failures=0),
                checkpoint_config=CheckpointConfig(**loop.checkpoints),
                callbacks=[loop.callback],
                logging_config=LoggingConfig(log_level="WARNING"),
            ),
            datasets=datasets,
        )
    except Exception as error:  # of the user's module
        return ForeignError(one_line(error))
    return outcome_of(trainer)


def _train(config: dict[str, Any]) -> None:
    """What each worker does.

    Raises:
        ForeignError: what the function raised, with its file and line.
    """
    import ray.train

    entered_at = time.time()
    loop: TrainLoop = config["loop"]
    _import_from(loop.module_path)
    try:
        function = load_function(loop.function) if isinstance(loop.function, str) else loop.function
        import_seconds = time.time() - entered_at
        _seed(loop)
        context = ray.train.get_context()
        if context.get_world_rank() == 0:
            checkpoint = ray.train.get_checkpoint()
            loop.on_start(
                Start(
                    entered_at=entered_at,
                    import_seconds=import_seconds,
                    workers=context.get_world_size(),
                    checkpoint=None if checkpoint is None else path_below(loop.name, checkpoint.path),
                )
            )
        _called(function, loop.config)
        if context.get_world_rank() == 0:
            loop.on_end()
    except Exception as error:
        if type(error).__module__.startswith("ray."):
            raise
        raise ForeignError(one_line(error)).with_traceback(error.__traceback__) from None


def path_below(run: str, path: str) -> str:
    """The path of a checkpoint without that of its run's directory."""
    _, inside, below = path.rpartition(f"/{run}/")
    return below if inside else path


def _import_from(directory: str) -> None:
    if directory not in sys.path:
        sys.path.insert(0, directory)


def _send_by_value(loop: TrainLoop) -> None:
    """Have the user's modules pickled whole: Ray's controller and Ray Data do not import from the user's directory."""
    from ray import cloudpickle

    for name in (loop.trainer, loop.datasets or ""):
        if ":" in name:
            module = importlib.import_module(name.partition(":")[0])
            if Path(module.__file__ or "").is_relative_to(loop.module_path):
                cloudpickle.register_pickle_by_value(module)


def _called(function: Callable[..., Any], config: dict[str, Any]) -> Any:
    """What a function returns for a config, which it takes or not, as Ray Train decides that."""
    parameters = [*inspect.signature(function).parameters.values()]
    required = [
        parameter
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    takes_config = len(required) == 1 or (parameters and parameters[0].name == "config")
    return function(dict(config)) if takes_config else function()


def _seed(loop: TrainLoop) -> None:
    random.seed(loop.seed)
    np.random.seed(loop.seed % 2**32)
    framework = FRAMEWORKS.get(loop.trainer)
    if framework is not None:
        importlib.import_module(f"trainers.{framework}.random_seed").seed(loop.seed)
