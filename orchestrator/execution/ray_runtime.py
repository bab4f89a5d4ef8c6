"""Ray for a driver: started on this machine for one command, or joined where it runs already."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from orchestrator.execution import environment
from trainers.errors import ClusterError, one_line

# What libraries of a training process read when it starts.
_LIBRARIES = {
    # Ray Train trains in a thread. There glibc gives large arrays back to the system at every step and
    # takes them anew, page by page, unless all threads share one heap that keeps what was freed.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # in pages of 2 MiB where the kernel has them
    # PyTorch's threads wait for each other in a loop, by default for milliseconds: beside other work that is
    # often on the very core that the awaited thread needs.
    "GOMP_SPINCOUNT": "20000",
}
# Read by Ray when its processes start; a user's own setting wins.
_ENVIRONMENT = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # nobody takes this machine away
    # Here training is the foreground work, not something to yield to everything else.
    "RAY_worker_niceness": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # How long a session's end, or a worker's, may go unnoticed.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's own processes take up to a tenth of a core from the training; nobody reads these here.
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_event_stats": "0",
    "RAY_raylet_report_resources_period_milliseconds": "1000",
    # A sweep has many small processes; Ray warns on standard output above a multiple of this.
    "RAY_worker_maximum_startup_concurrency": "16",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    **_LIBRARIES,
}

_UNUSED = {"start_api_server", "start_monitor", "start_log_monitor"}
"""What starts, of a Ray node, the dashboard's server, the autoscaler and the reader of logs."""
_AGENTS_PORTS = (
    "METRICS_AGENT_PORT_NAME",
    "METRICS_EXPORT_PORT_NAME",
    "DASHBOARD_AGENT_LISTEN_PORT_NAME",
)


@contextmanager
def local_ray() -> Iterator[None]:
    """Start Ray on this machine's CPUs and GPUs; every process it started ends with the block.

    Raises:
        ClusterError: Ray did not start.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with _own_termination():
        import ray

        try:
            with _lean_node():
                ray.init(
                    address="local",
                    num_cpus=environment.available_cpus(),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
        except Exception as error:
            raise ClusterError(
                f"Ray did not start on this machine: {one_line(error)}; "
                "try again if it was busy, else set RAY_TMPDIR to a short path that can be written to, "
                "or read the logs in /tmp/ray/session_latest/logs"
            ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def joined_ray() -> Iterator[None]:
    """Join the Ray cluster that this process runs on, as a submitted driver does."""
    # Ray refuses what the job's own runtime environment, and so this process's, sets already.
    unset = {name: value for name, value in _LIBRARIES.items() if name not in os.environ}
    with _own_termination():
        import ray

        ray.init(
            address="auto",
            runtime_env={"env_vars": unset},
            log_to_driver=True,
            logging_level=logging.ERROR,
        )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _lean_node() -> Iterator[None]:
    """Have Ray start no process that nobody uses on one machine; they are half of its start."""
    from ray._private import services
    from ray._private.node import Node

    with ExitStack() as changes:
        for name in _UNUSED & vars(Node).keys():
            changes.enter_context(_replaced(Node, name, lambda self, **_: None))
        start = _with_idle_agent(services.start_ray_process)
        changes.enter_context(_replaced(services, "start_ray_process", start))
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _with_idle_agent(start: Callable[..., Any]) -> Callable[..., Any]:
    """Start a node's processes, but another in the place of the dashboard's agent, which a node insists on.

    The agent takes two seconds of a core to start. A port of -1 says that a service is not there.
    """
    raylet: Any = importlib.import_module("ray._raylet")
    idle = subprocess.list2cmdline(
        [sys.executable, "-S", "-E", str(Path(__file__).with_name("idle_agent.py"))]
    )
    changed = {
        "--dashboard_agent_command": idle,
        "--num_prestart_python_workers": "1",  # the first worker's starts while the driver waits for Ray
    }

    def start_process(command: list[str], process_type: str, **options: Any) -> Any:
        given = dict(part.split("=", 1) for part in command if "=" in part)
        if process_type == "raylet" and {*changed, "--session_dir", "--node_id"} <= given.keys():
            for port in _AGENTS_PORTS:
                raylet.persist_port(given["--session_dir"], given["--node_id"], getattr(raylet, port), -1)
            names = [part.partition("=")[0] for part in command]
            command = [
                f"{name}={changed[name]}" if name in changed else part
                for name, part in zip(names, command, strict=True)
            ]
        return start(command, process_type, **options)

    return start_process


@contextmanager
def _own_termination() -> Iterator[None]:
    """Keep this process's answer to SIGTERM, which Ray replaces by one that aborts."""
    answer = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:  # Ray's answer while it starts
        if callable(answer):
            answer(signal.SIGTERM, None)
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, answer)
