"""Records of training functions that were never trained, with what they report planted in them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Storage
from tests.unit.synthetic import attempt


@dataclasses.dataclass(frozen=True, kw_only=True)
class Function:
    """A training function's arm."""

    values: Sequence[float]
    """The last value of the metric, one for each seed."""
    name: str = "project.train:loop"
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    epochs: int | None = None
    predictions: Sequence[Mapping[str, np.ndarray]] = ()
    """What each seed hands over; empty for none."""
    further: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Other metrics of each report."""
    reports: int = 4
    seconds: float = 20.0


def make_reported(
    root: Path,
    arms: Mapping[str, Function],
    *,
    metric: Mapping[str, Any],
    experiment: Mapping[str, Any] | None = None,
) -> ExperimentRecords:
    """An experiment of training functions alone; each run comes to its value from twice as far in equal steps."""
    specified = {
        name: {
            "train_loop": arm.name,
            "trainer": "torch",
            "config": dict(arm.config),
            "epochs": arm.epochs,
            "seeds": list(range(len(arm.values))),
        }
        for name, arm in arms.items()
    }
    runs = [(name, seed) for name, arm in arms.items() for seed in range(len(arm.values))]
    records = ExperimentRecords(Storage(str(root)))
    records.begin(
        {
            "experiment": {
                "name": root.name,
                "arms": specified,
                "scale": {"workers": 2, "cpus_per_worker": 1, "gpus_per_worker": 0},
                "metric": dict(metric),
            }
            | dict(experiment or {}),
            "module_path": "/",
            "runs": [{"id": f"{name}-seed{seed}-0", "arm": name, "seed": seed} for name, seed in runs],
            "data": None,
        }
    )
    for name, seed in runs:
        train(root / "runs" / f"{name}-seed{seed}-0", arms[name], seed, str(metric["name"]))
    return records


def train(directory: Path, arm: Function, seed: int, metric: str) -> None:
    directory.mkdir(parents=True)
    last = arm.values[seed]
    lines = [
        {
            "report": number,
            "seconds": arm.seconds * (number + 1) / arm.reports,
            "metrics": {metric: last * (2 - (number + 1) / arm.reports)} | dict(arm.further),
        }
        for number in range(arm.reports)
    ]
    (directory / "reports.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (directory / "attempts.jsonl").write_text(json.dumps(attempt("s1")) + "\n")
    result = {
        "metrics": {metric: last} | dict(arm.further),
        "reports": arm.reports,
        "training_seconds": arm.seconds,
        "startup_seconds": 5.0,
        "workers": 2,
        "trainer": "torch",
    }
    (directory / "result.json").write_text(json.dumps(result))
    if arm.predictions:
        np.savez(directory / "predictions.npz", **arm.predictions[seed])
