"""What the records say of one arm and its runs. Pure."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.analysis import metrics
from orchestrator.analysis.inference import Interval, Measure, Scores, mean_interval, score_interval
from orchestrator.analysis.metrics import Metric
from orchestrator.analysis.parity import Parity
from orchestrator.experiment.metric import KNOWN, RECORDED
from orchestrator.store import validation
from orchestrator.store.storage import Record
from orchestrator.store.validation import CheckedRun
from trainers.accuracy import balanced_accuracy, class_accuracy

_TIMED_SECONDS = 0.5
_CROWDED = 0.1
_GUESSING_ERRORS = 3
_SHARE = (0.0, 1.0)
_SAME = 1e-6
_MOST_CLASSES = 1000
_ACCURACIES = ("test_accuracy", "validation_accuracy", "train_accuracy")
_OF_A_CLOCK = re.compile("time|second|duration|speed|throughput|per_s|memory", re.IGNORECASE)
"""Names of metrics that differ between runs that do the same."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run as its records tell it."""

    id: str
    arm: str
    seed: int
    state: str
    """done, failed or unfinished."""
    cause: str | None
    """Why it failed."""
    epochs: list[Record]
    """Empty for a training function's run."""
    reports: list[Record]
    """What a training function reported; empty for a built-in run."""
    metrics: dict[str, float]
    """By name: of a training function the last values that it reported, and what its predictions give."""
    confusion: np.ndarray | None
    """Int64 [classes, classes], true class by prediction; None where classes were not predicted, or it is not known."""
    is_own: bool
    """Whether a training function of the user's own was trained."""
    result: Record | None
    restarts: int
    """Times that its workers were lost and started again."""
    resumes: int
    """Times that another start of the driver took it up."""
    workers: int | None
    precision: str | None
    """What the last attempt computed in, where that was recorded."""
    settings: Record
    """Variables and settings of the framework, as the first worker of the last attempt had them."""
    startup_seconds: float | None
    """From the request for workers to the first step, of the first attempt."""
    is_cold: bool
    """Whether it started in fresh processes."""
    images_per_second: float | None
    """Median over the epochs after the first, or that of the only one."""
    timed_seconds: float
    """Data and step time of the epochs that the speed was taken from."""
    train_seconds: float
    """Data and step time over all epochs."""
    others_share: float
    """Part of the machine's CPU time that other programs took from it, mean of the epochs behind the speed."""

    @property
    def tested_epoch(self) -> int | None:
        """The epoch that was tested: the last one, or with `early_stopping` the best."""
        last = self.epochs[-1]["epoch"] if self.epochs else None
        return None if self.result is None else self.result.get("tested_epoch", last)

    @property
    def report_seconds(self) -> list[float]:
        """Of each report, the seconds that the training function had run by then, over all attempts."""
        elapsed, before, seconds = [], 0.0, 0.0
        for line in self.reports:
            if line["seconds"] < seconds:
                before += seconds  # another attempt, whose time begins anew
            seconds = line["seconds"]
            elapsed.append(before + seconds)
        return elapsed

    @property
    def is_guessing(self) -> bool:
        """Whether its predictions are no better than one class for all images, or a class at random.

        Neither its accuracy is above the commonest class's share, nor its balanced accuracy above that of a blind
        guess, by three standard errors.
        """
        confusion = self.confusion
        if confusion is None:
            return False
        of_class = confusion.sum(axis=1)
        known = of_class[of_class > 0]
        if len(known) < 2:
            return False
        commonest, blind = known.max() / known.sum(), 1 / len(known)
        error = np.sqrt(commonest * (1 - commonest) / known.sum())
        blind_error = np.sqrt(blind * (1 - blind) * (1 / known).sum()) / len(known)
        return bool(
            np.trace(confusion) / known.sum() <= commonest + _GUESSING_ERRORS * error
            and balanced_accuracy(confusion) <= blind + _GUESSING_ERRORS * blind_error
        )


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
            alike.setdefault(json.dumps(_without_clocks(told), sort_keys=True), []).append(run.seed)
        return [seeds for seeds in alike.values() if len(seeds) > 1]

    @property
    def is_too_short_to_time(self) -> bool:
        """Whether its runs trained for less than half a second where their speed was taken."""
        return not self.is_own and any(run.timed_seconds < _TIMED_SECONDS for run in self.done)

    @property
    def others_share(self) -> float:
        """Part of the machine's CPU time that other programs took from it, mean over the seeds that are done."""
        return float(np.mean([run.others_share for run in self.done])) if self.done else 0.0

    @property
    def is_crowded(self) -> bool:
        """Whether other programs took so much that its speed is not what the machine allows."""
        return self.others_share >= _CROWDED

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


def _without_clocks(told: object) -> object:
    if isinstance(told, dict):
        return {name: value for name, value in told.items() if not _OF_A_CLOCK.search(name)}
    return [_without_clocks(entry) for entry in told] if isinstance(told, list) else told


def summarise_run(
    run: CheckedRun, metrics: Mapping[str, float], confusion: np.ndarray | None, *, is_own: bool = False
) -> RunSummary:
    """What a run's records say.

    Args:
        run: its records.
        is_own: whether a training function of the user's own was trained.
        metrics: of it, recorded or computed.
        confusion: of its final test, where that is known.
    """
    attempts, epochs, failures = run.attempts, run.epochs, run.failures
    sessions = [attempt["driver_session"] for attempt in attempts]
    state, cause = "unfinished", None
    if run.result is not None:
        state = "done"
    elif failures and failures[-1]["permanent"]:
        state, cause = "failed", failures[-1]["cause"]
    timed = epochs[1:] or epochs
    told = run.result or {}
    startup = told.get("startup_seconds")
    if startup is None and attempts:
        startup = sum(attempts[0].get("startup", {}).values())
    return RunSummary(
        id=run.entry["id"],
        arm=run.entry["arm"],
        seed=run.entry["seed"],
        state=state,
        cause=cause,
        epochs=epochs,
        reports=run.reports,
        metrics=dict(metrics),
        confusion=confusion,
        is_own=is_own,
        result=run.result,
        restarts=len(attempts) - len(set(sessions)),
        resumes=max(len(set(sessions)) - 1, 0),
        workers=attempts[-1]["workers"] if attempts else told.get("workers"),
        precision=attempts[-1].get("precision") if attempts else None,
        settings=(attempts[-1].get("environment") or {}).get("settings", {}) if attempts else {},
        startup_seconds=startup,
        is_cold=is_own  # a training function has processes of its own in each run
        or any(
            attempts[0].get("startup", {}).get(part, 0) > 0
            for part in ("workers_seconds", "import_seconds")
            if attempts
        ),
        images_per_second=float(np.median([epoch["images_per_second"] for epoch in timed]))
        if timed
        else None,
        timed_seconds=_training_seconds(timed),
        train_seconds=float(told["training_seconds"])
        if "training_seconds" in told
        else _training_seconds(epochs),
        others_share=float(np.mean([epoch.get("others_share") or 0.0 for epoch in timed])) if timed else 0.0,
    )


def _training_seconds(epochs: list[Record]) -> float:
    return float(sum(epoch["data_seconds"] + epoch["step_seconds"] for epoch in epochs))


def recorded_metrics(run: CheckedRun) -> dict[str, float]:
    """The metrics that a run's records hold: what a training function reported last, or those of a built-in run."""
    if run.result is None:
        return {}
    if "metrics" in run.result:
        return dict(run.result["metrics"])
    tested = run.result.get("tested_epoch")
    of_epoch = [epoch for epoch in run.epochs if tested in (None, epoch["epoch"])]
    held = (of_epoch[-1] if of_epoch else {}) | run.result
    held["balanced_accuracy"] = balanced_accuracy(np.array(run.result["confusion"]))
    return {name: held[name] for name in RECORDED if held.get(name) is not None and math.isfinite(held[name])}


def recorded_confusion(run: CheckedRun, classes: int) -> np.ndarray | None:
    """A finished run's confusion matrix, counted from its predictions where it is not recorded."""
    if run.result is None:
        return None
    if "confusion" in run.result:
        return np.array(run.result["confusion"])
    found = run.predictions
    if found is None or found.predicted is None or found.labels is None or not 0 < classes <= _MOST_CLASSES:
        return None
    if max(found.predicted.max(), found.labels.max()) >= classes:
        return None
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (found.labels, found.predicted), 1)
    return counts


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


def _in_order(found: validation.Predictions) -> validation.Predictions:
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


def _examples(found: validation.Predictions) -> str:
    """A name for the test examples: their classes, and their ids where they have some."""
    if found.labels is None:
        return ""
    digest = hashlib.sha256(np.ascontiguousarray(found.labels, np.int64).tobytes())
    if found.ids is not None:
        digest.update(json.dumps(found.ids.tolist(), default=str).encode())
    return digest.hexdigest()
