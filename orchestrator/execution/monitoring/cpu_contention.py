"""CPU contention: CPU time that other programs take while a worker trains."""

from __future__ import annotations

import math
import os

import psutil

_SPARE = 0.1
_INTERRUPTS = ("irq", "softirq")
"""Not charged to any process; what a worker sends and receives causes them as well."""


class Contention:
    """CPU use by programs on this node that do not belong to this process's Ray.

    What a hypervisor gave to other virtual machines on the same host ("steal") counts as theirs.
    """

    def __init__(self) -> None:
        """Begin to measure."""
        self._cpus = psutil.cpu_times()
        self._own = _own()

    def share(self) -> float:
        """The others' part of all CPUs' time since the last call, from 0 to 1; NaN where the system does not tell."""
        cpus, own = psutil.cpu_times(), _own()
        passed = {
            state: seconds - getattr(self._cpus, state)
            for state, seconds in cpus._asdict().items()
            if not state.startswith("guest")  # user and nice hold these already
        }
        used = sum(seconds - self._own.get(process, 0.0) for process, seconds in own.items())
        self._cpus, self._own = cpus, own
        return others_share(passed, used) if own else math.nan


def others_share(cpus: dict[str, float], own: float) -> float:
    """The part of all CPUs' time that was neither idle nor used by the own processes.

    0 where a tenth of that time or more was idle: then nothing was taken from the training.

    Args:
        cpus: seconds over all CPUs by state, as psutil names them.
        own: seconds that the own processes used.
    """
    total, idle = sum(cpus.values()), cpus["idle"] + cpus.get("iowait", 0.0)
    if total <= 0 or idle >= _SPARE * total:
        return 0.0
    others = total - idle - own - sum(cpus.get(state, 0.0) for state in _INTERRUPTS)
    return min(max(others, 0.0) / total, 1.0)


def _own() -> dict[psutil.Process, float]:
    """CPU seconds of each process of this process's Ray.

    These are the raylet, which is the parent, the process that started it, and all their descendants.
    """
    try:
        root = psutil.Process(os.getppid())
        starter = root.parent()
        if starter is not None and starter.pid > 1:
            root = starter
        processes = [root, *root.children(recursive=True)]
    except (OSError, psutil.Error):
        return {}
    found = {}
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        found[process] = times.user + times.system
    return found
