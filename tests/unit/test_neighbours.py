"""Other programs are told from what one's own Ray started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.execution.cpu_contention import Neighbours
from tests.conftest import ROOT

pytestmark = pytest.mark.serial

BUSY = "while True: pass"
WORKER = """
import time
from orchestrator.neighbours import Neighbours
neighbours, end = Neighbours(), time.monotonic() + 2
while {busy} and time.monotonic() < end:
    pass
time.sleep(max(end - time.monotonic(), 0))
print(neighbours.share())
"""
RAYLET = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
STARTER = f"""
import subprocess, sys
own = [subprocess.Popen([sys.executable, '-c', {BUSY!r}]) for _ in range(int(sys.argv[1]))]
try:
    subprocess.run([sys.executable, '-c', {RAYLET!r}, sys.argv[2]], check=True)
finally:
    for process in own:
        process.kill()
"""


def share_of_others(*, own: int, others: int) -> float:
    """What a worker sees while so many busy processes are of its own Ray and so many are not."""
    neighbours = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(others)]
    worker = WORKER.format(busy=bool(own))
    starter = [sys.executable, "-c", STARTER, str(max(own - 1, 0)), worker]
    try:
        return float(subprocess.run(starter, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()


def test_what_the_hypervisor_gave_to_others_counts_as_theirs(tmp_path: Path) -> None:
    def told(*, user: int, idle: int, stolen: int) -> None:
        (tmp_path / "stat").write_text(f"cpu  {user} 0 0 {idle} 0 0 0 {stolen} 0 0\ncpu0 0\n")

    told(user=1000, idle=1000, stolen=500)
    neighbours = Neighbours(tmp_path)
    told(user=1060, idle=1000, stolen=540)
    assert neighbours.share() == pytest.approx(0.4)
    told(user=1120, idle=1020, stolen=560)
    assert neighbours.share() == 0, "a fifth was idle"


def test_others_are_counted_where_they_take_what_training_could_use() -> None:
    cpus = os.cpu_count() or 1
    crowded = share_of_others(own=cpus, others=cpus)
    assert crowded == pytest.approx(0.5, abs=0.2)
    assert share_of_others(own=cpus, others=0) < crowded / 2
    assert share_of_others(own=0, others=0) == 0
