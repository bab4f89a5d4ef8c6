"""From an experiment's records to all that can be said of its arms. Pure.

Each arm is summed up in `arms`, every two are compared in `pairs` by the statistics of `evidence`, and `attribution`
takes a gap apart; `sentences` puts that into words, and `report_notes` adds what limits the conclusion.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.analysis import attribution, pairs, parity, performance, report_notes, sentences, verdicts
from orchestrator.analysis.arms import (
    ArmSummary,
    Predictions,
    RunSummary,
    gather_predictions,
    summarise_arm,
    summarise_run,
)
from orchestrator.analysis.attribution import Attribution
from orchestrator.analysis.pairs import PairComparison
from orchestrator.analysis.parity import Parity
from orchestrator.analysis.performance import Performance
from orchestrator.analysis.sweeps import SweepSummary, summarise
from orchestrator.experiment import spec
from orchestrator.experiment.spec import Experiment
from orchestrator.planning import crossings, parity_plan
from orchestrator.store import validation
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Record
from orchestrator.store.validation import CheckedRecords
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
    """Of each arm that has them."""
    disagreements: dict[str, np.ndarray] | None
    """Test images that arms classify differently: indices, labels and images."""
    performance: Performance
    scales: Record | None
    """What `tandem bench scaling` measured of the same experiment."""

    @property
    def is_unbalanced(self) -> bool:
        """Whether the test images' classes differ so much that balanced accuracy tells something else of an arm."""
        scores = [(arm.accuracy, arm.balanced_accuracy) for arm in self.arms]
        return any(
            plain and balanced and abs(plain.mean - balanced.mean) >= _TELLING for plain, balanced in scores
        )

    @property
    def groups(self) -> list[list[str]]:
        """Arms of which no two are told apart, best first; an arm may be in several groups. Empty with a baseline."""
        compared = {name for pair in self.pairs for name in pair.names}
        known = [arm for arm in self.arms if arm.name in compared and arm.accuracy is not None]
        ranked = sorted(known, key=lambda arm: -arm.accuracy.mean if arm.accuracy else 0.0)
        if self.baseline is not None or len(ranked) < 3:
            return []
        return verdicts.groups(
            [arm.name for arm in ranked], [pair.names for pair in self.pairs if pair.ahead is not None]
        )

    @property
    def failed_runs(self) -> list[RunSummary]:
        """Runs that failed permanently."""
        return [run for arm in self.arms for run in arm.runs if run.state == "failed"]

    @property
    def settings(self) -> dict[str, dict[str, list[Any]]]:
        """By name and framework, the values that the workers' environment had, in the order of the runs."""
        seen: dict[str, dict[str, list[Any]]] = {}
        for arm in self.arms:
            for run in arm.runs:
                for name, value in run.settings.items():
                    values = seen.setdefault(name, {}).setdefault(arm.framework, [])
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


def analyse(records: ExperimentRecords) -> Comparison:
    """Read an experiment's records and compare its arms.

    Raises:
        InputError: there is no experiment at that place, or what describes it is damaged.
    """
    left = validation.Left()
    checked = validation.read(records, left)
    document = checked.document
    specification = document["experiment"]
    arms, predictions = summarise_arms(checked)
    experiment = _experiment(document)
    parities = left.unless("parity", lambda: _parities(records, document, experiment)) or {}
    arms = [dataclasses.replace(arm, parity=parities.get(arm.name)) for arm in arms]
    found = _attribution(document, arms)
    measured = performance.measure(arms, specification, train_images=document["data"]["train_images"])
    pairs = _pairs(arms, found, predictions, measured, specification)
    sweep = left.unless("sweep", lambda: summarise(records, document))
    untold = ["parity"] if experiment is None else []
    if document.get("sweep") and sweep is None:
        untold.append("the search")
    return Comparison(
        name=specification["name"],
        document=document,
        sessions=checked.sessions,
        arms=arms,
        pairs=pairs,
        baseline=specification.get("baseline"),
        conclusion=sentences.conclusion(arms, pairs, found, measured, baseline=specification.get("baseline")),
        notes=left.sentences
        + (sweep.notes if sweep else [])
        + report_notes.of_runs(document, arms, pairs)
        + report_notes.of_versions(document, untold=untold)
        + report_notes.of_missing(checked, arms, left.sentences),
        sweep=sweep,
        attribution=found,
        predictions=predictions,
        disagreements=checked.disagreements,
        performance=measured,
        scales=checked.scales,
    )


def summarise_arms(checked: CheckedRecords) -> tuple[list[ArmSummary], dict[str, Predictions]]:
    """Each arm of an experiment without its parity, and the predictions of those that have any."""
    arms, predictions = [], {}
    for name, arm in checked.document["experiment"]["arms"].items():
        runs = [run for run in checked.runs if run.entry["arm"] == name]
        given = gather_predictions(runs, checked.labels)
        if given is not None:
            predictions[name] = given
        finished = sum(run.result is not None for run in runs)
        known = given is not None and given.right.size > 0 and len(given.right) == finished
        arms.append(
            summarise_arm(
                name,
                arm,
                [summarise_run(run) for run in runs],
                right=given.right if given is not None and known else None,
                labels=checked.labels,
                overlap=_overlap(checked.document),
            )
        )
    return arms, predictions


def _overlap(document: Record) -> float:
    """The test images for each training image where each seed has test images of its own; else 0."""
    specified, data = document["experiment"].get("data") or {}, document["data"]
    if not (specified.get("resplit") or specified.get("folds")):
        return 0.0
    return float(data["test_images"] / max(data["train_images"], 1))


def margin_of(specification: Record) -> float:
    """Below which an experiment's gaps count as none, also where it was recorded before there was a margin."""
    return float(specification.get("margin", spec.DEFAULT_MARGIN))


def _attribution(document: Record, arms: list[ArmSummary]) -> Attribution | None:
    """What the gap is made of, where the experiment was made to tell."""
    record = document.get("attribution")
    if record is None:
        return None
    return attribution.attribute(
        crossings.Plan.from_json(record["plan"]),
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
        margin=margin_of(specification),
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
    """The recorded experiment; None where this version cannot read it."""
    try:
        return spec.from_json(document["experiment"])
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
