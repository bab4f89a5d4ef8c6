"""Ray for a driver: started on this machine for one command, or joined where it runs already."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from orchestrator.execution.monitoring import environment
from trainers.errors import ClusterError, one_line
from trainers.machine import preset

_RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # What Ray does by default in its next versions; without it, Ray prints a warning on every start.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A single node is not preempted while its driver goes on.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
"""Documented by Ray, read when its processes start."""


@contextmanager
def local_ray(*, prints: bool = False) -> Iterator[None]:
    """Start Ray on this machine's CPUs and GPUs; every process it started ends with the block.

    Ray prints its warnings on standard output, from a thread of this process: they go to standard error.

    Args:
        prints: whether what workers print is printed here, too.

    Raises:
        ClusterError: Ray did not start.
    """
    preset.apply()  # Ray's processes inherit this environment
    for name, value in _RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    try:
        with redirect_stdout(sys.stderr):
            _start(prints=prints)
            yield
    finally:
        ray.shutdown()


def _start(*, prints: bool) -> None:
    import ray

    try:
        with _own_termination():
            ray.init(
                address="local",
                num_cpus=environment.available_cpus(),
                include_dashboard=False,
                log_to_driver=prints,
                logging_level=logging.ERROR,
                # Ray's own processes would warn about a dashboard that is not there.
                logging_config=ray.LoggingConfig(log_level="ERROR") if prints else None,
            )
    except Exception as error:
        raise ClusterError(
            f"Ray did not start on this machine: {one_line(error)}; "
            "try again if it was busy, else set RAY_TMPDIR to a short path that can be written to, "
            "or read the logs in /tmp/ray/session_latest/logs"
        ) from error


@contextmanager
def joined_ray() -> Iterator[None]:
    """Join the Ray cluster that this process runs on, as a submitted driver does."""
    # Ray refuses variables that the job's runtime environment, and so this process's, already sets.
    unset = {name: value for name, value in preset.ENVIRONMENT.items() if name not in os.environ}
    import ray

    try:
        with _own_termination():
            ray.init(
                address="auto",
                runtime_env={"env_vars": unset},
                log_to_driver=True,
                logging_level=logging.ERROR,
            )
        yield
    finally:
        ray.shutdown()


@contextmanager
def _own_termination() -> Iterator[None]:
    """Restore this process's handler of SIGTERM, which Ray replaces by one that aborts."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:  # from Ray's handler while it starts
        if callable(handler):
            handler(signal.SIGTERM, None)
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
