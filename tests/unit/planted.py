"""Experiments in memory whose truth is known, planted quickly enough for thousands of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from orchestrator.analysis import pairs, performance
from orchestrator.analysis.arms import ArmSummary, summarise_arm
from orchestrator.analysis.pairs import PairComparison
from orchestrator.analysis.parity import Parity
from orchestrator.analysis.performance import Performance
from orchestrator.analysis.runs import RunSummary
from orchestrator.analysis.statistics import metrics
from orchestrator.analysis.text import sentences
from orchestrator.store.record_models import Result
from trainers.accuracy import balanced_accuracy


@dataclasses.dataclass(frozen=True)
class Planted:
    """An experiment with what is said of it."""

    arms: list[ArmSummary]
    pairs: list[PairComparison]
    performance: Performance
    conclusion: str

    def arm(self, name: str) -> ArmSummary:
        return next(arm for arm in self.arms if arm.name == name)

    def pair(self, first: str, second: str) -> PairComparison:
        return next(pair for pair in self.pairs if {*pair.names} == {first, second})


def plant_run(
    arm: str,
    seed: int,
    right: np.ndarray,
    labels: np.ndarray,
    *,
    classes: int,
    seconds: float = 10.0,
    accuracy: float | None = None,
    finished: bool = True,
) -> RunSummary:
    """A run with such predictions; a recorded accuracy that validation refuses leaves it without a result."""
    predicted = np.where(right, labels, (labels + 1) % classes)
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (labels, predicted), 1)
    result: dict[str, Any] | None = {
        "test_accuracy": float(right.mean()) if accuracy is None else accuracy,
        "test_loss": 1.0,
        "confusion": confusion.tolist(),
        "test_seconds": 1.0,
    }
    try:
        Result.model_validate(result)
    except ValidationError:
        result = None
    if not finished:
        result = None
    epoch = {
        "epoch": 1,
        "train_loss": 1.0,
        "train_accuracy": 0.5,
        "validation_loss": 1.0,
        "validation_accuracy": 0.5,
        "images_per_second": 10_000 / seconds,
        "data_seconds": 0.0,
        "step_seconds": seconds,
        "evaluation_seconds": 0.0,
        "checkpoint_seconds": 0.0,
    }
    return RunSummary(
        id=f"{arm}-seed{seed}",
        arm=arm,
        seed=seed,
        state="unfinished" if result is None else "done",
        cause=None,
        epochs=[epoch],
        reports=[],
        metrics={}
        if result is None
        else {"test_accuracy": result["test_accuracy"], "balanced_accuracy": balanced_accuracy(confusion)},
        confusion=None if result is None else confusion,
        is_own=False,
        result=result,
        restarts=0,
        resumes=0,
        workers=1,
        precision="float32",
        settings={},
        startup_seconds=2.0,
        is_cold=True,
        images_per_second=10_000 / seconds,
        timed_seconds=seconds,
        train_seconds=seconds,
        others_share=0.0,
    )


def plant_arm(
    name: str,
    right: np.ndarray,
    labels: np.ndarray,
    *,
    seeds: Sequence[int] | None = None,
    framework: str = "keras",
    seconds: Sequence[float] | None = None,
    accuracies: Sequence[float | None] | None = None,
    finished: Sequence[bool] | None = None,
    per_image: bool = True,
    agrees: bool | None = None,
    recipe: dict[str, Any] | None = None,
) -> ArmSummary:
    """An arm whose runs classify the test images so, bool [seeds, n]."""
    seeds = list(range(len(right))) if seeds is None else list(seeds)
    classes = max(int(labels.max()) + 1, 2)
    runs = [
        plant_run(
            name,
            seed,
            right[place],
            labels,
            classes=classes,
            seconds=10.0 if seconds is None else seconds[place],
            accuracy=None if accuracies is None else accuracies[place],
            finished=finished is None or finished[place],
        )
        for place, seed in enumerate(seeds)
    ]
    done = np.array([run.result is not None for run in runs])
    arm = summarise_arm(
        name,
        {"framework": framework, "seeds": seeds, "epochs": 1} | (recipe or {}),
        runs,
        metric=metrics.known("test_accuracy"),
        right=right[done] if per_image and done.any() else None,
        labels=labels if per_image else None,
    )
    if agrees is None:
        return arm
    parity = Parity(
        frameworks=("keras", "torch"),
        steps=4,
        workers=1,
        loss_difference=0.0,
        loss_step=1,
        update_difference=0.0,
        named=[],
        differs_at=None if agrees else "the loss differs at step 1 by 1.0e-01",
        likely_causes=[],
    )
    return dataclasses.replace(arm, parity=parity)


def planted(
    arms: list[ArmSummary],
    labels: np.ndarray | None = None,
    *,
    margin: float = 0.01,
    baseline: str | None = None,
    measure_speed: bool = False,
) -> Planted:
    """All that is said of some arms."""
    metric = dataclasses.replace(metrics.known("test_accuracy"), margin=margin)
    arms = [dataclasses.replace(arm, metric=metric) for arm in arms]
    specification = {"scale": {"workers": 1}, "measure_speed": measure_speed}
    took = performance.measure(arms, specification, train_images=1000)
    predicted = {}
    for arm in arms:
        if arm.right is not None and labels is not None:
            predicted[arm.name] = np.where(arm.right, labels, labels + 1)
    compared = pairs.compare(arms, predicted=predicted, performance=took, baseline=baseline)
    told = sentences.conclusion(arms, compared, None, took, baseline=baseline)
    return Planted(arms, compared, took, told)
