"""What a job needs before it trains: a connection to Ray, room for its runs, and the experiment's lease."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager

from rich.console import Console

from orchestrator.execution import lease
from orchestrator.execution.monitoring import environment
from orchestrator.execution.ray_runtime import local_ray
from orchestrator.experiment.spec import Experiment, Scale
from orchestrator.planning import preflight
from orchestrator.store.records import ExperimentRecords

Connect = Callable[[], AbstractContextManager[None]]
"""Starts Ray on this machine, or joins the cluster that this process runs on."""


def local_capacity(scale: Scale) -> int:
    """How many runs fit on this machine at once.

    Raises:
        InputError: not even one fits; says what would.
    """
    return preflight.check_capacity(scale, cpus=environment.available_cpus(), gpus=len(environment.gpus()))


def check_machine(experiment: Experiment, scale: Scale, connect: Connect) -> None:
    """Whether this machine can train an experiment's arms at a scale, where Ray is to be started on it.

    Raises:
        InputError: a framework is not installed, or not even one run fits.
    """
    if connect is local_ray:
        environment.require_frameworks(environment.frameworks_of(experiment))
        local_capacity(scale)


def held_lease(records: ExperimentRecords, console: Console) -> AbstractContextManager[None]:
    """Hold the experiment's lease. If another driver takes it, this process stops as on Ctrl-C."""

    def stop() -> None:
        console.print("another driver has taken the experiment's lease; this one stops")
        os.kill(os.getpid(), signal.SIGTERM)

    return lease.held(records.storage, on_loss=stop)


def capacity_seconds(experiment: Experiment) -> float:
    """How long to wait for workers, which an autoscaler may still be starting."""
    return 0 if experiment.kubernetes is None else experiment.kubernetes.start_seconds
