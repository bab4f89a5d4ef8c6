"""What arms took, from records in which it was planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator import report
from orchestrator.analysis import compare
from orchestrator.analysis.performance import ArmPerformance, Performance
from orchestrator.store.records import ExperimentRecords
from tests.unit.synthetic import make_records

ACCURACIES = {"keras": [0.6, 0.75, 0.9], "torch": [0.9, 0.9, 0.9]}
EPOCH = 0.1 + 1.0 + 0.2 + 0.05
COMPILATION = 0.35
STARTUP = 5.0


def recorded(tmp_path: Path, **experiment: Any) -> ExperimentRecords:
    """Each run comes to a third, two thirds and all of its accuracy after 1, 2 and 3 epochs."""
    records = make_records(tmp_path / "x", ACCURACIES)
    document = records.document()
    scale = document["experiment"]["scale"] | experiment.pop("scale", {})
    document["experiment"] |= experiment | {"scale": scale}
    records.storage.write_json("experiment.json", document)
    return records


def measured(records: ExperimentRecords) -> Performance:
    return compare.analyse(records).performance


def of_keras(records: ExperimentRecords) -> ArmPerformance:
    return measured(records).arms["keras"]


def test_times_are_told_to_what_every_run_reached(tmp_path: Path) -> None:
    found = measured(recorded(tmp_path))
    assert (found.target, found.split) == (0.6, "validation")
    keras, torch = found.arms["keras"].target_seconds, found.arms["torch"].target_seconds
    assert keras is not None and torch is not None
    assert keras.interval.mean == pytest.approx(STARTUP + COMPILATION + EPOCH * (3 + 3 + 2) / 3)
    assert keras.interval.low is not None and keras.interval.low < keras.interval.mean
    assert keras.deviation == pytest.approx(EPOCH / 3**0.5)
    assert torch.interval.mean == pytest.approx(STARTUP + COMPILATION + EPOCH * 2)
    whole = found.arms["keras"].end_seconds
    assert whole is not None and whole.interval.mean == pytest.approx(STARTUP + COMPILATION + EPOCH * 3 + 0.5)


def test_a_target_that_some_runs_miss_has_no_time(tmp_path: Path) -> None:
    records = recorded(tmp_path, target_accuracy=0.7)
    arm = of_keras(records)
    assert arm.target_seconds is None and arm.reached == 2
    report.write(records)
    assert "reached by 2 of 3 runs" in (tmp_path / "x/report/report.md").read_text()


def test_cost_energy_memory_and_arithmetic(tmp_path: Path) -> None:
    arm = of_keras(recorded(tmp_path, scale={"price_per_worker_hour": 36.0}))
    assert arm.cost is not None and arm.energy_joules is not None
    assert arm.cost.interval.mean == pytest.approx(
        (STARTUP + COMPILATION + 3 * EPOCH + 0.5) / 100 * 2
    )  # two workers
    assert arm.energy_joules.interval.mean == pytest.approx(3 * 7200)
    assert arm.memory_peak_bytes == 2**30
    assert arm.training_flops == 3 * 1_000_000 * 900 * 3
    assert arm.flops_per_second == pytest.approx(3 * 1_000_000 * 1000.0)
    assert arm.model_flops_utilisation == pytest.approx(3e9 / 1.2e10)
    assert (arm.latency_seconds, arm.predictions_per_second) == (0.0025, 1600)
    assert arm.seconds == pytest.approx(
        {
            "start-up": 5,
            "data": 0.3,
            "steps": 3,
            "compilation": 0.35,
            "evaluation": 0.6,
            "checkpoints": 0.15,
            "test": 0.5,
        }
    )


def test_a_run_that_ended_early_is_counted_as_it_was(tmp_path: Path) -> None:
    stopped = {"epochs": 50, "early_stopping": {"patience": 1}}
    records = make_records(
        tmp_path / "x", {"keras": [0.5, 0.6], "torch": [0.6, 0.7]}, arms={"keras": stopped}
    )
    comparison = report.write(records)
    assert of_keras(records).training_flops == 3 * 1_000_000 * 900 * 3
    assert [run.tested_epoch for run in comparison.arms[0].runs] == [3, 3], (
        "older records do not tell: the last"
    )
    page = (tmp_path / "x/report/report.html").read_text()
    assert "epochs are recorded" not in page
    assert "early stopping" in page and "patience 1" in page


def test_what_older_records_do_not_tell_is_left_out(tmp_path: Path) -> None:
    records = recorded(tmp_path)
    for run in (tmp_path / "x/runs").iterdir():
        kept = ExperimentRecords(records.storage).run(run.name)
        result = kept.result()
        assert result is not None
        for field in (
            "forward_flops",
            "matmul_flops",
            "device_memory_peak_bytes",
            "corruption_robustness",
            "latency_seconds",
            "predictions_per_second",
        ):
            del result[field]
        records.storage.write_json(f"runs/{run.name}/result.json", result)
        epochs = (run / "epochs.jsonl").read_text()
        (run / "epochs.jsonl").write_text(epochs.replace("energy_joules", "x").replace("memory_peak", "y"))
    document = records.document()
    del document["data"]["groups"]
    records.begin(document)
    arm = of_keras(records)
    assert (arm.cost, arm.energy_joules, arm.memory_peak_bytes) == (None, None, None)
    assert (arm.training_flops, arm.flops_per_second, arm.model_flops_utilisation) == (None, None, None)
    report.write(records)
    page = (tmp_path / "x/report/report.html").read_text()
    assert (
        "Time, memory and cost" in page and "Corruption robustness" not in page and "; groups: " not in page
    )
    assert "MFU</th>" not in page and "predictions/s</th>" not in page
