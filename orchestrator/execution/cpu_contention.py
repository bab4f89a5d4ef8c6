"""What other programs take of the CPUs that a worker trains on, as Linux tells it."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_SPARE = 0.1


class Neighbours:
    """Programs on this node that do not belong to this process's Ray, and other virtual machines on its host.

    Those that cannot be seen from here do not count: other containers', and machines of which the hypervisor is silent.
    """

    def __init__(self, proc: Path = _PROC) -> None:
        """Begin to watch.

        Args:
            proc: where Linux tells of itself.
        """
        self._proc = proc
        self._before = _count(proc)

    def share(self) -> float:
        """Their part of all CPUs' time since the last call, from 0 to 1; NaN where the system does not tell.

        0 where a tenth of that time or more was idle: then nothing was taken from the training.
        """
        before, self._before = self._before, _count(self._proc)
        if before is None or self._before is None:
            return math.nan
        total = self._before.total - before.total
        if total <= 0 or self._before.idle - before.idle >= _SPARE * total:
            return 0.0
        return min(max(self._before.others - before.others, 0) / total, 1.0)


class _Ticks(NamedTuple):
    """CPU time, over all CPUs, since the system started."""

    total: int
    idle: int
    others: int
    """Of the neighbours, of their children that have ended, and what was stolen from this virtual machine."""


class _Process(NamedTuple):
    parent: int
    ticks: int


def _count(proc: Path) -> _Ticks | None:
    """What proc(5) tells in `stat`, of the system and of each process."""
    try:
        first_line, _, _ = (proc / "stat").read_text().partition("\n")
    except OSError:
        return None
    cpus = [int(value) for value in first_line.split()[1:9]]
    *_, idle, waiting, _, _, stolen = cpus
    processes = _processes(proc)
    own = _own(processes)
    others = sum(process.ticks for pid, process in processes.items() if pid not in own)
    return _Ticks(total=sum(cpus), idle=idle + waiting, others=others + stolen)


def _processes(proc: Path) -> dict[int, _Process]:
    found = {}
    for entry in os.scandir(proc):
        if entry.name.isdigit():
            try:
                with open(f"{entry.path}/stat", "rb") as file:
                    # A program's name, which may hold anything, is in parentheses before these.
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:  # it has ended
                continue
            found[int(entry.name)] = _Process(int(fields[1]), sum(map(int, fields[11:15])))
    return found


def _own(processes: dict[int, _Process]) -> set[int]:
    """This process's Ray: the raylet, which is its parent, what started that, and all that they started."""
    raylet = os.getppid()
    starter = processes[raylet].parent if raylet in processes else 0
    own = {raylet if starter <= 1 else starter}
    while more := {pid for pid, process in processes.items() if process.parent in own} - own:
        own |= more
    return own
