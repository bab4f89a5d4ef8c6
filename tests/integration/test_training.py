"""Real training on real local Ray, through the command that users type."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from orchestrator.store.records import ExperimentRecords, RunRecords
from tests.conftest import tandem

pytestmark = [pytest.mark.serial, pytest.mark.ray]


def runs(records: ExperimentRecords) -> dict[str, RunRecords]:
    return {run["arm"]: records.run(run["id"]) for run in records.document()["runs"]}


@pytest.mark.parametrize("arm", ["keras", "torch", "keras-norm"])
def test_two_workers_give_the_loss_of_one(trained: dict[int, ExperimentRecords], arm: str) -> None:
    one, two = (runs(trained[workers])[arm].epochs() for workers in (1, 2))
    assert [epoch["epoch"] for epoch in one] == [epoch["epoch"] for epoch in two]
    assert two[0]["train_loss"] == pytest.approx(one[0]["train_loss"], rel=1e-3)
    assert two[0]["validation_loss"] == pytest.approx(one[0]["validation_loss"], rel=1e-2)


def test_without_synchronization_the_statistics_are_those_of_a_workers_share(
    trained: dict[int, ExperimentRecords],
) -> None:
    one, two = (runs(trained[workers])["torch-norm"].epochs() for workers in (1, 2))
    assert abs(two[0]["train_loss"] / one[0]["train_loss"] - 1) > 1e-3


@pytest.mark.parametrize("workers", [1, 2])
def test_both_frameworks_do_the_same_work(trained: dict[int, ExperimentRecords], workers: int) -> None:
    by_arm = runs(trained[workers])
    keras, torch = (by_arm[arm].epochs()[0] for arm in ("keras", "torch"))
    assert keras["train_loss"] == pytest.approx(torch["train_loss"], rel=5e-3), "Adam's epsilon aside"


@pytest.mark.parametrize("workers", [1, 2])
def test_every_test_image_is_counted_once(trained: dict[int, ExperimentRecords], workers: int) -> None:
    records = trained[workers]
    images = records.document()["data"]["test_images"]
    for run in runs(records).values():
        result, predictions = run.result(), run.predictions()
        assert result is not None
        assert predictions is not None
        confusion = np.array(result["confusion"])
        assert confusion.sum() == images == len(predictions["predicted"])
        assert result["test_accuracy"] == pytest.approx(np.trace(confusion) / images)
        assert np.bincount(predictions["predicted"], minlength=10).tolist() == confusion.sum(axis=0).tolist()
        assert predictions["confidences"].min() > 0.09


def test_training_learns(trained: dict[int, ExperimentRecords]) -> None:
    for arm, run in runs(trained[1]).items():
        if not arm.endswith("norm"):
            first, *_, last = run.epochs()
            assert last["train_loss"] < 0.95 * first["train_loss"]


def test_times_and_environment_are_recorded(trained: dict[int, ExperimentRecords]) -> None:
    for run in runs(trained[2]).values():
        for epoch in run.epochs():
            seconds = epoch["data_seconds"] + epoch["step_seconds"]
            assert epoch["images_per_second"] == pytest.approx(450 / seconds, rel=0.01)
            assert abs(epoch["validation_balanced_accuracy"] - epoch["validation_accuracy"]) < 0.1
            assert epoch["evaluation_seconds"] > 0
        result = run.result()
        assert result is not None
        assert result["predictions_per_second"] * result["latency_seconds"] > 1, (
            "a batch costs less than its images alone"
        )
        (attempt,) = run.attempts()
        assert attempt["workers"] == 2
        assert attempt["environment"]["packages"]["ray"]
    sessions = trained[2].sessions()
    assert sessions[0]["command"][:2] == ["tandem", "run"]
    assert sessions[0]["environment"]["cpus"] >= 1


def test_the_report_is_made_and_can_be_made_again(
    trained: dict[int, ExperimentRecords],
) -> None:
    directory = Path(trained[2].storage.url)
    before = (directory / "report" / "report.html").read_bytes()
    again = tandem("report", directory, "--json")
    assert again.returncode == 0, again.stderr
    assert {arm["name"] for arm in json.loads(again.stdout)["arms"]} == set(runs(trained[2]))
    assert (directory / "report" / "report.html").read_bytes() == before


def test_running_again_trains_nothing_again(trained: dict[int, ExperimentRecords]) -> None:
    directory = Path(trained[1].storage.url)
    before = {path: path.stat().st_mtime_ns for path in (directory / "runs").rglob("*")}
    finished = tandem("run", directory.parent / "workers-1.yaml")
    assert finished.returncode == 0, finished.stderr
    assert {path: path.stat().st_mtime_ns for path in (directory / "runs").rglob("*")} == before
