"""The test accuracy of examples/best.yaml in both frameworks. A run takes an hour or more on two CPUs."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.results import Measured, Results, table

TITLE = "Best accuracy"
_RUNS = (("torch", 0), ("keras", 0), ("torch", 1), ("torch", 2))
"""One framework has three seeds, the other one, for the time that a run takes."""


def settings(options: harness.Options) -> dict[str, Any]:
    """Smoke trains one epoch on a few images."""
    return {"smoke": options.smoke}


def measure(settings: dict[str, Any], results: Results, data: Path) -> None:
    """Train each run; one that was interrupted resumes after its last epoch."""
    for framework, seed in _RUNS:
        experiment = harness.example("best", data, framework, seed)
        if settings["smoke"]:
            experiment["data"]["limit"] = experiment["defaults"]["batch_size"]
            experiment["defaults"]["epochs"] = 1
        keep = None if settings["smoke"] else harness.SCRATCH / f"best-{framework}-{seed}"
        results.once(
            lambda experiment=experiment, keep=keep: _train(experiment, keep), framework=framework, seed=seed
        )


def _train(experiment: dict[str, Any], keep: Path | None) -> dict[str, Any]:
    (run,) = harness.tandem("run", experiment, keep=keep).runs
    return {
        "test_accuracy": run.result["test_accuracy"],
        "minutes": sum(epoch["data_seconds"] + epoch["step_seconds"] for epoch in run.epochs) / 60,
        "precision": run.attempt["precision"],
    }


def show(measured: Measured) -> str:
    """Mean accuracy of each framework."""
    rows = []
    for framework in ("keras", "torch"):
        runs = measured.values(framework=framework)
        if runs:
            accuracies = [run["test_accuracy"] for run in runs]
            minutes = [run["minutes"] for run in runs]
            seeds = ", ".join(f"{accuracy:.2%}" for accuracy in accuracies)
            rows.append(
                [
                    framework,
                    f"{statistics.mean(accuracies):.2%}",
                    seeds,
                    f"{statistics.mean(minutes):.0f}",
                    runs[0]["precision"],
                ]
            )
    return "Test accuracy of `examples/best.yaml`.\n\n" + table(
        ["framework", "mean", "seeds", "minutes of training", "precision"], rows
    )
