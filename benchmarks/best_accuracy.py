"""The best that the `fast` recipe gets out of resnet9 on CIFAR-10, in both frameworks."""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

import yaml

from benchmarks import harness
from orchestrator.execution import environment

_NAME = "best_accuracy"
_RUNS = (("torch", 0), ("keras", 0), ("torch", 1), ("torch", 2))
"""A run takes the better part of an hour, so one framework gets three seeds and the other one."""
_HEADER = ["framework", "seed", "test accuracy", "minutes of training", "computed in", "on", "date"]
_TARGET = 0.91


def main(*, pairs: int) -> None:
    """Train examples/best.yaml four times, and keep each run as it ends.

    Runs that are kept already are not trained again; remove benchmarks/results/best_accuracy.json for that.
    One that was interrupted goes on after its last epoch; remove build/best_accuracy to begin it anew.

    Args:
        pairs: runs to train this time, at most.
    """
    experiment: dict[str, Any] = yaml.safe_load((harness.ROOT / "examples" / "best.yaml").read_text())
    experiment["data"]["path"] = str(harness.DATA)
    experiment.pop("name")
    rows = _kept()
    known = {(row[0], int(row[1])) for row in rows}
    for framework, seed in [run for run in _RUNS if run not in known][:pairs]:
        rows.append(_train(experiment, framework, seed))
        harness.keep(
            _NAME,
            "Best accuracy",
            f"examples/best.yaml: resnet9, {experiment['defaults']['epochs']} epochs. {_summary(rows)}",
            _HEADER,
            rows,
        )


def _kept() -> list[list[str]]:
    file = harness.RESULTS / f"{_NAME}.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    return kept["rows"] if kept.get("header") == _HEADER else []


def _train(experiment: dict[str, Any], framework: str, seed: int) -> list[str]:
    arms = {framework: experiment["arms"][framework] | {"seeds": [seed]}}
    kept_in = harness.ROOT / "build" / _NAME / f"{framework}-{seed}"
    (run,) = harness.tandem(experiment | {"arms": arms}, kept_in=kept_in).runs
    minutes = sum(epoch["data_seconds"] + epoch["step_seconds"] for epoch in run["epochs"]) / 60
    return [
        framework,
        str(seed),
        f"{run['result']['test_accuracy']:.2%}",
        f"{minutes:.0f}",
        run["attempts"][-1]["precision"],
        environment.describe()["cpu"],
        time.strftime("%Y-%m-%d"),
    ]


def _summary(rows: list[list[str]]) -> str:
    seeds: dict[str, list[float]] = {}
    for framework, _, accuracy, *_ in rows:
        seeds.setdefault(framework, []).append(float(accuracy.rstrip("%")) / 100)
    means = {framework: statistics.mean(accuracies) for framework, accuracies in seeds.items()}
    sentences = [
        f"{framework}: {mean:.2%}, ≥ {_TARGET:.0%} {'met' if mean >= _TARGET else 'missed'}."
        for framework, mean in means.items()
    ]
    if len(means) == 2:
        gap = abs(means["torch"] - means["keras"])
        sentences.append(f"The frameworks are {gap * 100:.2f} points apart.")
        if any(len(accuracies) > 1 for accuracies in seeds.values()):
            spread = max(max(accuracies) - min(accuracies) for accuracies in seeds.values())
            sentences.append(f"The seeds of one are up to {spread * 100:.2f} apart.")
    return " ".join(sentences)
