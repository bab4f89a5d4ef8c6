"""What a report says of a sweep, from records that were never trained."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator import report
from orchestrator.analysis import results
from orchestrator.analysis.sweeps import ArmSearch, SweepSummary, pareto_front, summarise
from orchestrator.experiment.sweep import Sweep
from orchestrator.report.sweep import best_so_far
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.trial_records import SearchHistory, SearchRecords, TrialRecord, best_trial
from tests.conftest import within
from tests.unit.synthetic import make_records

EVIL = "</script><script>alert(1)</script>"
SWEEP: dict[str, Any] = {
    "space": {
        "optimizer.learning_rate": {"loguniform": [1e-4, 1e-1]},
        "optimizer.momentum": {"uniform": [0, 0.9], "when": "optimizer.name == 'sgd'"},
        "optimizer.name": {"choice": ["sgd", "adam", EVIL]},
        "batch_size": {"integer": [16, 256]},
    },
    "budget": {"trials": 8},
}


def add_sweep(records: ExperimentRecords, trials: dict[str, int], *, epochs: int = 3, **sweep: Any) -> None:
    """Give the experiment a sweep of so many made-up trials for each arm."""
    document = records.document()
    original = document["experiment"] | {"sweep": SWEEP | sweep}
    original["scale"]["price_per_worker_hour"] = 2.0
    searches = {arm: f"{arm}-0" for arm in trials}
    document["sweep"] = {"experiment": original, "searches": searches, "winners": {arm: {} for arm in trials}}
    records.begin(document)
    for arm, count in trials.items():
        search = SearchRecords(records.storage.at("sweep", searches[arm]))
        search.begin()
        rng = np.random.default_rng(0)
        for number in range(count):
            _trial(search, number, rng, epochs)
        search.flush()


def _trial(search: SearchRecords, number: int, rng: np.random.Generator, epochs: int) -> None:
    params: dict[str, Any] = {
        "optimizer.learning_rate": float(10 ** rng.uniform(-4, -1)),
        "optimizer.name": ["sgd", "adam", EVIL][number % 3],
        "batch_size": int(rng.integers(16, 257)),
    }
    if number % 3 == 0:
        params["optimizer.momentum"] = float(rng.uniform(0, 0.9))
    run = f"{number:05d}-x"
    search.start(number, run, params)
    if number % 7 == 5:
        search.end(number, "failed", f"ValueError: {EVIL} {number}")
        return
    stopped = number % 2 and epochs > 1
    quality = 0.9 - abs(np.log10(params["optimizer.learning_rate"]) + 2) / 4
    for epoch in range(1, (epochs // 2 if stopped else epochs) + 1):
        accuracy = float(quality * (1 - 0.5**epoch))
        search.epoch(
            number,
            run,
            {
                "epoch": epoch,
                "train_loss": 1 - accuracy,
                "train_accuracy": accuracy,
                "validation_loss": 1 - accuracy,
                "validation_accuracy": accuracy,
                "images_per_second": 1000.0,
                "data_seconds": 0.25,
                "step_seconds": 1.5,
                "evaluation_seconds": 0.25,
                "slot": f"{number % 2}-abc",
            },
        )
    search.end(number, "stopped" if stopped else "done", None)


def test_the_report_shows_what_was_spent_and_found(tmp_path: Path) -> None:
    records = make_records(tmp_path / "swept", {"keras": [0.8, 0.81], "torch": [0.7, 0.71]})
    add_sweep(records, {"keras": 8, "torch": 20})
    comparison = report.write(records)
    page = (tmp_path / "swept/report/report.html").read_text()
    for title in (
        "What the search spent",
        "Optimisation history",
        "Importance of the parameters",
        "Parallel coordinates",
        "Slices",
        "The two that matter most",
        "Time line by worker",
    ):
        assert title in page
    assert EVIL not in page, "text from the file never becomes markup"
    assert 'src="http' not in page and "cdn.plot.ly" not in page.split("plotly.js v")[0]
    (keras, torch) = results.document(comparison)["sweep"]
    assert (keras["trials"], keras["states"]) == (8, {"done": 4, "failed": 1, "stopped": 3})
    assert keras["epochs"] == 4 * 3 + 3 * 1
    assert keras["busy_seconds"] == pytest.approx(keras["epochs"] * 2.0)
    assert keras["cost"] == pytest.approx(keras["epochs"] * 2.0 / 3600 * 2.0)
    assert torch["failures"][0]["trials"] == 3
    assert any("same number of trials: keras 8, torch 20" in note for note in comparison.notes)
    markdown = (tmp_path / "swept/report/report.md").read_text()
    assert "What the search spent" in markdown and "figures/best-by-trials.svg" in markdown
    assert json.loads((tmp_path / "swept/report/results.json").read_text())["sweep"][0]["arm"] == "keras"


def test_every_arm_has_its_curve_however_many_there_are(tmp_path: Path) -> None:
    names = [f"arm{place}" for place in range(8)]
    records = make_records(tmp_path / "swept", {name: [0.5] for name in names})
    add_sweep(records, dict.fromkeys(names, 2), epochs=1)
    summary = summarise(records, records.document())
    assert summary is not None
    chart = best_so_far(summary)
    assert chart is not None
    assert [series.name for series in chart.series if series.is_named] == names


def test_a_search_of_a_newer_version_is_left_out_and_said_so(tmp_path: Path) -> None:
    records = make_records(tmp_path / "swept", {"keras": [0.5]})
    add_sweep(records, {"keras": 2}, warp=9)
    comparison = report.write(records)
    assert comparison.sweep is None and comparison.arms[0].score is not None
    assert "the report leaves out the search" in " ".join(comparison.notes)


def test_an_unfinished_sweep_has_a_report_too(tmp_path: Path) -> None:
    records = make_records(tmp_path / "swept", {"keras": [0.5]})
    add_sweep(records, {"keras": 1})
    document = records.document()
    document["sweep"]["winners"] = {}
    records.begin(document | {"runs": []})
    comparison = report.write(records)
    assert "The sweep is not finished" in comparison.notes[0]


def trial(number: int, accuracy: float, seconds: float) -> TrialRecord:
    epoch = {"epoch": 1, "validation_accuracy": accuracy, "data_seconds": 0, "step_seconds": seconds}
    return TrialRecord(number=number, params={}, run=str(number), epochs=[epoch], state="done")


def test_a_trial_is_told_as_recipes_are() -> None:
    params = {
        "optimizer.learning_rate": 0.00123456,
        "augmentation.flip": False,
        "whitening": None,
        "epochs": 3,
    }
    trial = TrialRecord(number=0, params=params, run="0")
    assert trial.describe() == (
        "optimizer.learning_rate 0.001235, augmentation.flip none, whitening none, epochs 3"
    )


def test_the_front_holds_what_nothing_beats() -> None:
    sweep = Sweep.model_validate({"objective": ["validation_accuracy", "train_seconds"]})
    trials = [
        trial(0, 0.9, 10),
        trial(1, 0.8, 5),
        trial(2, 0.85, 12),
        trial(3, 0.7, 5),
        trial(4, 0.5, 1),
        trial(5, 0.9, 11),
    ]
    assert [found.number for found in pareto_front(trials, sweep)] == [0, 1, 4]


@pytest.mark.parametrize("first", [True, False])
def test_a_trial_without_a_number_wins_nothing(tmp_path: Path, first: bool) -> None:
    sick, losses = trial(9, 0.9, 1), (0.7, 0.5, 0.6)
    fine = [trial(number, 0.8, 9) for number in range(3)]
    for record, loss in zip([sick, *fine], [np.nan, *losses], strict=True):
        record.epochs[0]["validation_loss"] = loss
    trials = [sick, *fine] if first else [*fine, sick]
    sweep = Sweep.model_validate({"objective": ["validation_loss", "train_seconds"]})
    best = best_trial(trials, sweep)
    assert best is not None and best.number == 1
    assert [found.number for found in pareto_front(trials, sweep)] == [1]
    history = SearchHistory(trials=trials, seconds=1.0, finished=None)
    search = ArmSearch(arm="keras", history=history, winner=best, front=[], failures=[], price_per_hour=None)
    chart = best_so_far(SweepSummary(sweep=sweep, arms=[search], notes=[]))
    assert chart is not None
    assert chart.table.rows == [
        ["keras", "2" if first else "1", "0.7"],
        ["keras", "3" if first else "2", "0.5"],
    ]


SCRIPT = r"""
import re, sys, time
from pathlib import Path
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Storage
start = time.perf_counter()
from orchestrator import report
report.write(ExperimentRecords(Storage(sys.argv[1])))
seconds = time.perf_counter() - start
# Unlike ru_maxrss, the high-water mark does not begin with what the starting process had.
print(seconds, re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
def test_ten_thousand_trials_make_a_report_in_time_and_memory(tmp_path: Path) -> None:
    records = make_records(tmp_path / "large", {"keras": [0.8, 0.81], "torch": [0.7, 0.71]})
    add_sweep(records, {"keras": 5000, "torch": 5000}, epochs=20)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "large")]
    kibibytes = 0.0

    def seconds() -> float:
        nonlocal kibibytes
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        passed, kibibytes = map(float, told.split())
        return passed

    assert within(10, seconds)
    assert kibibytes < 1e9 / 1024
    assert (tmp_path / "large/report/report.html").stat().st_size < 10e6
