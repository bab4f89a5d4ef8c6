"""What the machine tells of memory and energy."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from orchestrator.execution.monitoring.resource_usage import Meter


def zone(powercap: Path, name: str, microjoules: int) -> Path:
    directory = powercap / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "energy_uj").write_text(f"{microjoules}\n")
    (directory / "max_energy_range_uj").write_text("100000000\n")
    return directory


def test_energy_is_counted_over_all_processors_and_over_a_counters_end(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", 5_000_000)
    zone(tmp_path, "intel-rapl:1", 99_000_000)
    zone(tmp_path, "intel-rapl:0:0", 1_000_000)  # a part of the first, which counts it already
    meter = Meter(first_on_node=True, powercap=tmp_path)
    zone(tmp_path, "intel-rapl:0", 12_000_000)
    zone(tmp_path, "intel-rapl:1", 2_000_000)
    zone(tmp_path, "intel-rapl:0:0", 4_000_000)
    assert meter.read().energy_joules == pytest.approx(7 + 3)
    assert meter.read().energy_joules == 0


def test_a_machine_that_does_not_tell_gives_no_energy(tmp_path: Path) -> None:
    assert math.isnan(Meter(first_on_node=True, powercap=tmp_path).read().energy_joules)
    (zone(tmp_path, "intel-rapl:0", 1) / "energy_uj").unlink()
    assert math.isnan(Meter(first_on_node=True, powercap=tmp_path).read().energy_joules)
    assert Meter(first_on_node=False, powercap=tmp_path).read().energy_joules == 0


def test_the_peak_of_memory_is_that_since_the_last_reading(tmp_path: Path) -> None:
    meter = Meter(first_on_node=False, powercap=tmp_path)
    quiet = meter.read().memory_peak_bytes
    held = np.ones(300 * 2**20, np.uint8)
    del held
    peak = meter.read().memory_peak_bytes
    assert peak > quiet + 200 * 2**20
    after = meter.read().memory_peak_bytes
    assert after < peak - 200 * 2**20
