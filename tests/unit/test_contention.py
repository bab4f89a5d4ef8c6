"""CPU time of other programs is distinguished from that of one's own Ray, however busy the machine is."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from orchestrator.execution.monitoring.cpu_contention import others_share
from tests.conftest import ROOT

BUSY = "while True: pass"
WORKER = """
import json, sys, time
import psutil
from orchestrator.execution.monitoring.cpu_contention import Contention

own, others = ([psutil.Process(pid) for pid in pids] for pids in json.loads(sys.argv[1]))

def used():
    return [
        sum(psutil.cpu_times()[:8]),
        sum(sum(process.cpu_times()[:2]) for process in own) + time.process_time(),
        sum(sum(process.cpu_times()[:2]) for process in others),
    ]

contention, before = Contention(), used()
end = time.monotonic() + 2
while time.monotonic() < end:
    pass
share = contention.share()
total, of_own, of_others = (after - first for after, first in zip(used(), before))
print(share, of_others / total, 1 - of_own / total)
"""
RAYLET = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]], check=True)"
STARTER = f"""
import json, subprocess, sys
count, worker, others = sys.argv[1:]
own = [subprocess.Popen([sys.executable, '-c', {BUSY!r}]) for _ in range(int(count))]
pids = json.dumps([[process.pid for process in own], json.loads(others)])
try:
    subprocess.run([sys.executable, '-c', {RAYLET!r}, worker, pids], check=True)
finally:
    for process in own:
        process.kill()
"""


@pytest.mark.serial
@pytest.mark.parametrize("others", [0, os.cpu_count() or 1])
def test_all_but_the_own_processes_are_counted(others: int) -> None:
    own = os.cpu_count() or 1
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(others)]
    arguments = [str(own), WORKER, json.dumps([process.pid for process in busy])]
    try:
        done = subprocess.run(
            [sys.executable, "-c", STARTER, *arguments], cwd=ROOT, check=True, capture_output=True, text=True
        )
    finally:
        for process in busy:
            process.kill()
            process.wait()
    share, least, most = map(float, done.stdout.split())
    assert least - 0.05 < share < most + 0.05
    assert (least > 0) == bool(others)


def test_nothing_is_taken_where_cpus_are_idle() -> None:
    busy = {"user": 70.0, "system": 10.0, "idle": 3.0, "iowait": 2.0, "softirq": 5.0, "steal": 10.0}
    assert others_share(busy, own=50.0) == pytest.approx(0.4)
    assert others_share(busy, own=100.0) == 0, "readings of one moment take a while"
    assert others_share(busy | {"idle": 12.0}, own=50.0) == 0
    assert others_share(dict.fromkeys(busy, 0.0), own=0.0) == 0
