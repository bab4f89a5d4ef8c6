"""The examples of training functions of the user's own, each to a report."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from orchestrator.store.records import ExperimentRecords, RunRecords
from orchestrator.store.storage import Storage
from tests.conftest import ROOT, start_tandem, tandem
from tests.integration.test_faults import training_workers, wait_for

pytestmark = [pytest.mark.serial, pytest.mark.ray, pytest.mark.slow]

EXAMPLES = ROOT / "examples" / "own-training"
TWO_CPUS = len(os.sched_getaffinity(0)) >= 2


def run(example: str, directory: Path, *overrides: str) -> dict[str, Any]:
    """The results of an example, as JSON."""
    settings = [part for override in overrides for part in ("--set", override)]
    done = tandem(
        "run",
        EXAMPLES / f"{example}.yaml",
        "--json",
        "--set",
        f"storage={directory}",
        *settings,
        timeout=1100,
    )
    assert done.returncode == 0, done.stderr
    assert (directory / json.loads(done.stdout)["name"] / "report" / "report.html").exists()
    results: dict[str, Any] = json.loads(done.stdout)
    return results


@pytest.mark.parametrize(
    ("example", "arms"),
    [
        ("digits_torch", ["plain", "dropout"]),
        ("docstrings", ["small", "large"]),
        ("digits_lightning", ["fast", "slow"]),
        pytest.param(
            "diabetes",
            ["small", "large"],
            marks=pytest.mark.skipif(not TWO_CPUS, reason="Ray Data needs a CPU"),
        ),
        pytest.param(
            "digits_keras",
            ["adam-fast", "adam-slow"],
            marks=pytest.mark.skipif(not TWO_CPUS, reason="two workers need two CPUs"),
        ),
    ],
)
def test_an_example_reaches_a_report(tmp_path: Path, example: str, arms: list[str]) -> None:
    if example == "digits_lightning" and find_spec("lightning") is None:
        pytest.skip("Lightning is not installed")
    results = run(example, tmp_path, "arms.*.seeds=[0, 1]")
    assert [arm["name"] for arm in results["arms"]] == arms
    for arm in results["arms"]:
        assert [trained["state"] for trained in arm["runs"]] == ["done", "done"]
    predictions = [*tmp_path.glob("*/runs/*/predictions.npz")]
    assert len(predictions) == (4 if example in ("digits_torch", "diabetes") else 0)


def test_a_killed_worker_of_an_example_resumes_from_its_own_checkpoint(tmp_path: Path) -> None:
    settings = (
        "plain.epochs=8",
        "plain.seeds=[0]",
        "dropout.seeds=[0]",
        "dropout.epochs=1",
        f"storage={tmp_path}",
    )
    process = start_tandem(
        "run", EXAMPLES / "digits_torch.yaml", *(part for setting in settings for part in ("--set", setting))
    )

    def plain() -> RunRecords | None:
        with contextlib.suppress(Exception):
            records = ExperimentRecords(Storage(str(tmp_path / "own-digits")))
            return records.run(records.document()["runs"][0]["id"])
        return None

    wait_for(lambda: (run := plain()) is not None and len(run.reports()) >= 3, process)
    run = plain()
    assert run is not None
    for worker in training_workers(process):
        worker.send_signal(signal.SIGKILL)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert len(run.attempts()) == 2
    assert run.attempts()[1]["checkpoint"] is not None
    assert [report["report"] for report in run.reports()] == [*range(8)]
    accuracies = [report["metrics"]["test_accuracy"] for report in run.reports()]
    assert min(accuracies[3:]) > accuracies[0], "the weights were restored"


def test_the_tutorials_as_functions_are_as_accurate_as_the_recipes(tmp_path: Path) -> None:
    digits = load_digits()
    images = np.kron(digits.images * (255 / 16), np.ones((1, 4, 4))).astype(np.uint8)
    images = np.repeat(images[..., None], 3, axis=3)
    archive = tmp_path / "digits.npz"
    np.savez(
        archive,
        x_train=images[:1400],
        y_train=digits.target[:1400],
        x_test=images[1400:],
        y_test=digits.target[1400:],
    )
    functions = ("keras-function", "torch-function")
    results = run(
        "tutorials",
        tmp_path,
        f"data.path={archive}",
        *(f"arms.{name}.config.data={archive}" for name in functions),
        *(f"arms.{name}.config.epochs=3" for name in functions),
        *(f"arms.{framework}-recipe.epochs=3" for framework in ("keras", "torch")),
        "corruption_robustness=false",
    )
    accuracies = {
        arm["name"]: [trained["metrics"]["test_accuracy"] for trained in arm["runs"]]
        for arm in results["arms"]
    }
    for framework in ("keras", "torch"):
        recipe, function = accuracies[f"{framework}-recipe"], accuracies[f"{framework}-function"]
        pooled = ((statistics.variance(recipe) + statistics.variance(function)) / 2) ** 0.5
        difference = statistics.mean(recipe) - statistics.mean(function)
        print(
            f"{framework}: recipe {recipe}, function {function}, difference {difference:.4f}, pooled {pooled:.4f}"
        )
        assert abs(difference) <= 2 * pooled
    report = (tmp_path / "own-tutorials" / "report" / "report.md").read_text()
    assert "parity" in report.lower()
