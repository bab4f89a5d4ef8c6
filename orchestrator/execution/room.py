"""Takes back what a driver asked a Ray cluster's autoscaler for, in whichever way the driver ends.

The request of `request_resources` stays in force after its job until another replaces it, so that a standing cluster
would keep its workers.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil

_WATCH_SECONDS = 5.0


@contextlib.contextmanager
def given_back() -> Iterator[None]:
    """Take back the request at the end of the block, or when this process is killed. Ray must be connected."""
    import ray

    keeper = _keeper()
    try:
        yield
    finally:
        take_back()
        ray.kill(keeper)


def take_back() -> None:
    """Replace the request by an empty one."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[])


class Keeper:
    """An actor that outlives the driver, on its node."""

    def watch(self, pid: int, created: float, *, then: Callable[[], None] = take_back) -> None:
        """Wait until a process is gone, then take its request back."""
        while _runs(pid, created):
            time.sleep(_WATCH_SECONDS)
        then()


def _keeper() -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    name = f"tandem-room-{ray.get_runtime_context().get_job_id()}"
    options = {
        "num_cpus": 0,
        "lifetime": "detached",
        "name": name,
        "namespace": "tandem",
        "scheduling_strategy": here,
    }
    keeper: Any = ray.remote(_Actor).options(**options).remote()
    keeper.watch.remote(os.getpid(), psutil.Process().create_time())
    return keeper


class _Actor(Keeper):
    """Ends its own process after it has taken the request back."""

    def watch(self, pid: int, created: float, *, then: Callable[[], None] = take_back) -> None:
        from ray.actor import exit_actor

        super().watch(pid, created, then=then)
        exit_actor()  # type: ignore[no-untyped-call]


def _runs(pid: int, created: float) -> bool:
    """Whether a process still runs; a later one may have been given its number."""
    try:
        process = psutil.Process(pid)
        return bool(process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - created) < 1)
    except psutil.NoSuchProcess:
        return False
