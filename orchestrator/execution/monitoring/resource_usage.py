"""Memory, energy and CPU contention while a worker trains, as far as the machine reports them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from orchestrator.execution.monitoring.cpu_contention import Contention

_POWERCAP = Path("/sys/class/powercap")
_PROCESS = Path("/proc/self")


class Used(NamedTuple):
    """What a meter read; NaN is what the machine does not tell."""

    memory_peak_bytes: float
    """Peak resident memory of this process."""
    energy_joules: float
    """Of its node's processors and GPUs, for everything on the node; that of memory, disks and fans is not in it."""
    others_share: float
    """Part of the node's CPU time that other programs took; 0 where there was some to spare."""


class Meter:
    """What this process, and the node that it is on, have used since the last reading."""

    def __init__(self, *, first_on_node: bool, powercap: Path = _POWERCAP) -> None:
        """Begin to measure.

        Args:
            first_on_node: whether this worker measures for its node; the others on the node read 0 for it.
            powercap: where Linux keeps the processors' counters of energy (RAPL).
        """
        self._zones = sorted(powercap.glob("intel-rapl:?")) if first_on_node else []
        self._gpus = _nvidia_gpus() if first_on_node else []
        self._before = self._counters()
        self._contention = Contention() if first_on_node else None
        _forget_peak()

    def read(self) -> Used:
        """What was used since the last reading."""
        peak = _peak_bytes()
        _forget_peak()
        if self._contention is None:
            return Used(peak, 0.0, 0.0)
        return Used(peak, self._joules(), self._contention.share())

    def _joules(self) -> float:
        before, self._before = self._before, self._counters()
        if not self._before or len(before) != len(self._before):
            return math.nan
        return sum(
            after - start if after >= start else after - start + span
            for (start, _), (after, span) in zip(before, self._before, strict=True)
        )

    def _counters(self) -> list[tuple[float, float]]:
        """Each counter in joules, and where it begins anew."""
        try:
            rapl = [
                (_microjoules(zone, "energy_uj"), _microjoules(zone, "max_energy_range_uj"))
                for zone in self._zones
            ]
        except (OSError, ValueError):  # since 2020 only root may read them
            return []
        return rapl + [(gpu(), math.inf) for gpu in self._gpus]


def _microjoules(zone: Path, name: str) -> float:
    return int((zone / name).read_text()) / 1e6


def _nvidia_gpus() -> list[Callable[[], float]]:
    """For each GPU of this node a function that tells its joules; none without NVIDIA's driver."""
    import pynvml

    def joules(handle: object) -> float:
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(place) for place in range(pynvml.nvmlDeviceGetCount())]
        for handle in handles:
            joules(handle)
    except pynvml.NVMLError:
        return []
    return [partial(joules, handle) for handle in handles]


def _peak_bytes() -> float:
    """Linux' high-water mark of this process' resident memory."""
    with contextlib.suppress(OSError):
        for line in (_PROCESS / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024.0
    return math.nan


def _forget_peak() -> None:
    """Let the high-water mark begin anew; where that is not allowed, it stays that of the process."""
    with contextlib.suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")
