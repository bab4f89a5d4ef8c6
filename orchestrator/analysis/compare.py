"""From an experiment's records to all that can be said of its arms. Pure.

Each arm is summed up in `arms`, every two are compared in `pairs` by the statistics of `evidence`, and `attribution`
takes a gap apart; `answer` puts that into words, and `caveats` what a reader must know with it.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.analysis import attribution, inference, parity, performance, report_notes, sentences
from orchestrator.analysis.arms import (
    ArmSummary,
    Predictions,
    RunSummary,
    read_predictions,
    summarise_arm,
    summarise_run,
)
from orchestrator.analysis.attribution import Attribution
from orchestrator.analysis.inference import Interval, McNemar
from orchestrator.analysis.pairs import PairComparison, compare_pair
from orchestrator.analysis.parity import Parity
from orchestrator.analysis.performance import Performance
from orchestrator.analysis.sweeps import SweepSummary, summarise
from orchestrator.experiment import spec
from orchestrator.experiment.spec import Experiment
from orchestrator.planning import parity_plan
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Record
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
    answer: str
    notes: list[str]
    sweep: SweepSummary | None
    """How the arms' recipes were found, where they were searched for."""
    attribution: Attribution | None
    """What the gap between two arms is made of, where that was asked."""
    predictions: dict[str, Predictions]
    """Of each arm that has them."""
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
    def failed_runs(self) -> list[RunSummary]:
        """Runs that were given up."""
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

    def to_json(self) -> Record:
        """The comparison as plain JSON, without the per-epoch curves; numbers that JSON does not have are null."""
        return {name: _strict(value) for name, value in self._to_record().items()}

    def _to_record(self) -> Record:
        return {
            "name": self.name,
            "answer": self.answer,
            "notes": self.notes,
            "arms": [
                {
                    "name": arm.name,
                    "framework": arm.framework,
                    "recipe": arm.recipe,
                    "parameters": arm.parameters,
                    "test_accuracy": _interval_json(arm.accuracy),
                    "test_accuracy_deviation": arm.accuracy_deviation,
                    "balanced_accuracy": _interval_json(arm.balanced_accuracy),
                    "images_per_second": _interval_json(arm.images_per_second),
                    "parity": arm.parity and arm.parity.json(),
                    "train_seconds": arm.train_seconds,
                    "class_accuracy": None if arm.class_accuracy is None else arm.class_accuracy.tolist(),
                    "confusion": None if arm.confusion is None else arm.confusion.tolist(),
                    "robustness": {
                        kind: [dataclasses.asdict(interval) for interval in intervals]
                        for kind, intervals in arm.robustness.items()
                    },
                    "runs": [
                        {
                            "id": run.id,
                            "seed": run.seed,
                            "state": run.state,
                            "cause": run.cause,
                            "restarts": run.restarts,
                            "resumes": run.resumes,
                            "workers": run.workers,
                            "precision": run.precision,
                            "startup_seconds": run.startup_seconds,
                            "images_per_second": run.images_per_second,
                            "train_seconds": run.train_seconds,
                            "tested_epoch": run.tested_epoch,
                            "test_accuracy": run.result and run.result["test_accuracy"],
                            "test_loss": run.result and run.result["test_loss"],
                            "balanced_accuracy": run.balanced_accuracy,
                        }
                        for run in arm.runs
                    ],
                }
                for arm in self.arms
            ],
            "pairs": [
                dataclasses.asdict(pair)
                | {
                    "speed_ratio": pair.speed_ratio,
                    "conclusive": pair.conclusive,
                    "equivalent": pair.equivalent,
                }
                for pair in self.pairs
            ],
            "performance": self.performance.to_json(),
            "attribution": self.attribution and _attribution_json(self.attribution),
            "sweep": self.sweep and [search.to_json() for search in self.sweep.arms],
            "data": self.document["data"],
            "environment": self.sessions[-1]["environment"] if self.sessions else None,
            "settings": self.settings,
        }

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
        InputError: there is no experiment at that place.
    """
    document = records.document()
    specification = document["experiment"]
    by_arm: dict[str, list[RunSummary]] = {name: [] for name in specification["arms"]}
    for run in document["runs"]:
        by_arm[run["arm"]].append(summarise_run(records.run(run["id"]), run))
    experiment, sessions = _experiment(document), records.sessions()
    parities = _parities(records, document, experiment)
    arms = [
        summarise_arm(name, arm, by_arm[name], parities.get(name))
        for name, arm in specification["arms"].items()
    ]
    found = _attribution(document, arms)
    labels = (records.disagreements() or {}).get("test_labels")
    read = {arm.name: read_predictions(records, arm, labels) for arm in arms}
    predictions = {arm: kept for arm, kept in read.items() if kept is not None}
    pairs = _pairs(arms, found, predictions, labels, margin=margin_of(document))
    sweep = summarise(records, document)
    untold = ["parity"] if experiment is None else []
    if document.get("sweep") and sweep is None:
        untold.append("the search")
    return Comparison(
        name=specification["name"],
        document=document,
        sessions=sessions,
        arms=arms,
        pairs=pairs,
        answer=sentences.answer(arms, pairs, found),
        notes=(sweep.notes if sweep else [])
        + report_notes.of_runs(document, arms, pairs)
        + report_notes.of_versions(document, untold=untold)
        + report_notes.of_missing(records, sessions, arms, predictions),
        sweep=sweep,
        attribution=found,
        predictions=predictions,
        performance=performance.measure(arms, specification, train_images=document["data"]["train_images"]),
        scales=records.storage.read_json("scaling/scaling.json"),
    )


def margin_of(document: Record) -> float:
    """Below which an experiment's gaps count as none, also where it was recorded before there was a margin."""
    return float(document["experiment"].get("margin", spec.DEFAULT_MARGIN))


def _attribution(document: Record, arms: list[ArmSummary]) -> Attribution | None:
    """What the gap is made of, where the experiment was made to tell."""
    record = document.get("attribution")
    if record is None:
        return None
    return attribution.attribute(
        attribution.Plan.from_json(record["plan"]),
        {arm.name: arm.accuracies for arm in arms},
        {arm.name: arm.comparable_speeds for arm in arms},
    )


def _attribution_json(found: Attribution) -> Record:
    return {
        "first": found.plan.first,
        "second": found.plan.second,
        "gap": dataclasses.asdict(found.gap),
        "seeds": found.seeds,
        "missing": found.missing,
        "orders_sampled": len(found.plan.orders),
        "shares": [dataclasses.asdict(share) | {"speed_ratio": share.speed_ratio} for share in found.shares],
    }


def _pairs(
    arms: list[ArmSummary],
    found: Attribution | None,
    predictions: dict[str, Predictions],
    labels: np.ndarray | None,
    *,
    margin: float,
) -> list[PairComparison]:
    """Every two arms; of an attribution only the two that it is about."""
    if found is not None:
        arms = [arm for arm in arms if arm.name in (found.plan.first, found.plan.second)]
        arms.sort(key=lambda arm: arm.name != found.plan.first)
    pairs = [
        compare_pair(
            first,
            second,
            margin=margin,
            mcnemar=_mcnemar(predictions.get(first.name), predictions.get(second.name), labels),
        )
        for first, second in itertools.combinations(arms, 2)
    ]
    corrected = inference.holm([pair.evidence.p_value if pair.evidence else None for pair in pairs])
    return [
        dataclasses.replace(pair, adjusted_p=p_value) for pair, p_value in zip(pairs, corrected, strict=True)
    ]


def _mcnemar(one: Predictions | None, two: Predictions | None, labels: np.ndarray | None) -> McNemar | None:
    if labels is None or one is None or two is None or not (one.right.size and two.right.size):
        return None
    return inference.mcnemar(one.answers, two.answers, labels)


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


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(below) for below in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _interval_json(interval: Interval | None) -> Record | None:
    return None if interval is None else dataclasses.asdict(interval)


def disagreements(answers: dict[str, list[np.ndarray]], labels: np.ndarray, *, at_most: int) -> np.ndarray:
    """Test images on which arms differ, the most telling first.

    Args:
        answers: for each arm, int [n] answers of each of its runs.
        labels: int [n] true labels.
        at_most: how many to return.

    Returns:
        Int64 indices of images whose share of right seeds differs between arms, or to which most
        seeds of one arm give another answer; in order of the difference in that share.
    """
    if len(answers) < 2:
        return np.array([], np.int64)
    from scipy import stats

    right = np.stack([np.mean([a == labels for a in runs], axis=0) for runs in answers.values()])
    majority = np.stack([stats.mode(np.stack(runs), axis=0).mode for runs in answers.values()])
    spread = np.ptp(right, axis=0)
    differ = np.flatnonzero((spread > 0) | (majority != majority[0]).any(axis=0))
    return differ[np.argsort(-spread[differ], kind="stable")][:at_most]
