"""One group of workers on Ray Train: one `fit()`, whose workers train several runs one after another.

Workers stay warm between runs, so that only the first pays for imports. `orchestrator/execution/workers/worker.py`
holds the training function.
"""

from __future__ import annotations

import re
from concurrent import futures

from orchestrator.execution.assignment import Assignment, Failure
from orchestrator.execution.workers.worker import work
from orchestrator.store.storage import Storage, StorageError
from trainers.errors import ClusterError, ForeignError, TandemError, one_line
from trainers.loop import DivergedError

_RAY_OUT_OF_MEMORY = re.compile(r"low on memory|NODE_OUT_OF_MEMORY")
_MEMORY_USED = re.compile(r"running was ([\d.]+ ?[A-Za-z]+) / ([\d.]+ ?[A-Za-z]+)")


def launch(assignment: Assignment) -> futures.Future[Exception | None]:
    """Start a group of workers; `outcome` says how the returned future ended."""
    from trainers.ray_train import launch as ray_train

    scale = assignment.scale
    return ray_train.launch(
        ray_train.Group(
            name=f"{assignment.framework}-{assignment.driver_session}-{assignment.name}",
            backend=f"trainers.{assignment.framework}.trainer",
            train=work,
            config={"assignment": assignment},
            workers=scale.workers
            if isinstance(scale.workers, int)
            else (scale.workers.min, scale.workers.max),
            resources=scale.resources_per_worker,
            accelerator_type=scale.accelerator_type,
            label_selector=scale.label_selector,
            storage_url=Storage(assignment.storage_url).at("ray").url,
            hang_seconds=scale.hang_seconds,
        )
    )


def outcome(ended: futures.Future[Exception | None]) -> Exception | None:
    """Why the workers of a group failed; None if they did not.

    Raises:
        ClusterError: a process of Ray's that leads the workers was lost, and their resources with it.
    """
    try:
        return ended.result()
    except Exception as error:
        cause = getattr(error, "cause", error)  # of what was raised in Ray's process
        raise ClusterError(
            f"a process that leads the workers was lost: {one_line(cause)}; give the same command again"
        ) from error


def diagnose(error: Exception) -> Failure:
    """Tell lost workers, which are worth another try, from errors, which are not.

    When one worker dies, the others fail in the exchange of gradients: that is a consequence, so
    one dead worker outweighs any number of errors.

    Args:
        error: that the workers ended with, mostly a `ray.train.TrainingFailedError`.
    """
    if isinstance(error, ForeignError):
        return Failure("error", str(error))
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
        said = " ".join(str(failures[rank]) for rank in dead)
        if _RAY_OUT_OF_MEMORY.search(said):
            used = _MEMORY_USED.search(said)
            full = f", which used {used[1]} of {used[2]}" if used else ""
            return Failure(
                "error",
                f"out of memory: Ray ended the worker of rank {ranks} to save its node{full}; lower batch_size "
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
    """Whether a worker's process was lost. Ray's error for a process that it killed for memory is no actor death."""
    from ray.exceptions import OutOfMemoryError, RayActorError

    lost = getattr(failure, "health_check_failure", failure)
    return isinstance(lost, RayActorError | OutOfMemoryError)
