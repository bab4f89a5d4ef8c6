from __future__ import annotations

import dataclasses
import io
import re
import time
from pathlib import Path

import pytest

from orchestrator.execution.monitoring.progress import Progress, open_console, waiting
from orchestrator.experiment.spec import from_json
from orchestrator.planning import run_plan
from orchestrator.planning.preflight import Prepared
from tests.unit.synthetic import make_records
from trainers.data import DataSpec, open_dataset


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    records = make_records(tmp_path / "x", {"keras": [0.5, 0.75], "torch": [0.6, 0.8]})
    experiment = from_json(records.document()["experiment"])
    runs = run_plan.expand(experiment, "fingerprint")
    (tmp_path / "x" / "runs" / runs[1].id / "result.json").unlink()
    for file in (tmp_path / "x" / "runs" / runs[3].id).glob("*.json*"):
        file.unlink()
    dataset = open_dataset(DataSpec())
    return Prepared(experiment=experiment, dataset=dataset, runs=runs, records=records)


def begun(prepared: Prepared, output: io.StringIO) -> Progress:
    """Progress of a command that began before the first run had trained an epoch."""
    epochs = Path(prepared.records.storage.url) / "runs" / prepared.runs[0].id / "epochs.jsonl"
    epochs.rename(epochs.with_suffix(".later"))
    progress = Progress(prepared, open_console(output, width=100))
    epochs.with_suffix(".later").rename(epochs)
    return progress


def test_a_terminal_shows_every_run_as_it_stands(prepared: Prepared) -> None:
    screen = Terminal()
    progress = Progress(prepared, open_console(screen, width=100))
    with progress.shown():
        progress.refresh()
    rows = [line for line in screen.getvalue().splitlines() if "seed" in line]
    assert "keras seed 0  3/3    test 50.00%" in rows[0]
    assert "done" in rows[0]
    assert rows[1].split()[:7] == ["keras", "seed", "1", "3/3", "75.00%", "75.00%", "1,000"]
    assert "torch seed 1  0/3" in rows[3]
    assert "waiting" in rows[3]


def test_a_pipe_gets_each_epoch_once_but_none_of_earlier_commands(prepared: Prepared) -> None:
    output = io.StringIO()
    progress = begun(prepared, output)
    with progress.shown():
        progress.refresh()
        progress.refresh()
    lines = output.getvalue().splitlines()
    assert len(lines) == len(set(lines)) == 3
    assert lines[0] == "keras seed 0: epoch 1/3, validation accuracy 16.67%, 500 images/s"


def test_a_silent_pipe_gets_the_state_of_the_runs_and_the_time_left(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.execution.monitoring.progress._MOST_SILENT_SECONDS", -1.0)
    output = io.StringIO()
    progress = Progress(prepared, open_console(output, width=100))
    with progress.shown():
        progress.refresh()
    (line,) = output.getvalue().splitlines()
    assert re.fullmatch(r"runs: 1 testing, 1 waiting, 2 done; about [\d:, a-z]+ left in total", line), line


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_what_is_waited_for_is_named(kind: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.execution.monitoring.progress._MOST_SILENT_SECONDS", 0.02)
    output = kind()
    with waiting(open_console(output, width=100), "starting Ray"):
        time.sleep(0.2)
    assert "starting Ray" in output.getvalue()
    if kind is io.StringIO:
        assert re.fullmatch(r"(starting Ray: 0:00:00\n)+", output.getvalue())


def test_names_that_look_like_markup_are_shown_as_they_are(prepared: Prepared) -> None:
    run = prepared.runs[0]
    name = "[/cats] [red] :cat:"
    odd = dataclasses.replace(prepared, runs=[dataclasses.replace(run, arm=name)])
    for output in (io.StringIO(), Terminal()):
        progress = begun(odd, output)
        with progress.shown():
            progress.refresh()
        assert f"{name} seed 0" in output.getvalue()
