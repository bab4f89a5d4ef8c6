"""One session on Ray Train: a group of workers that trains several runs one after another.

Workers stay warm between runs, so that only the first pays for imports. `orchestrator/execution/worker.py` is
what each of them does.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.execution.worker import work
from orchestrator.experiment.spec import Scale
from orchestrator.planning.run_plan import Session
from orchestrator.store.storage import Storage, StorageError
from trainers.data import DataSpec
from trainers.errors import TandemError, one_line
from trainers.loop import DivergedError
from trainers.recipes import Recipe

if TYPE_CHECKING:
    from trainers.launch import Launched, LeanTrainer

_RAY_OUT_OF_MEMORY = re.compile(r"low on memory|NODE_OUT_OF_MEMORY")
_RESIZE_SECONDS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assignment:
    """Everything that a worker of a session needs to know."""

    session: Session
    scale: Scale
    data: DataSpec
    data_fingerprint: str
    storage_url: str
    driver_session: str
    """Which start of the driver this belongs to."""
    launched_at: float
    """When the driver asked for the workers, in seconds since the epoch."""
    module_path: str
    """Directory that users' own models are imported from."""
    robustness: bool = False
    """Whether trained models are also tested on damaged images."""
    parity_recipes: tuple[Recipe, ...] = ()
    """What to trace before training, for the comparison with the other framework."""
    desk: Any = None
    """In a sweep, the actor to ask for runs; see `orchestrator/sweep/broker.py`."""
    lane: str = ""
    """In a sweep, the name of this group of workers."""


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why the workers of a session stopped before they were done."""

    kind: Literal["lost", "error", "diverged", "storage"]
    """A worker died, the code raised an error, the loss exploded, or the storage failed."""
    cause: str
    """One sentence."""
    detail: str = ""
    """The traceback, where there is one."""


def launch(assignment: Assignment) -> Launched:
    """Start the workers of a session on the Ray cluster that this process is connected to."""
    from ray.train import RunConfig
    from ray.train.v2.api.config import FailureConfig, LoggingConfig, ScalingConfig

    scale = assignment.scale
    framework = assignment.session.framework
    trainer_class = importlib.import_module(f"trainers.{framework}.trainer").Trainer
    work_name = assignment.lane or assignment.session.runs[0].id
    resources: dict[str, float] = {"CPU": scale.cpus_per_worker}
    if scale.gpus_per_worker:
        resources["GPU"] = scale.gpus_per_worker
    trainer: LeanTrainer = trainer_class(
        work,
        train_loop_config={"assignment": assignment},
        scaling_config=ScalingConfig(
            num_workers=_num_workers(scale),
            elastic_resize_monitor_interval_s=_RESIZE_SECONDS,
            use_gpu=scale.gpus_per_worker > 0,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name=f"{framework}-{assignment.driver_session}-{work_name}",
            storage_path=Storage(assignment.storage_url).at("ray").url,
            failure_config=FailureConfig(max_failures=0),
            logging_config=LoggingConfig(log_level="ERROR"),  # type: ignore[call-arg]
        ),
    )
    return trainer.launch(hang_seconds=scale.hang_seconds)


def _num_workers(scale: Scale) -> int | tuple[int, int]:
    return scale.workers if isinstance(scale.workers, int) else (scale.workers.min, scale.workers.max)


def diagnose(error: Exception) -> Failure:
    """Tell lost workers, which are worth another try, from errors, which are not.

    When one worker dies, the others fail in the exchange of gradients: that is a consequence, so
    one dead worker outweighs any number of errors.

    Args:
        error: that the workers ended with, mostly a `ray.train.TrainingFailedError`.
    """
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    for failure in failures.values():
        if isinstance(failure, StorageError):
            return Failure("storage", str(failure))
    for failure in failures.values():
        if isinstance(failure, TandemError):
            return Failure("diverged" if isinstance(failure, DivergedError) else "error", str(failure))
    dead = sorted(rank for rank, failure in failures.items() if _is_death(failure))
    if dead:
        ranks = ", ".join(str(rank) for rank in dead)
        killed = any(_RAY_OUT_OF_MEMORY.search(str(failures[rank])) for rank in dead)
        if killed:
            return Failure(
                "error",
                f"out of memory: Ray ended the worker of rank {ranks} to save its node; lower batch_size "
                "(half needs about half as much), run fewer at once, or use a larger node",
                str(error),
            )
        return Failure("lost", f"the worker of rank {ranks} died", str(error))
    silent = sorted(rank for rank, failure in failures.items() if "HealthCheck" in type(failure).__name__)
    if silent:
        ranks = ", ".join(str(rank) for rank in silent)
        return Failure("lost", f"the worker of rank {ranks} hung: it did not answer any more", str(error))
    if failures:
        _, failure = sorted(failures.items())[0]
        return Failure("error", one_line(failure), str(error))
    return Failure("lost", one_line(error), str(error))


def _is_death(failure: Exception) -> bool:
    from ray.exceptions import RayActorError

    return isinstance(getattr(failure, "health_check_failure", failure), RayActorError)
