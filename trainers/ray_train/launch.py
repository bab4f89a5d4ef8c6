"""Groups of Ray Train workers, each started and watched by a `fit()` of its own."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
import socket
from collections.abc import Callable
from concurrent import futures
from typing import Any

import ray
from ray.util import get_current_placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_GROUPS_AT_ONCE = 1000
_RESIZE_SECONDS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """What one `fit()` of Ray Train runs."""

    name: str
    """Unique among the runs of the storage."""
    backend: str
    """Module whose `Workers` is the `BackendConfig` that connects the workers; only Ray's processes import it."""
    train: Callable[[dict[str, Any]], None]
    """The training function of each worker."""
    config: dict[str, Any]
    """Passed to the training function."""
    workers: int | tuple[int, int]
    """How many, or the smallest and the largest number."""
    resources: dict[str, float]
    """Of each worker."""
    accelerator_type: str | None
    """The kind of GPU of each worker, as Ray names it."""
    label_selector: dict[str, str] | None
    """Of the nodes of each worker."""
    storage_url: str
    """Where Ray Train keeps its own files."""
    hang_seconds: float
    """For how long a worker may fail to answer Ray Train before it counts as lost."""


def launch(group: Group) -> futures.Future[Exception | None]:
    """Start a group and do not wait for it.

    Returns:
        As `call_fit`.
    """
    return call_fit(functools.partial(_fit, group))


def call_fit(fit: Callable[[], Exception | None]) -> futures.Future[Exception | None]:
    """Call a `fit()` in another process, and do not wait for it.

    Args:
        fit: returns the error that the workers ended with, if any.

    Returns:
        Done when the workers have ended: what `fit` returned. It raises an exception if the process of `fit()` or of
        Ray Train's controller was lost.
    """
    context = ray.get_runtime_context()
    launcher = _launcher(context.get_job_id(), context.get_node_id())
    ended: futures.Future[Exception | None] = launcher.call.remote(fit).future()
    return ended


@functools.cache
def _launcher(job_id: str, node_id: str) -> Any:
    """The actor that runs the `fit()` of all groups of a driver, on the driver's node; it ends with the driver.

    A thread of the driver that waits in `fit()` ends the driver's process with code 1 when Ray shuts down.
    """
    here = NodeAffinitySchedulingStrategy(node_id, soft=False)
    options = {"num_cpus": 0, "max_concurrency": _GROUPS_AT_ONCE, "scheduling_strategy": here}
    return ray.remote(_Launcher).options(**options).remote()


class _Launcher:
    """Each call runs in a thread of the actor's process."""

    def call(self, fit: Callable[[], Exception | None]) -> Exception | None:
        """Train to the end; returns why that failed, if it did."""
        return fit()


def _fit(group: Group) -> Exception | None:
    from ray.train import FailureConfig, LoggingConfig, RunConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(group.hang_seconds)
    trainer = DataParallelTrainer(
        group.train,
        train_loop_config=group.config,
        backend_config=importlib.import_module(group.backend).Workers(),
        scaling_config=scaling_config(
            group.workers,
            group.resources,
            accelerator_type=group.accelerator_type,
            label_selector=group.label_selector,
        ),
        run_config=RunConfig(
            name=group.name,
            storage_path=group.storage_url,
            failure_config=FailureConfig(max_failures=0),
            logging_config=LoggingConfig(log_level="CRITICAL"),
        ),
    )
    return outcome_of(trainer)


def outcome_of(trainer: Any) -> Exception | None:
    """Call the `fit()` of one of Ray Train's trainers; returns why it failed, if it did."""
    from ray.train import TrainingFailedError

    try:
        trainer.fit()
    except TrainingFailedError as error:
        return error
    return None


def scaling_config(
    workers: int | tuple[int, int],
    resources: dict[str, float],
    *,
    accelerator_type: str | None = None,
    label_selector: dict[str, str] | None = None,
) -> Any:
    """Ray Train's `ScalingConfig` of so many workers, or of a smallest and a largest number, with these resources.

    Args:
        workers: their number, or the smallest and the largest.
        resources: of each worker, as Ray names them.
        accelerator_type: of the workers' nodes, as Ray names it.
        label_selector: labels that the workers' nodes have.
    """
    from ray.train import ScalingConfig

    return ScalingConfig(
        num_workers=workers,
        elastic_resize_monitor_interval_s=_RESIZE_SECONDS,
        use_gpu=resources.get("GPU", 0) > 0,
        resources_per_worker=resources,
        accelerator_type=accelerator_type,
        label_selector=label_selector,
    )


def connect_workers(worker_group: Any, rendezvous: Callable[[], None]) -> None:
    """Connect the workers of a group, and give their resources back if that fails.

    Ray Train keeps the placement group of workers whose backend fails to start.

    Args:
        worker_group: that Ray Train passes to a backend.
        rendezvous: connects the workers.
    """
    placement_group = worker_group.execute_single(0, get_current_placement_group)
    try:
        rendezvous()
    except Exception:
        remove_placement_group(placement_group)
        raise


def call_each(worker_group: Any, function: Callable[..., None], **arguments: Any) -> None:
    """Call a function in every worker at once, with its rank as `index`, and wait for all."""
    ray.get(
        [
            worker_group.execute_single_async(rank, function, index=rank, **arguments)
            for rank in range(len(worker_group))
        ]
    )


def free_address() -> str:
    """A free `host:port` on this node for the rendezvous of workers."""
    host = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind(("", 0))
        port = listener.getsockname()[1]
    return f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"
