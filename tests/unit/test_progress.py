from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator import plan
from orchestrator.driver import Prepared
from orchestrator.progress import Progress
from orchestrator.spec import from_json
from tests.unit.synthetic import make_records
from trainers.data import DataSpec, open_dataset


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    records = make_records(tmp_path / "x", {"keras": [0.5, 0.75], "torch": [0.6, 0.8]})
    experiment = from_json(records.document()["experiment"])
    runs = plan.expand(experiment, "fingerprint")
    (tmp_path / "x" / "runs" / runs[1].id / "result.json").unlink()
    for file in (tmp_path / "x" / "runs" / runs[3].id).glob("*.json*"):
        file.unlink()
    dataset = open_dataset(DataSpec())
    return Prepared(experiment=experiment, dataset=dataset, runs=runs, records=records)


def test_a_terminal_shows_every_run_as_it_stands(prepared: Prepared) -> None:
    screen = io.StringIO()
    progress = Progress(prepared, Console(file=screen, force_terminal=True, width=100))
    with progress.shown():
        progress.refresh()
    rows = [line for line in screen.getvalue().splitlines() if "seed" in line]
    assert "keras seed 0  3/3    test 50.00%" in rows[0]
    assert "done" in rows[0]
    assert rows[1].split()[:7] == ["keras", "seed", "1", "3/3", "75.00%", "75.00%", "1,000"]
    assert "torch seed 1  0/3" in rows[3]
    assert "waiting" in rows[3]


def test_a_pipe_gets_each_epoch_once(prepared: Prepared) -> None:
    output = io.StringIO()
    progress = Progress(prepared, Console(file=output, width=100))
    with progress.shown():
        progress.refresh()
        progress.refresh()
    lines = output.getvalue().splitlines()
    assert len(lines) == len(set(lines)) == 9
    assert lines[0] == "keras seed 0: epoch 1/3, validation accuracy 16.67%, 500 images/s"
