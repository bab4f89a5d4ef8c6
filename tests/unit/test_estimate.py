"""Estimates from records whose times are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator import workflows
from orchestrator.experiment import reader
from orchestrator.planning import estimate
from orchestrator.store.storage import Storage

EXPERIMENT = {
    "name": "new",
    "data": {"source": "digits"},
    "arms": {"torch": {"framework": "torch", "model": "tutorial_cnn", "epochs": 10, "seeds": [0, 1]}},
    "scale": {"price_per_worker_hour": 3.6},
}


def earlier(root: Path, name: str, *, epoch_seconds: float, start_seconds: float = 5.0) -> None:
    """A run of three epochs over 1,000 images."""
    document = reader.load_mapping(EXPERIMENT | {"name": name}).model_dump(mode="json")
    arm = document["arms"]["torch"]
    run = root / name / "runs" / "torch-seed0"
    run.mkdir(parents=True)
    data = {"image_shape": [8, 8, 1], "train_images": 1000}
    runs = [{"id": "torch-seed0", "arm": "torch", "framework": "torch", "seed": 0}]
    (root / name / "experiment.json").write_text(
        json.dumps({"experiment": document, "data": data, "runs": runs})
    )
    (run / "run.json").write_text(json.dumps({"recipe": arm}))
    (run / "attempts.jsonl").write_text(json.dumps({"startup": {"workers_seconds": start_seconds}}) + "\n")
    ends = [epoch_seconds * (number + 1) + 1 for number in range(3)]  # the first takes a second more
    lines = [json.dumps({"epoch": number + 1, "seconds_since_start": end}) for number, end in enumerate(ends)]
    (run / "epochs.jsonl").write_text("\n".join(lines) + "\n")


def estimated(root: Path, *, images: int = 2000, fit: int = 1) -> estimate.Estimate | None:
    return estimate.from_records(
        reader.load_mapping(EXPERIMENT),
        Storage(str(root)),
        train_images=images,
        image_shape=(8, 8, 1),
        fit=fit,
    )


def test_time_and_cost_follow_from_what_earlier_runs_took(tmp_path: Path) -> None:
    earlier(tmp_path, "before", epoch_seconds=2.0)
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "experiment.json").write_text('{"experiment": "of another program"}')
    expected = estimated(tmp_path)
    assert expected is not None
    # 2 seeds x 10 epochs x 2,000 images x 2 ms, and a start of 5 s and a first epoch's 1 s
    assert expected.seconds == pytest.approx(86.0)
    assert expected.cost == pytest.approx(86.0 / 3600 * 3.6)
    halved = estimated(tmp_path, fit=2)
    assert halved is not None and halved.seconds == pytest.approx(46.0)


@pytest.mark.parametrize(("stopping", "words"), [(None, "time: about "), ({"patience": 3}, "time: at most ")])
def test_early_stopping_makes_it_a_bound(tmp_path: Path, stopping: dict[str, int] | None, words: str) -> None:
    earlier(tmp_path, "before", epoch_seconds=2.0)
    arms = {"torch": EXPERIMENT["arms"]["torch"] | {"early_stopping": stopping}}  # type: ignore[index]
    experiment = reader.load_mapping(EXPERIMENT | {"arms": arms, "storage": str(tmp_path)})
    assert any(line.startswith(words) for line in workflows.check(experiment, fit=1, module_path=Path()))


@pytest.mark.parametrize(
    ("budget", "epochs", "seconds"),
    [
        ({"trials": 12}, None, 12 * 10 * 2.5 / 2),
        ({"trials": 12}, [5, 20], 12 * 20 * 2.5 / 2),
        ({"trials": 12, "epochs": 60}, None, 60 * 2.5 / 2),
        ({"trials": 12, "minutes": 1}, None, 60.0),
        ({"trials": 12, "cost": 0.1}, None, 0.1 / 3.6 * 3600 / 2),
    ],
)
def test_a_search_is_bounded_by_its_budget(
    tmp_path: Path, budget: dict[str, float], epochs: list[int] | None, seconds: float
) -> None:
    earlier(tmp_path, "before", epoch_seconds=2.5)  # over 1,000 images
    space = {"optimizer.learning_rate": {"loguniform": [1e-4, 1e-1]}} | ({"epochs": epochs} if epochs else {})
    sweep = {"space": space, "budget": budget, "search": "random"}
    experiment = reader.load_mapping(EXPERIMENT | {"sweep": sweep})
    expected = estimate.from_records(
        experiment, Storage(str(tmp_path)), train_images=1_000, image_shape=(8, 8, 1), fit=2
    )
    assert expected is not None
    assert expected.search_seconds == pytest.approx(seconds)
    assert expected.search_cost == pytest.approx(seconds * 2 / 3600 * 3.6)
    told = list(
        workflows.check(experiment.model_copy(update={"storage": str(tmp_path)}), fit=2, module_path=tmp_path)
    )
    assert told[-2].startswith("time of the search: at most ") and ", cost " in told[-2]
    assert told[-1].startswith("time after the search: about ")


def test_the_error_is_what_earlier_runs_differ_by(tmp_path: Path) -> None:
    earlier(tmp_path, "slow", epoch_seconds=3.0)
    earlier(tmp_path, "fast", epoch_seconds=1.0)
    expected = estimated(tmp_path)
    assert expected is not None and expected.runs_seen == 2
    assert expected.relative_error == pytest.approx(0.5)


def test_records_of_a_newer_version_count_as_far_as_they_are_known(tmp_path: Path) -> None:
    earlier(tmp_path, "before", epoch_seconds=2.0)
    file = tmp_path / "before" / "experiment.json"
    document = json.loads(file.read_text())
    document["experiment"]["scale"]["warp"] = 9
    file.write_text(json.dumps(document))
    expected = estimated(tmp_path)
    assert expected is not None and expected.runs_seen == 1


def test_other_work_is_nothing_to_go_by(tmp_path: Path) -> None:
    assert estimated(tmp_path) is None
    earlier(tmp_path, "before", epoch_seconds=2.0)
    other = reader.load_mapping(EXPERIMENT | {"arms": {"torch": {"framework": "torch", "model": "lenet5"}}})
    found = estimate.from_records(
        other, Storage(str(tmp_path)), train_images=1000, image_shape=(8, 8, 1), fit=1
    )
    assert found is None
