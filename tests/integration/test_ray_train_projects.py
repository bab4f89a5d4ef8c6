"""Functions that use Ray Train as public projects do run as arms, unchanged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.store.records import ExperimentRecords, RunRecords
from orchestrator.store.storage import Storage
from tests.conftest import tandem

pytestmark = [pytest.mark.serial, pytest.mark.ray]

PROJECTS = Path(__file__).parent / "projects"
UNKNOWN_KEYS_REFUSED = {"bind": {"seed": None}}


def train(directory: Path, arms: dict[str, dict[str, Any]], **fields: Any) -> dict[str, RunRecords]:
    """Train each arm with one seed; returns the runs by arm."""
    document = {
        "name": "projects",
        "arms": {name: {"trainer": "torch", "seeds": [0]} | arm for name, arm in arms.items()},
        "storage": str(directory),
    }
    file = PROJECTS / f"{directory.name}.yaml"  # beside the modules, as a user's file is
    file.write_text(yaml.safe_dump(document | fields))
    try:
        done = tandem("run", file)
    finally:
        file.unlink()
    assert done.returncode == 0, done.stderr
    records = ExperimentRecords(Storage(str(directory / "projects")))
    return {run["arm"]: records.run(run["id"]) for run in records.document()["runs"]}


def losses(run: RunRecords) -> list[float]:
    return [report["metrics"]["loss"] for report in run.reports()]


@pytest.mark.slow
def test_pytorch_projects(tmp_path: Path) -> None:
    module = "torch_projects"
    runs = train(
        tmp_path,
        {
            "mnist": {
                "train_loop": f"{module}:mnist",
                "config": {"lr": 0.01, "batch_size_per_worker": 32},
                "bind": {"epochs": "epochs"},
                "epochs": 2,
            },
            "image-classifier": {
                "train_loop": f"{module}:image_classifier",
                "config": {"lr": 0.01, "momentum": 0.9, "batch_size": 8, "num_epochs": 2},
                "checkpoint": {"keep": 1},
            },
            "with-checkpoints": {
                "train_loop": f"{module}:with_checkpoints",
                "config": {"epochs": 3},
                "checkpoint": {"keep": 2, "metric": "loss"},
            },
            "distributed-batches": {
                "train_loop": f"{module}:distributed_batches",
                "config": {"global_batch_size": 64, "num_epochs": 2},
            },
        },
        scale={"workers": 2},
        metric={"name": "loss", "goal": "minimize"},
    )
    assert {name: len(losses(run)) for name, run in runs.items()} == {
        "mnist": 2,
        "image-classifier": 2,
        "with-checkpoints": 3,
        "distributed-batches": 2,
    }
    assert all(report["checkpoint"] is None for report in runs["mnist"].reports())
    kept = {
        name: [path.name for path in (tmp_path / "projects" / "runs" / run.id).iterdir() if path.is_dir()]
        for name, run in runs.items()
    }
    assert len(kept["image-classifier"]) == 1 and len(kept["distributed-batches"]) == 2
    best = sorted(runs["with-checkpoints"].reports(), key=lambda report: report["metrics"]["loss"])[:2]
    assert {report["checkpoint"] for report in best} <= {*kept["with-checkpoints"]}, (
        "the lower losses are the best"
    )


def test_a_project_that_reports_nothing_is_compared_by_its_time(tmp_path: Path) -> None:
    runs = train(
        tmp_path,
        {"fashion": {"train_loop": "torch_projects:fashion"} | UNKNOWN_KEYS_REFUSED},
        metric={"name": "training_seconds", "goal": "minimize"},
    )
    result = runs["fashion"].result()
    assert result is not None and result["reports"] == 0
    assert 0 < result["metrics"]["training_seconds"] < 60


def needs_a_cpu_for_datasets() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("Ray Data needs a CPU beside the worker's")


@pytest.mark.slow
def test_a_lightning_project_on_ray_data(tmp_path: Path) -> None:
    needs_a_cpu_for_datasets()
    module = "lightning_projects"
    arm = {
        "train_loop": f"{module}:text_classifier",
        "datasets": f"{module}:token_datasets",
        "config": {"lr": 0.01, "batch_size": 16, "max_epochs": 2},
        "checkpoint": {"keep": 2, "metric": "val_accuracy"},
    }
    (run,) = train(tmp_path, {"text": arm}, metric={"name": "val_accuracy", "goal": "maximize"}).values()
    assert len(run.reports()) == 2
    assert {"val_accuracy", "train_loss", "epoch", "step"} <= run.reports()[0]["metrics"].keys()


@pytest.mark.slow
def test_a_keras_project_on_ray_data(tmp_path: Path) -> None:
    needs_a_cpu_for_datasets()
    arm = {
        "train_loop": "keras_projects:fraud",
        "trainer": "keras",
        "datasets": "keras_projects:transactions",
        "config": {"epochs": 2},
    }
    (run,) = train(tmp_path, {"fraud": arm}, metric={"name": "loss", "goal": "minimize"}).values()
    assert len(losses(run)) == 2
    assert run.reports()[-1]["checkpoint"] is not None
