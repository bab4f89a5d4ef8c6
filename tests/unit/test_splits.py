"""Other test images for each seed: folds and resplits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from orchestrator.analysis.statistics import inference
from orchestrator.analysis.statistics.inference import Scores
from tests.conftest import tandem
from tests.unit.images import fill, labels, refused
from trainers.data import Dataset, DataSpec, open_dataset


def of_seed(path: Path, seed: int, **spec: object) -> Dataset:
    return open_dataset(DataSpec(path=path, **spec).of_seed(seed))  # type: ignore[arg-type]


def pictures(dataset: Dataset, split: str) -> set[bytes]:
    return {bytes(image) for image in getattr(dataset, f"{split}_images")}


def photos(root: Path) -> Path:
    for name, count in (("cat", 40), ("dog", 20)):
        fill(root / name, count)
    return root


@pytest.mark.parametrize("way", [{"folds": 5}, {"resplit": True}])
def test_no_image_is_in_two_splits_of_a_run_and_seeds_differ(tmp_path: Path, way: dict[str, object]) -> None:
    photos(tmp_path)
    tested = []
    for seed in range(5):
        dataset = of_seed(tmp_path, seed, **way)
        parts = [pictures(dataset, split) for split in ("train", "validation", "test")]
        assert len(set.union(*parts)) == sum(map(len, parts)) == 60
        assert np.bincount(dataset.test_labels).tolist() == [8, 4], "classes keep their proportions"
        assert np.bincount(labels(dataset)).tolist() == [40, 20]
        assert any("each seed has test images of its own" in note for note in dataset.warnings)
        tested.append(parts[2])
    assert len(set(map(frozenset, tested))) == 5
    if "folds" in way:
        assert len(set.union(*tested)) == 60, "each image is tested once"
        assert pictures(of_seed(tmp_path, 5, **way), "test") == tested[0]
    else:
        plain = open_dataset(DataSpec(path=tmp_path))
        assert pictures(plain, "test") == tested[0], "split 0 is the one that is drawn without resplit"
        assert pictures(open_dataset(DataSpec(path=tmp_path, split=3)), "test") == tested[3]
        assert plain.fingerprint != of_seed(tmp_path, 0, **way).fingerprint


@pytest.mark.parametrize("way", [{"folds": 4}, {"resplit": True}])
def test_groups_stay_together(tmp_path: Path, way: dict[str, object]) -> None:
    for name in ("cat", "dog"):
        for group in range(8):
            fill(tmp_path / name / f"{name}{group}", 3)
    for seed in range(4):
        dataset = of_seed(tmp_path, seed, group_by=r"(\w+\d)/", **way)
        groups = [name.split("/")[1] for name in dataset.test_names]
        assert len(groups) == 3 * len(set(groups)) > 0
        assert dataset.groups is not None and sum(dataset.groups.values()) == 16


def test_what_cannot_be_split_is_refused(tmp_path: Path) -> None:
    photos(tmp_path / "train")
    photos(tmp_path / "test")
    assert "has a test split of its own, which stays the same" in refused(tmp_path, resplit=True)
    fill(tmp_path / "few" / "a", 2)
    fill(tmp_path / "few" / "b", 2)
    with pytest.raises(Exception, match=r"data\.folds 5: there are too few images for so many folds"):
        open_dataset(DataSpec(path=tmp_path / "few", folds=5))
    for wrong, told in (
        ({"folds": 3, "resplit": True}, "exclude each other"),
        ({"folds": 3, "split": 3}, "not one of"),
    ):
        with pytest.raises(ValueError, match=told):
            DataSpec(path=tmp_path, **wrong)  # type: ignore[arg-type]


def test_the_interval_is_that_of_nadeau_and_bengio() -> None:
    one, two = np.array([0.81, 0.84, 0.80, 0.86, 0.83]), np.array([0.80, 0.80, 0.79, 0.82, 0.81])
    sides = [Scores(dict(enumerate(map(float, side))), overlap=0.25) for side in (one, two)]
    found = inference.gap(*sides)
    assert found is not None
    differences = one - two
    half = stats.t.ppf(0.975, 4) * np.sqrt(differences.var(ddof=1) * (1 / 5 + 0.25))
    interval = found.interval(0.05)
    assert (interval.low, interval.high) == pytest.approx(
        (differences.mean() - half, differences.mean() + half)
    )
    plain = inference.gap(*(Scores(scores.by_seed) for scores in sides))
    assert plain is not None
    assert found.p_value() == pytest.approx(
        2 * stats.t.sf(differences.mean() / np.sqrt(differences.var(ddof=1) * 0.45), 4)
    )
    assert (plain.p_value() or 0) < (found.p_value() or 0)


EXPERIMENT = """\
name: folds
data: {source: digits, folds: 3}
defaults: {framework: torch, epochs: 1, seeds: 3, batch_size: 64}
arms:
  slow: {optimizer: {name: sgd, learning_rate: 0.001}}
  fast: {optimizer: {name: sgd, learning_rate: 0.1, momentum: 0.9}}
corruption_robustness: false
storage: results
"""


@pytest.mark.serial
def test_the_verdict_is_over_folds(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    done = tandem("run", "experiment.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    compared = json.loads(done.stdout)
    runs = [run for arm in compared["arms"] for run in arm["runs"]]
    assert len({run["id"] for run in runs}) == 6
    results = [
        json.loads((tmp_path / "results" / "folds" / "runs" / run["id"] / "result.json").read_text())
        for run in runs
    ]
    assert [result["test_images"] for result in results[:3]] == [599, 599, 599]
    confusions = [np.array(result["confusion"]) for result in results]
    of_classes = sum(confusion.sum(axis=1) for confusion in confusions[:3])
    assert of_classes.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180], (
        "each digit is tested once"
    )
    values = [
        [run["test_accuracy"] for run in arm["runs"]]
        for arm in sorted(compared["arms"], key=lambda arm: arm["name"])
    ]
    differences = np.array(values[0]) - np.array(values[1])
    (pair,) = compared["pairs"]
    data = json.loads((tmp_path / "results" / "folds" / "experiment.json").read_text())["data"]
    overlap = data["test_images"] / data["train_images"]
    half = stats.t.ppf(0.975, 2) * np.sqrt(differences.var(ddof=1) * (1 / 3 + overlap))
    gap = pair["gap"]
    assert abs(gap["mean"]) == pytest.approx(abs(differences.mean()))
    assert max(gap["high"] - gap["mean"], gap["mean"] - gap["low"]) == pytest.approx(half), (
        "one end may be cut at 1"
    )
