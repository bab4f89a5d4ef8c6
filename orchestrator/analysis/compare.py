"""From an experiment's records to all that can be said of its arms. Pure.

`arms` sums up each arm, `pairs` compares every two by the statistics of `inference`, and `attribution` takes a gap
apart; `sentences` puts that into words, and `report_notes` adds what a reader must know with it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.analysis import attribution, pairs, parity, performance
from orchestrator.analysis.arms import ArmSummary, Predictions, gather_predictions, summarise_arm
from orchestrator.analysis.attribution import Attribution
from orchestrator.analysis.pairs import PairComparison
from orchestrator.analysis.parity import Parity
from orchestrator.analysis.performance import Performance
from orchestrator.analysis.runs import RunSummary, recorded_confusion, recorded_metrics, summarise_run
from orchestrator.analysis.statistics import metrics, prediction_metrics, verdicts
from orchestrator.analysis.statistics.metrics import Metric
from orchestrator.analysis.sweeps import SweepSummary, summarise
from orchestrator.analysis.text import phrases, report_notes, sentences
from orchestrator.experiment import spec
from orchestrator.experiment.spec import Experiment
from orchestrator.planning import crossings, parity_plan
from orchestrator.store import checked_files, validation
from orchestrator.store.checked_files import Left
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Record
from orchestrator.store.validation import CheckedRecords, CheckedRun
from trainers.contract import FRAMEWORKS
from trainers.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_TELLING = 0.005


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that a report says."""

    name: str
    document: Record
    sessions: list[Record]
    metric: Metric
    """What the arms are compared by."""
    shown: list[Metric]
    """What else the experiment asks to show."""
    arms: list[ArmSummary]
    pairs: list[PairComparison]
    baseline: str | None
    """The arm that all others are compared with, where they are not compared with each other."""
    conclusion: str
    notes: list[str]
    sweep: SweepSummary | None
    """How the arms' recipes were found, where they were searched for."""
    attribution: Attribution | None
    """What the gap between two arms is made of, where that was asked."""
    predictions: dict[str, Predictions]
    """Of each arm that has predicted classes."""
    disagreements: dict[str, np.ndarray] | None
    """Test images that arms classify differently: indices, labels and images."""
    performance: Performance
    scales: Record | None
    """What `tandem bench scaling` measured of the same experiment."""

    @property
    def is_unbalanced(self) -> bool:
        """Whether the test images' classes differ so much that balanced accuracy tells something else of an arm."""
        scores = [(arm.mean("test_accuracy"), arm.mean("balanced_accuracy")) for arm in self.arms]
        return any(
            plain is not None and balanced is not None and abs(plain - balanced) >= _TELLING
            for plain, balanced in scores
        )

    @property
    def class_names(self) -> list[str]:
        """Of the data; numbers where only training functions know the classes."""
        if self.document["data"] is not None:
            return list(self.document["data"]["class_names"])
        counts = [len(arm.confusion) for arm in self.arms if arm.confusion is not None]
        return [str(number) for number in range(max(counts, default=0))]

    @property
    def groups(self) -> list[list[str]]:
        """Arms of which no two are told apart, best first; an arm may be in several groups. Empty with a baseline."""
        compared = {name for pair in self.pairs for name in pair.names}
        ranked = phrases.ranked([arm for arm in self.arms if arm.name in compared and arm.score is not None])
        if self.baseline is not None or len(ranked) < 3:
            return []
        return verdicts.groups(
            [arm.name for arm in ranked], [pair.names for pair in self.pairs if pair.ahead is not None]
        )

    @property
    def leading_pairs(self) -> list[PairComparison]:
        """The pairs that the conclusion rests on: those with the baseline, else those with the best arm."""
        ranked = phrases.ranked([arm for arm in self.arms if arm.score is not None])
        if self.baseline is not None or not ranked:
            return self.pairs
        return [pair for pair in self.pairs if ranked[0].name in pair.names] or self.pairs

    @property
    def failed_runs(self) -> list[RunSummary]:
        """Runs that failed permanently."""
        return [run for arm in self.arms for run in arm.runs if run.state == "failed"]

    @property
    def settings(self) -> dict[str, dict[str, list[Any]]]:
        """By name and framework, or training function, the values that workers had, in the order of the runs."""
        seen: dict[str, dict[str, list[Any]]] = {}
        for arm in self.arms:
            for run in arm.runs:
                for name, value in run.settings.items():
                    values = seen.setdefault(name, {}).setdefault(arm.framework or arm.name, [])
                    if value not in values:
                        values.append(value)
        return seen

    @functools.cached_property
    def epochs_frame(self) -> pd.DataFrame:
        """One row for each finished epoch of each run."""
        import pandas as pd

        rows = [
            {"arm": run.arm, "seed": run.seed, "run": run.id}
            | {key: value for key, value in epoch.items() if key != "schema"}
            for arm in self.arms
            for run in arm.runs
            for epoch in run.epochs
        ]
        return pd.DataFrame(rows)

    @functools.cached_property
    def reports_frame(self) -> pd.DataFrame:
        """One row for each value of the metric that a training function reported: arm, run, report, seconds, value."""
        import pandas as pd

        rows = [
            (run.arm, run.id, line["report"], seconds, line["metrics"][self.metric.name])
            for arm in self.arms
            for run in arm.runs
            for line, seconds in zip(run.reports, run.report_seconds, strict=True)
            if self.metric.name in line["metrics"]
        ]
        return pd.DataFrame(rows, columns=["arm", "run", "report", "seconds", "value"])


def analyse(records: ExperimentRecords) -> Comparison:
    """Read an experiment's records and compare its arms.

    Raises:
        InputError: there is no experiment at that place, or what describes it is damaged.
    """
    left = checked_files.Left()
    checked = validation.read(records, left)
    document = checked.document
    specification = document["experiment"]
    metric, shown = metrics.compared(specification), metrics.shown(specification)
    arms, predictions = summarise_arms(checked, metric, shown, left)
    experiment = _experiment(document)
    parities = left.unless("parity", lambda: _parities(records, document, experiment)) or {}
    arms = [dataclasses.replace(arm, parity=parities.get(arm.name)) for arm in arms]
    found = _attribution(document, arms, metric)
    measured = performance.measure(arms, specification, train_images=train_images(document))
    pairs = _pairs(arms, found, predictions, measured, specification)
    sweep = left.unless("sweep", lambda: summarise(records, document))
    untold = ["parity"] if experiment is None and not all(arm.is_own for arm in arms) else []
    if document.get("sweep") and sweep is None:
        untold.append("the search")
    return Comparison(
        name=specification["name"],
        document=document,
        sessions=checked.sessions,
        metric=metric,
        shown=shown,
        arms=arms,
        pairs=pairs,
        baseline=specification.get("baseline"),
        conclusion=sentences.conclusion(arms, pairs, found, measured, baseline=specification.get("baseline")),
        notes=left.sentences
        + (sweep.notes if sweep else [])
        + report_notes.of_runs(document, arms, pairs)
        + report_notes.of_training_functions(arms, predictions)
        + report_notes.of_versions(document, untold=untold)
        + report_notes.of_missing(checked, arms, left.sentences),
        sweep=sweep,
        attribution=found,
        predictions=predictions,
        disagreements=checked.disagreements,
        performance=measured,
        scales=checked.scales,
    )


def summarise_arms(
    checked: CheckedRecords, metric: Metric, shown: Sequence[Metric], left: Left
) -> tuple[list[ArmSummary], dict[str, Predictions]]:
    """Each arm of an experiment without its parity, and the predicted classes of those that have any.

    Args:
        checked: the experiment's records.
        metric: what its arms are compared by.
        shown: what else is shown.
        left: is told which metrics cannot be computed.
    """
    arms, predictions = [], {}
    wanted = {other.name: other for other in [*shown, metric]}
    classes = _classes(checked)
    for name, arm in checked.document["experiment"]["arms"].items():
        runs = [run for run in checked.runs if run.entry["arm"] == name]
        given = gather_predictions(runs)
        if given is not None:
            predictions[name] = given
        finished = sum(run.result is not None for run in runs)
        known = given is not None and given.right.size > 0 and len(given.right) == finished
        arms.append(
            summarise_arm(
                name,
                arm,
                [
                    summarise_run(
                        run,
                        _metrics(run, name, wanted, left),
                        recorded_confusion(run, classes),
                        is_own=validation.is_train_loop(arm),
                    )
                    for run in runs
                ],
                metric=metric,
                right=given.right if given is not None and known else None,
                labels=given.labels if given is not None and known else None,
                overlap=0.0 if validation.is_train_loop(arm) else _overlap(checked.document),
                examples=given.examples if given is not None and known else "",
            )
        )
    return arms, predictions


def _overlap(document: Record) -> float:
    """The test images for each training image where each seed has test images of its own; else 0."""
    specified, data = document["experiment"].get("data") or {}, document["data"]
    if data is None or not (specified.get("resplit") or specified.get("folds")):
        return 0.0
    return float(data["test_images"] / max(data["train_images"], 1))


def _classes(checked: CheckedRecords) -> int:
    """How many classes there are: those of the data, or as many as training functions know."""
    if checked.document["data"] is not None:
        return len(checked.document["data"]["class_names"])
    found = [
        1 + int(max(given.labels.max(), given.predicted.max()))
        for run in checked.runs
        if (given := run.predictions) is not None and given.predicted is not None and given.labels is not None
    ]
    return max(found, default=0)


def _metrics(run: CheckedRun, arm: str, wanted: Mapping[str, Metric], left: Left) -> dict[str, float]:
    """What a run's records hold, and what is computed from its predictions: what is wanted, and the accuracy."""
    found = {}
    for name, value in recorded_metrics(run).items():
        least, most = (wanted.get(name) or metrics.known(name)).bounds
        if least <= value <= most:
            found[name] = value
        else:
            left.out(
                f"{name} of {arm}",
                f"{value:g} is not between 0 and 1; if it is in percent, set metric.unit to '%'",
            )
    predictions = run.predictions
    if predictions is None:
        return found
    names = dict.fromkeys(wanted)
    if predictions.predicted is not None and predictions.labels is not None:
        names |= dict.fromkeys(["test_accuracy", "balanced_accuracy"])
    for name in names:
        if name not in found:
            try:
                computed = prediction_metrics.compute(name, predictions)
            except (ValueError, InputError) as error:
                left.out(f"{name} of {arm}", str(error).rstrip("."))
                continue
            if computed is not None:
                found[name] = computed
    return found


def train_images(document: Record) -> int | None:
    """Training images of the data; None where only training functions know their data."""
    return None if document["data"] is None else int(document["data"]["train_images"])


def _attribution(document: Record, arms: list[ArmSummary], metric: Metric) -> Attribution | None:
    """What the gap is made of, where the experiment was made to tell."""
    record = document.get("attribution")
    if record is None:
        return None
    return attribution.attribute(
        crossings.Plan.from_json(record["plan"]),
        metric,
        {arm.name: arm.scores for arm in arms},
        {arm.name: arm.comparable_speeds for arm in arms},
    )


def complete_predictions(
    arms: list[ArmSummary], predictions: dict[str, Predictions]
) -> dict[str, np.ndarray]:
    """The predictions of each arm that has them for all of its finished runs."""
    return {
        arm.name: predictions[arm.name].predicted
        for arm in arms
        if arm.name in predictions and len(predictions[arm.name].predicted) == len(arm.done)
    }


def _pairs(
    arms: list[ArmSummary],
    found: Attribution | None,
    predictions: dict[str, Predictions],
    measured: Performance,
    specification: Record,
) -> list[PairComparison]:
    """Every two arms, or each with the baseline; of an attribution only the two that it is about."""
    if found is not None:
        arms = [arm for arm in arms if arm.name in (found.plan.first, found.plan.second)]
        arms.sort(key=lambda arm: arm.name != found.plan.first)
    return pairs.compare(
        arms,
        predicted=complete_predictions(arms, predictions),
        performance=measured,
        baseline=None if found is not None else specification.get("baseline"),
    )


def _parities(
    records: ExperimentRecords, document: Record, experiment: Experiment | None
) -> dict[str, Parity]:
    """The parity of each arm's recipe, where both frameworks have traced it."""
    parities: dict[str, Parity] = {}
    for work in parity_plan.works(experiment)[0] if experiment else []:
        traces = records.parity(work.key(document["data"]["fingerprint"]), FRAMEWORKS)
        if traces is not None:
            parities |= dict.fromkeys(work.arms, parity.compare(traces[0], traces[1], FRAMEWORKS))
    return parities


def _experiment(document: Record) -> Experiment | None:
    """The recorded experiment's built-in arms; None where there are none, or this version cannot read them."""
    specification = document["experiment"]
    arms = {name: arm for name, arm in specification["arms"].items() if not validation.is_train_loop(arm)}
    if not arms:
        return None
    try:
        return spec.from_json(specification | {"arms": arms, "baseline": None})
    except InputError:
        return None


def disagreements(predicted: dict[str, list[np.ndarray]], labels: np.ndarray, *, at_most: int) -> np.ndarray:
    """Test images on which arms differ, the most telling first.

    Args:
        predicted: for each arm, int [n] predictions of each of its runs.
        labels: int [n] true labels.
        at_most: how many to return.

    Returns:
        Int64 indices of images whose share of right seeds differs between arms, or to which most
        seeds of one arm give another prediction; in order of the difference in that share.
    """
    if len(predicted) < 2:
        return np.array([], np.int64)
    from scipy import stats

    right = np.stack([np.mean([a == labels for a in runs], axis=0) for runs in predicted.values()])
    majority = np.stack([stats.mode(np.stack(runs), axis=0).mode for runs in predicted.values()])
    spread = np.ptp(right, axis=0)
    differ = np.flatnonzero((spread > 0) | (majority != majority[0]).any(axis=0))
    return differ[np.argsort(-spread[differ], kind="stable")][:at_most]


def jointly_wrong(predicted: dict[str, list[np.ndarray]], labels: np.ndarray, *, at_most: int) -> np.ndarray:
    """Test images that every run of every arm classifies wrongly, those first on whose class most runs agree.

    Args:
        predicted: for each arm, int [n] predictions of each of its runs.
        labels: int [n] true labels.
        at_most: how many to return.

    Returns:
        Int64 indices of images.
    """
    if not predicted:
        return np.array([], np.int64)
    from scipy import stats

    runs = np.stack([run for arm in predicted.values() for run in arm])
    wrong = np.flatnonzero((runs != labels).all(axis=0))
    agreement = stats.mode(runs[:, wrong], axis=0).count
    return wrong[np.argsort(-agreement, kind="stable")][:at_most]
