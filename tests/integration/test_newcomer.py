"""From a folder of pictures to predictions, with the commands of the README alone."""

from __future__ import annotations

import csv
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.images import fill

pytestmark = [pytest.mark.serial, pytest.mark.slow]

MOST_SILENT = 10.0
SLACK = 5.0
"""For a machine that is busy with something else."""


def run(*arguments: str, cwd: Path) -> tuple[list[str], float]:
    """What a command prints on a pipe, and the longest time without a line between its first and its last."""
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("tandem")), *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    lines, times = [], [time.monotonic()]
    for line in process.stdout:
        lines.append(line.rstrip())
        times.append(time.monotonic())
    assert process.wait() == 0, lines
    return lines, max((after - before for before, after in itertools.pairwise(times)), default=0.0)


def test_a_newcomer_is_never_left_without_a_word(tmp_path: Path) -> None:
    for name in ("cat", "dog", "fox"):
        fill(tmp_path / "photos" / name, 100, side=32)
    quick = ("--set", "arms.*.epochs=2", "--set", "arms.*.seeds=[0]")
    written, _ = run("init", "--data", "photos/", cwd=tmp_path)
    assert written == ["experiment.yaml is written; next: tandem check experiment.yaml"]
    checked, _ = run("check", "experiment.yaml", cwd=tmp_path)
    assert any("images of 32x32x3 in 3 classes" in line for line in checked)
    trained, silent = run("run", "experiment.yaml", *quick, cwd=tmp_path)
    assert silent < MOST_SILENT + SLACK
    assert not any("Warning" in line or "warn(" in line for line in trained), "no library's own words"
    assert any(line.endswith("tandem-results/photos/report/report.html") for line in trained)
    saved, _ = run("model", "tandem-results/photos", "winner", cwd=tmp_path)
    assert saved[0].startswith("arm ")
    run("predict", "winner", "photos/fox", "--top", "2", "--out", "fox.csv", cwd=tmp_path)
    with open(tmp_path / "fox.csv", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 100 and {row["label_1"] for row in rows} <= {"cat", "dog", "fox"}
