"""What the records say of one arm and its runs. Pure."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence

import numpy as np

from orchestrator.analysis.parity import Parity
from orchestrator.analysis.runs import CROWDED, TIMED_SECONDS, RunSummary, without_clocks
from orchestrator.analysis.statistics import metrics
from orchestrator.analysis.statistics.inference import (
    Interval,
    Measure,
    Scores,
    mean_interval,
    score_interval,
)
from orchestrator.analysis.statistics.metrics import Metric
from orchestrator.experiment.metric import KNOWN
from orchestrator.store import prediction_records, validation
from orchestrator.store.storage import Record
from orchestrator.store.validation import CheckedRun
from trainers.accuracy import class_accuracy

_SHARE = (0.0, 1.0)
_SAME = 1e-6
_ACCURACIES = ("test_accuracy", "validation_accuracy", "train_accuracy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmSummary:
    """One arm over its seeds."""

    name: str
    framework: str | None
    """None for a training function of the user's own."""
    recipe: Record
    """With `precision: auto` as its runs resolved it; of a training function, its fields of the experiment file."""
    seeds: list[int]
    runs: list[RunSummary]
    metric: Metric
    """What the arms are compared by."""
    right: np.ndarray | None
    """Bool [seeds, n], which test images each finished run classifies correctly; None unless that is known for all."""
    examples: str
    """Names the test images; arms with the same name answered the same ones in the same order."""
    measures: dict[str, Measure]
    """Every metric that its finished runs have."""
    scores: Scores
    """The metric by seed, with each test example's part where it is known."""
    parameters: int | None
    parity: Parity | None
    """Whether both frameworks do the same work on this arm's recipe; None where it was not traced."""
    train_seconds: float | None
    """Mean over the seeds that are done."""
    confusion: np.ndarray | None
    """Int64 [classes, classes], summed over seeds."""
    corruption_robustness: dict[str, list[Interval]]
    """By kind of damage, accuracy on undamaged test images and by growing severity; empty where it was not tested."""

    @property
    def done(self) -> list[RunSummary]:
        """The runs with a final test."""
        return [run for run in self.runs if run.state == "done"]

    @property
    def is_own(self) -> bool:
        """Whether it is a training function of the user's own."""
        return self.framework is None

    @property
    def speeds(self) -> dict[int, float]:
        """Images per second by seed."""
        return {run.seed: run.images_per_second for run in self.done if run.images_per_second}

    @property
    def comparable_speeds(self) -> dict[int, float]:
        """Likewise, empty where the arm trained too shortly to be timed."""
        return {} if self.is_too_short_to_time else self.speeds

    @property
    def score(self) -> Interval | None:
        """The metric over the finished seeds, with their sampling error, and that of the test examples if known."""
        found = self.measures.get(self.metric.name)
        return None if found is None else found.interval

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the metric over seeds."""
        found = self.measures.get(self.metric.name)
        return None if found is None else found.deviation

    def mean(self, name: str) -> float | None:
        """A metric's mean over the finished seeds; None where they have no such metric."""
        found = self.measures.get(name)
        return None if found is None else found.interval.mean

    @functools.cached_property
    def images_per_second(self) -> Interval | None:
        """Over the seeds that are done."""
        return mean_interval([*self.speeds.values()])

    @property
    def guessing(self) -> list[int]:
        """Seeds whose predictions are no better than a guess."""
        return [run.seed for run in self.done if run.is_guessing]

    @property
    def identical(self) -> list[list[int]]:
        """Groups of seeds with which a training function gave the same results, bit for bit."""
        alike: dict[str, list[int]] = {}
        for run in self.done if self.is_own else []:
            told = [run.metrics, *([line["report"], line["metrics"]] for line in run.reports)]
            alike.setdefault(json.dumps(without_clocks(told), sort_keys=True), []).append(run.seed)
        return [seeds for seeds in alike.values() if len(seeds) > 1]

    @property
    def is_too_short_to_time(self) -> bool:
        """Whether its runs trained for less than half a second where their speed was taken."""
        return not self.is_own and any(run.timed_seconds < TIMED_SECONDS for run in self.done)

    @property
    def others_share(self) -> float:
        """Part of the machine's CPU time that other programs took from it, mean over the seeds that are done."""
        return float(np.mean([run.others_share for run in self.done])) if self.done else 0.0

    @property
    def is_crowded(self) -> bool:
        """Whether other programs took so much that its speed is not what the machine allows."""
        return self.others_share >= CROWDED

    @property
    def startup_seconds(self) -> float | None:
        """Of the run that started cold; the others found its workers warm."""
        return max((run.startup_seconds or 0 for run in self.runs), default=0) or None

    @property
    def class_accuracy(self) -> np.ndarray | None:
        """Float64 [classes], the share of each class' test images classified correctly."""
        return None if self.confusion is None else class_accuracy(self.confusion)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictions:
    """An arm's predictions of classes for the test split, each [seeds, n]."""

    predicted: np.ndarray
    confidences: np.ndarray | None
    """None where they are not known."""
    right: np.ndarray
    """Empty where the labels are unknown."""
    labels: np.ndarray | None
    """Int [n], the true classes."""
    examples: str
    """Names the test examples: arms with the same name predicted the same ones in the same order."""


def summarise_arm(
    name: str,
    arm: Record,
    runs: list[RunSummary],
    *,
    metric: Metric,
    right: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    overlap: float = 0.0,
    examples: str = "",
) -> ArmSummary:
    """Put an arm's runs together.

    Args:
        name: the arm's.
        arm: as the experiment's document has it.
        runs: all of it.
        metric: what the arms are compared by.
        right: bool [finished seeds, n], the test images that each finished run classifies correctly, if known for all.
        labels: int [n], their classes; known wherever `right` is.
        overlap: as `Scores` has it.
        examples: names the test images, so that arms are paired on them where the name is the same.
    """
    done = [run for run in runs if run.state == "done"]
    confusions = [run.confusion for run in done if run.confusion is not None]
    recipe = {key: value for key, value in arm.items() if key not in ("framework", "seeds")}
    resolved = sorted({run.precision for run in runs if run.precision is not None})
    if recipe.get("precision") == "auto" and resolved:
        recipe["precision"] = " and ".join(resolved)
    scores = {
        each: dataclasses.replace(scores_of(each, done, right, labels, examples), overlap=overlap)
        for each in dict.fromkeys(each for run in done for each in run.metrics)
    }
    compared = scores.get(metric.name, Scores({}))
    return ArmSummary(
        name=name,
        framework=None if validation.is_train_loop(arm) else arm["framework"],
        recipe=recipe,
        seeds=arm["seeds"],
        runs=runs,
        metric=metric,
        right=right,
        examples=examples,
        measures={
            each: _measure(found, metric if each == metric.name else metrics.known(each))
            for each, found in scores.items()
        },
        scores=compared,
        parameters=done[0].result.get("parameters") if done and done[0].result else None,
        parity=None,
        train_seconds=float(np.mean([run.train_seconds for run in done])) if done else None,
        confusion=np.sum(confusions, axis=0) if confusions and len(confusions) == len(done) else None,
        corruption_robustness=_corruption_robustness(
            [run.result.get("corruption_robustness") for run in done if run.result]
        ),
    )


def scores_of(
    name: str,
    done: Sequence[RunSummary],
    right: np.ndarray | None,
    labels: np.ndarray | None,
    examples: str = "",
) -> Scores:
    """A metric by seed, with what each test example adds to it where correct predictions make up its value."""
    by_seed = {run.seed: run.metrics[name] for run in done if name in run.metrics}
    if right is None or labels is None or len(right) != len(by_seed):
        return Scores(by_seed)
    items = right
    if name == "balanced_accuracy":
        of_class = np.bincount(labels)
        items = right * (len(labels) / np.count_nonzero(of_class) / of_class[labels])
    elif name in KNOWN and name not in _ACCURACIES:
        return Scores(by_seed)
    has_same_mean = np.allclose(items.mean(axis=1), [*by_seed.values()], rtol=0, atol=_SAME)
    return Scores(by_seed, items, examples) if has_same_mean else Scores(by_seed)


def _measure(scores: Scores, metric: Metric) -> Measure:
    values = [*scores.by_seed.values()]
    interval = score_interval(scores, bounds=metric.bounds)
    assert interval is not None
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Measure(interval=interval, deviation=deviation)


def _corruption_robustness(tested: list[dict[str, list[float]] | None]) -> dict[str, list[Interval]]:
    """Over seeds, where all of them were tested."""
    given = [entry for entry in tested if entry]
    if not given or len(given) < len(tested) or len({frozenset(entry) for entry in given}) > 1:
        return {}
    found = {kind: np.array([entry[kind] for entry in given]) for kind in given[0]}
    return {
        kind: [
            interval
            for values in table.T
            if (interval := mean_interval(values.tolist(), bounds=_SHARE)) is not None
        ]
        for kind, table in found.items()
    }


def gather_predictions(runs: list[CheckedRun]) -> Predictions | None:
    """The classes that an arm's finished runs predicted; None where there are none, or not for the same examples."""
    found = [run.predictions for run in runs if run.predictions is not None]
    given = [each for each in (_in_order(each) for each in found) if each.predicted is not None]
    if not given or len(given) < len(found):
        return None
    examples = {_examples(each) for each in given}
    if len(examples) > 1 or len({len(each.predicted) for each in given if each.predicted is not None}) > 1:
        return None
    predicted = np.stack([each.predicted for each in given if each.predicted is not None])
    confidences = [each.confidences for each in given if each.confidences is not None]
    labels = given[0].labels
    return Predictions(
        predicted=predicted,
        confidences=np.stack(confidences) if len(confidences) == len(given) else None,
        right=np.empty(0, bool) if labels is None else predicted == labels,
        labels=labels,
        examples=examples.pop(),
    )


def _in_order(found: prediction_records.Predictions) -> prediction_records.Predictions:
    """With the examples in the order of their ids, so that runs that went through them otherwise fit."""
    if found.ids is None:
        return found
    order = np.argsort(found.ids, kind="stable")
    return dataclasses.replace(
        found,
        **{
            name: array[order]
            for name in ("predicted", "confidences", "scores", "labels", "ids")
            if (array := getattr(found, name)) is not None
        },
    )


def _examples(found: prediction_records.Predictions) -> str:
    """A name for the test examples: their classes, and their ids where they have some."""
    if found.labels is None:
        return ""
    digest = hashlib.sha256(np.ascontiguousarray(found.labels, np.int64).tobytes())
    if found.ids is not None:
        digest.update(json.dumps(found.ids.tolist(), default=str).encode())
    return digest.hexdigest()
