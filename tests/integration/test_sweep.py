"""Sweeps with real Ray Tune, Ray Train and training: to a report, through kills and failures."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Storage
from orchestrator.store.trial_records import SearchHistory, SearchRecords
from tests.conftest import start_tandem, tandem
from tests.integration.test_faults import training_workers, wait_for

pytestmark = [pytest.mark.serial, pytest.mark.ray]

SWEEP = """\
name: swept
data: {{source: digits}}
defaults: {{epochs: {epochs}, batch_size: 64, seeds: 2, optimizer: {{name: sgd, momentum: 0.9}}}}
arms:
{arms}
scale: {{concurrent_runs: {at_once}, retries: 1}}
sweep:
  space:
    optimizer.learning_rate: {{loguniform: [1.0e-3, 3.0e-1]}}
    loss.label_smoothing: {{uniform: [0.0, 0.2]}}
  {sweep}
storage: {storage}
"""
BOTH = "  keras: {framework: keras}\n  torch: {framework: torch}"
TORCH = "  torch: {framework: torch}"


def history_of(root: Path, arm: str = "torch") -> SearchHistory:
    records = ExperimentRecords(Storage(str(root / "swept")))
    searches = records.document()["sweep"]["searches"]
    return SearchRecords(records.storage.at("sweep", searches[arm])).history()


def ended(root: Path) -> int:
    with contextlib.suppress(Exception):
        return sum(trial.state is not None for trial in history_of(root).trials)
    return 0


@pytest.mark.slow
def test_both_frameworks_from_a_file_to_a_report_of_winners(
    tmp_path: Path, experiment_file: Callable[[str], Path]
) -> None:
    sweep = "budget: {trials: 5}\n  scheduler: asha"
    text = SWEEP.format(arms=BOTH, epochs=3, at_once=2, sweep=sweep, storage=tmp_path)
    done = tandem("sweep", experiment_file(text), "--json")
    assert done.returncode == 0, done.stderr
    comparison = json.loads(done.stdout)
    for search, arm in zip(comparison["sweep"], comparison["arms"], strict=True):
        assert search["trials"] == 5
        assert search["states"].get("stopped", 0) >= 1, "ASHA stops the weak ones"
        history = history_of(tmp_path, arm["name"])
        best = max(
            (trial for trial in history.trials if trial.state == "done"),
            key=lambda trial: trial.epochs[-1]["validation_accuracy"],
        )
        assert search["winner"] == {"trial": best.number, "params": best.params}
        rate = best.params["optimizer.learning_rate"]
        assert arm["recipe"]["optimizer"]["learning_rate"] == rate, "the winner's recipe is what is compared"
        assert [run["seed"] for run in arm["runs"]] == [0, 1]
        assert all(run["test_accuracy"] > 0.2 for run in arm["runs"])
    assert not list((tmp_path / "swept" / "sweep").rglob("result.json")), "no trial sees the test split"
    assert not list((tmp_path / "swept" / "sweep").rglob("*.npz")), "states of ended trials are deleted"
    page = (tmp_path / "swept" / "report" / "report.html").read_text()
    assert "Trials of keras" in page and "Trials of torch" in page

    again = tandem("sweep", experiment_file(text))
    assert again.returncode == 0 and "trial" not in again.stderr, "what is done stays done"


def test_a_killed_driver_goes_on_with_the_very_same_trials(tmp_path: Path) -> None:
    trials = 10

    def started(root: Path) -> subprocess.Popen[str]:
        sweep = f"budget: {{trials: {trials}}}\n  scheduler: asha\n  seed: 3"
        root.mkdir()
        file = root / "experiment.yaml"
        file.write_text(SWEEP.format(arms=TORCH, epochs=10, at_once=1, sweep=sweep, storage=root))
        return start_tandem("sweep", file)

    def searched(process: subprocess.Popen[str], root: Path) -> SearchHistory:
        wait_for(lambda: ended(root) == trials, process, seconds=540)
        process.terminate()  # the winners are trained elsewhere
        _, err = process.communicate(timeout=200)
        assert process.returncode == 130, err
        return history_of(root)

    def killed_amid() -> tuple[SearchHistory, SearchHistory]:
        root = tmp_path / "killed"
        process = started(root)
        wait_for(lambda: ended(root) >= 3, process)
        workers = training_workers(process)
        os.kill(process.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(workers, timeout=120)
        assert not alive
        before = history_of(root)
        assert ended(root) < trials, "killed amid the search"
        return before, searched(start_tandem("resume", root / "swept"), root)

    with ThreadPoolExecutor() as pool:
        other = pool.submit(killed_amid)
        whole = searched(started(tmp_path / "whole"), tmp_path / "whole")
        before, killed = other.result()
    assert [trial.params for trial in killed.trials] == [trial.params for trial in whole.trials]
    for one, again in zip(whole.trials, killed.trials, strict=True):
        assert one.state == again.state
        losses = [[epoch["validation_loss"] for epoch in trial.epochs] for trial in (one, again)]
        assert losses[0] == losses[1], "bit for bit, on warm workers and after a kill"
    for trial in before.trials:
        if trial.state is not None:
            assert killed.trials[trial.number].epochs == trial.epochs, "no finished trial is trained again"


@pytest.mark.slow
def test_killed_workers_and_trials_are_replaced(
    tmp_path: Path, experiment_file: Callable[[str], Path]
) -> None:
    text = SWEEP.format(arms=TORCH, epochs=40, at_once=2, sweep="budget: {trials: 4}", storage=tmp_path)
    process = start_tandem("sweep", experiment_file(text))

    def epochs() -> int:
        with contextlib.suppress(Exception):
            return history_of(tmp_path).epochs
        return 0

    wait_for(lambda: epochs() >= 4, process)
    training_workers(process)[0].send_signal(signal.SIGKILL)
    wait_for(lambda: epochs() >= 30, process)
    trials = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "Trainable" in " ".join(child.cmdline())
    ]
    trials[0].send_signal(signal.SIGKILL)
    _, err = process.communicate(timeout=540)
    assert process.returncode == 0, err
    history = history_of(tmp_path)
    assert [trial.state for trial in history.trials] == ["done"] * 4
    assert [[epoch["epoch"] for epoch in trial.epochs] for trial in history.trials] == [
        list(range(1, 41))
    ] * 4


MODELS = """
from torch import nn


def build(image_shape, num_classes):
    raise ValueError(f"no weights for {num_classes} classes in [/models] at 0x%x" % id(image_shape))
"""


@pytest.mark.slow
def test_a_sweep_whose_first_trials_all_fail_the_same_way_stops_and_says_so(
    tmp_path: Path, experiment_file: Callable[[str], Path]
) -> None:
    (tmp_path / "models.py").write_text(MODELS)
    arms = "  torch: {framework: torch, model: 'models:build'}"
    text = SWEEP.format(arms=arms, epochs=1, at_once=1, sweep="budget: {trials: 50}", storage=tmp_path)
    done = tandem("sweep", experiment_file(text))
    assert done.returncode == 1
    assert "all failed in the same way, so it was stopped" in done.stderr
    assert "trial 0: failed, ValueError: no weights for 10 classes in [/models] at 0x" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(history_of(tmp_path).trials) == 3


@pytest.mark.slow
def test_trials_that_diverge_count_as_bad_and_the_sweep_goes_on(
    tmp_path: Path, experiment_file: Callable[[str], Path]
) -> None:
    sweep = (
        "points: [{optimizer.learning_rate: 1.0e+6}, {optimizer.learning_rate: 0.1}]\n"
        "  budget: {trials: 3}\n  search: random"
    )
    text = SWEEP.format(arms=TORCH, epochs=2, at_once=1, sweep=sweep, storage=tmp_path)
    script = "import sys, tandem, yaml; print(tandem.sweep(yaml.safe_load(open(sys.argv[1]))).conclusion)"
    file = experiment_file(text.replace("3.0e-1", "1.0e+7"))
    done = subprocess.run(
        [sys.executable, "-c", script, str(file)], capture_output=True, text=True, timeout=540
    )
    assert done.returncode == 0, done.stderr
    assert "torch scored" in done.stdout
    history = history_of(tmp_path)
    assert history.trials[0].state == "diverged"
    assert "the loss became" in (history.trials[0].cause or "")
    assert history.trials[1].state == "done"
    assert "Trials of torch failed" in (tmp_path / "swept" / "report" / "report.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["keras", "torch"])
def test_population_based_training_takes_over_weights(
    tmp_path: Path, experiment_file: Callable[[str], Path], framework: str
) -> None:
    sweep = (
        "budget: {trials: 4}\n  search: random\n  scheduler: {name: pbt, interval: 2, quantile: 0.5}\n"
        "  points: [{optimizer.learning_rate: 0.05}, {optimizer.learning_rate: 0.001}]"
    )
    arms = f"  only: {{framework: {framework}}}"
    text = SWEEP.format(arms=arms, epochs=6, at_once=2, sweep=sweep, storage=tmp_path)
    done = tandem("sweep", experiment_file(text))
    assert done.returncode == 0, done.stderr
    history = history_of(tmp_path, "only")
    assert [trial.state for trial in history.trials] == ["done"] * 4
    changed = [trial for trial in history.trials if trial.copied_from]
    assert changed
    records = ExperimentRecords(Storage(str(next((tmp_path / "swept" / "sweep").iterdir()))))
    for trial in changed:
        taken = trial.copied_from[-1]
        own, donor = records.run(trial.run), records.run(taken["run"])
        copied = [epoch["train_loss"] for epoch in own.epochs()][: taken["epoch"]]
        assert copied == [epoch["train_loss"] for epoch in donor.epochs()][: taken["epoch"]]
        attempts = own.attempts()
        if attempts:
            assert attempts[0]["first_epoch"] == taken["epoch"] + 1, "it goes on from the donor's weights"
            after = own.epochs()[taken["epoch"]]["train_loss"]
            assert after < own.epochs()[0]["train_loss"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "sweep",
    [
        "search: bohb\n  budget: {trials: 6}",
        "scheduler: median\n  budget: {trials: 6}",
        "objective: [validation_balanced_accuracy, train_seconds]\n  budget: {trials: 6}",
        "search: cmaes\n  budget: {trials: 6}",
        "search: nsga2\n  objective: [validation_accuracy, train_seconds]\n  budget: {epochs: 10}",
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_every_algorithm_runs_to_a_report(
    tmp_path: Path, experiment_file: Callable[[str], Path], sweep: str, workers: int
) -> None:
    text = SWEEP.format(arms=TORCH, epochs=4, at_once=2, sweep=sweep, storage=tmp_path)
    done = tandem("sweep", experiment_file(text), "--set", f"scale.workers={workers}")
    assert done.returncode == 0, done.stderr
    history = history_of(tmp_path)
    assert all(trial.state in ("done", "stopped") for trial in history.trials)
    if "objective" in sweep:
        assert "Pareto front" in (tmp_path / "swept" / "report" / "report.html").read_text()
