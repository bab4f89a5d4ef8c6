"""Records of experiments that were never trained, with results planted in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.experiment.spec import Arm, Experiment
from orchestrator.planning import run_plan
from orchestrator.store.records import ExperimentRecords, RunRecords
from orchestrator.store.storage import Storage
from trainers import checkpoints
from trainers.contract import EpochMetrics
from trainers.data.corruptions import CORRUPTIONS
from trainers.inputs import InputTransform

CLASSES = ["cat", "dog", "<script>alert(1)</script>"]
IMAGES = 1000
LABELS = np.arange(IMAGES) % len(CLASSES)


def make_records(
    root: Path,
    accuracies: Mapping[str, Sequence[float]],
    *,
    epochs: int = 3,
    arms: Mapping[str, Mapping[str, Any]] | None = None,
    validation: bool = True,
    speed: Mapping[str, float | Sequence[float]] | None = None,
    step_seconds: float = 1.0,
    others: Mapping[str, float] | None = None,
) -> ExperimentRecords:
    """One arm for each key, one seed for each accuracy; an arm's speed is one for all seeds, or one for each.

    Accuracies are thousandths, since there are 1,000 test images; the first ones are classified correctly.
    """
    specified = {
        name: Arm(
            **{
                "framework": "keras" if place == 0 else "torch",
                "seeds": list(range(len(values))),
                "epochs": epochs,
            }
            | dict((arms or {}).get(name, {}))
        )
        for place, (name, values) in enumerate(accuracies.items())
    }
    experiment = Experiment(name=root.name, arms=specified, storage=str(root.parent))
    records = ExperimentRecords(Storage(str(root)))
    runs = run_plan.expand(experiment, "fingerprint")
    records.begin(
        {
            "experiment": experiment.model_dump(mode="json"),
            "module_path": "/",
            "runs": [
                {"id": run.id, "arm": run.arm, "framework": run.framework, "seed": run.seed} for run in runs
            ],
            "data": {
                "fingerprint": "f" * 64,
                "class_names": CLASSES,
                "image_shape": [4, 4, 1],
                "train_images": 900,
                "validation_images": 100 if validation else 0,
                "test_images": IMAGES,
                "groups": {"train": 90, "validation": 10, "test": 30},
                "warnings": [],
            },
        }
    )
    records.add_session(
        {
            "driver_session": "s1",
            "started_at": 0.0,
            "command": ["tandem", "run", "a b.yaml"],
            "environment": {
                "python": "3.11",
                "system": "Linux",
                "machine": "x86_64",
                "cpu": "a CPU",
                "cpus": 2,
                "gpus": [],
                "memory_gib": 8,
                "packages": {"ray": "2.60.0"},
                "commit": None,
            },
        }
    )
    records.keep_disagreements(
        {
            "indices": np.array([], np.int64),
            "labels": np.array([], np.int64),
            "images": np.zeros((0, 4, 4, 1), np.uint8),
            "test_labels": LABELS,
        }
    )
    for run in runs:
        place = specified[run.arm].seeds.index(run.seed)
        speeds = (speed or {}).get(run.arm, 1000.0)
        train(
            records.run(run.id),
            accuracies[run.arm][place],
            epochs,
            validation,
            speeds if isinstance(speeds, float | int) else speeds[place],
            step_seconds,
            (others or {}).get(run.arm, 0.01),
        )
    return records


def train(
    run: RunRecords,
    accuracy: float,
    epochs: int,
    validation: bool,
    speed: float,
    step_seconds: float,
    others: float,
) -> None:
    run.add_attempt(attempt("s1"))
    measured = [
        EpochMetrics(
            epoch=epoch,
            step=epoch * 10,
            train_loss=2 / epoch,
            train_accuracy=accuracy * epoch / epochs,
            validation_loss=2 / epoch if validation else None,
            validation_accuracy=accuracy * epoch / epochs if validation else None,
            validation_balanced_accuracy=accuracy * epoch / epochs if validation else None,
            learning_rate=0.1,
            images_per_second=speed / (2 if epoch == 1 else 1),
            data_seconds=0.1,
            step_seconds=step_seconds,
            compile_seconds=0.35 if epoch == 1 else 0.0,
            evaluation_seconds=0.2,
        )
        for epoch in range(1, epochs + 1)
    ]
    adopted, added = measured[:-3], measured[-3:]
    if adopted:
        state = checkpoints.pack({"w": np.full(3, len(adopted))})
        run.adopt(
            *state, [dataclasses.asdict(metrics) | extra_of(metrics.epoch, others) for metrics in adopted]
        )
    for metrics in added:
        run.add_epoch(
            metrics, {"w": np.full(3, metrics.epoch)}, extra_of(metrics.epoch, others), best=metrics.epoch
        )
    finish(run, planted_predictions(accuracy), accuracy)


def planted_predictions(accuracy: float) -> np.ndarray:
    """Predictions for the test images, of which so many are correct; the others are the next class."""
    return np.where(np.arange(IMAGES) < round(accuracy * IMAGES), LABELS, (LABELS + 1) % len(CLASSES))


def finish(run: RunRecords, predicted: np.ndarray, robust: float) -> None:
    """Write a final test with such predictions."""
    confusion = np.zeros((len(CLASSES), len(CLASSES)), int)
    np.add.at(confusion, (LABELS, predicted), 1)
    run.finish(
        {
            "test_loss": 1.0,
            "test_accuracy": float(np.mean(predicted == LABELS)),
            "confusion": confusion.tolist(),
            "test_images": IMAGES,
            "test_seconds": 0.5,
            "corruption_robustness": {
                kind: [robust, *(max(robust - loss, 0.0) for loss in (0.1, 0.2, 0.3))] for kind in CORRUPTIONS
            },
            "parameters": 1234,
            "forward_flops": 1_000_000,
            "matmul_flops": 1.2e10,
            "latency_seconds": 0.0025,
            "predictions_per_second": 1600.0,
            "device_memory_peak_bytes": None,
            "finished_at": 1.0,
        },
        {"predicted": predicted, "confidences": np.full(IMAGES, 0.9, np.float32)},
        InputTransform(scale=np.ones(3, np.float32), offset=np.zeros(3, np.float32)),
    )


def extra_of(epoch: int, others: float) -> dict[str, float]:
    return {
        "seconds_since_start": epoch,
        "checkpoint_seconds": 0.05,
        "memory_peak_bytes": float(2**30),
        "energy_joules": 7200.0,
        "others_share": others,
    }


def attempt(driver_session: str, *, first_epoch: int = 1, precision: str = "float32") -> dict[str, Any]:
    return {
        "precision": precision,
        "driver_session": driver_session,
        "started_at": 0.0,
        "first_epoch": first_epoch,
        "workers": 2,
        "environment": {},
        "startup": {
            "workers_seconds": 3.0,
            "import_seconds": 1.0,
            "data_seconds": 0.5,
            "build_seconds": 0.5,
        },
    }
