"""From records to what can be said about the arms. Pure.

The statistics are in `evidence`, the parts of a gap in `attribution`; `answer` puts them into words, and
`caveats` what a reader must know with them.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator import answer, attribution, caveats, evidence, parity, performance, spec
from orchestrator.attribution import Attribution
from orchestrator.evidence import Evidence, Interval, McNemar, mean_interval
from orchestrator.parity import Parity
from orchestrator.performance import Performance
from orchestrator.plan import describe_value, stated
from orchestrator.records import ExperimentRecords, RunRecords
from orchestrator.spec import Experiment
from orchestrator.storage import Record
from orchestrator.sweep.analysis import SweepSummary, summarise
from trainers.accuracy import balanced_accuracy, class_accuracy
from trainers.contract import FRAMEWORKS
from trainers.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_TELLING = 0.005
_TIMED_SECONDS = 0.5


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
    result: Record | None
    restarts: int
    """Times that its workers were lost and started again."""
    resumes: int
    """Times that another start of the driver took it up."""
    workers: int | None
    precision: str | None
    """What the last attempt computed in, where that was recorded."""
    startup_seconds: float | None
    """From asking for workers to the first step, of the first attempt."""
    images_per_second: float | None
    """Median over the epochs after the first, or that of the only one."""
    timed_seconds: float
    """Data and step time of the epochs that the speed was taken from."""
    train_seconds: float
    """Data and step time over all epochs."""

    @property
    def tested_epoch(self) -> int | None:
        """The epoch that was tested: the last one, or with `early_stopping` the best."""
        last = self.epochs[-1]["epoch"] if self.epochs else None
        return None if self.result is None else self.result.get("tested_epoch", last)

    @property
    def balanced_accuracy(self) -> float | None:
        """Of the final test, with every class counted alike."""
        return None if self.result is None else balanced_accuracy(np.array(self.result["confusion"]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmSummary:
    """One arm over its seeds."""

    name: str
    framework: str
    recipe: Record
    """With `precision: auto` as its runs settled it."""
    seeds: list[int]
    runs: list[RunSummary]
    parameters: int | None
    accuracy: Interval | None
    """Test accuracy over the seeds that are done."""
    balanced_accuracy: Interval | None
    """With every class counted alike, however many test images it has."""
    accuracy_deviation: float | None
    """Standard deviation over seeds."""
    images_per_second: Interval | None
    parity: Parity | None
    """Whether both frameworks do the same work on this arm's recipe; None where it was not traced."""
    train_seconds: float | None
    """Mean over the seeds that are done."""
    confusion: np.ndarray | None
    """Int64 [classes, classes], summed over seeds."""
    robustness: dict[str, list[Interval]]
    """By kind of damage, accuracy on undamaged test images and by growing severity; empty where it was not tested."""

    @property
    def done(self) -> list[RunSummary]:
        """The runs with a final test."""
        return [run for run in self.runs if run.state == "done"]

    @property
    def is_too_short_to_time(self) -> bool:
        """Whether its runs trained for less than half a second where their speed was taken."""
        return any(run.timed_seconds < _TIMED_SECONDS for run in self.done)

    @property
    def startup_seconds(self) -> float | None:
        """Of the run that started cold; the others found its workers warm."""
        return max((run.startup_seconds or 0 for run in self.runs), default=0) or None

    @property
    def class_accuracy(self) -> np.ndarray | None:
        """Float64 [classes], the share of each class' test images answered right."""
        return None if self.confusion is None else class_accuracy(self.confusion)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairComparison:
    """Two arms against each other."""

    first: str
    second: str
    differences: list[str]
    """Every factor besides the framework in which the arms differ, with both values."""
    same_framework: bool
    evidence: Evidence | None
    """Of the gap in test accuracy, the first minus the second; None where an arm has no result."""
    adjusted_p: float | None
    """The p-value, corrected for the number of pairs (Holm)."""
    mcnemar: McNemar | None
    """On the test images; None where predictions are missing."""
    margin: float
    log_speed: Interval | None
    """Of the natural logarithm of the ratio of images per second, the first over the second; Welch's over runs."""
    parity_failures: list[str]
    """For arms of two frameworks, what parts the frameworks on either arm's recipe."""

    @property
    def gap(self) -> Interval | None:
        """Of the evidence."""
        return None if self.evidence is None else self.evidence.gap

    @property
    def paired_seeds(self) -> list[int]:
        """Of the evidence."""
        return [] if self.evidence is None else self.evidence.paired_seeds

    @property
    def speed_ratio(self) -> float | None:
        """Images per second of the first over the second."""
        return None if self.log_speed is None else math.exp(self.log_speed.mean)

    @property
    def conclusive(self) -> bool:
        """Whether there is a gap, at 5 % over all pairs; without any spread, whether it is not zero."""
        gap = self.gap
        if gap is None or gap.low is None or gap.high is None:
            return False
        if self.adjusted_p is not None:
            return self.adjusted_p < evidence.ALPHA
        return gap.low > 0 or gap.high < 0

    @property
    def equivalent(self) -> bool:
        """Whether the gap is proven to be smaller than the margin."""
        return (
            self.evidence is not None
            and self.evidence.equivalence_p is not None
            and self.evidence.equivalence_p < evidence.ALPHA
        )


@dataclasses.dataclass(frozen=True)
class Predictions:
    """An arm's predictions for the test split, each [seeds, n]; `right` is empty where the labels are unknown."""

    answers: np.ndarray
    confidences: np.ndarray
    right: np.ndarray


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
                    "parity": arm.parity and dataclasses.asdict(arm.parity) | {"agrees": arm.parity.agrees},
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
        by_arm[run["arm"]].append(_summarise_run(records.run(run["id"]), run))
    experiment, sessions = _experiment(document), records.sessions()
    parities = _parities(records, document, experiment)
    arms = [
        _summarise_arm(name, arm, by_arm[name], parities.get(name))
        for name, arm in specification["arms"].items()
    ]
    found = _attribution(document, arms)
    labels = (records.disagreements() or {}).get("test_labels")
    read = {arm.name: _predictions(records, arm, labels) for arm in arms}
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
        answer=answer.answer(arms, pairs, found),
        notes=(sweep.notes if sweep else [])
        + caveats.of_runs(document, arms, pairs)
        + caveats.of_versions(document, untold=untold)
        + caveats.of_missing(records, sessions, arms, predictions),
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
    accuracies = {arm.name: _by_seed(arm) for arm in arms}
    speeds = {
        arm.name: {run.seed: run.images_per_second for run in arm.done if run.images_per_second}
        for arm in arms
    }
    return attribution.attribute(attribution.Plan.from_json(record["plan"]), accuracies, speeds)


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
    corrected = evidence.holm([pair.evidence.p_value if pair.evidence else None for pair in pairs])
    return [
        dataclasses.replace(pair, adjusted_p=p_value) for pair, p_value in zip(pairs, corrected, strict=True)
    ]


def _predictions(
    records: ExperimentRecords, arm: ArmSummary, labels: np.ndarray | None
) -> Predictions | None:
    """An arm's predictions; None where there are none, or not for the same images."""
    kept = [records.run(run.id).predictions() for run in arm.done]
    given = [prediction for prediction in kept if prediction is not None]
    if len({len(prediction["answers"]) for prediction in given}) != 1:
        return None
    answers = np.stack([prediction["answers"] for prediction in given])
    confidences = np.stack([prediction["confidences"] for prediction in given])
    known = labels is not None and answers.shape[1] == len(labels)
    return Predictions(answers, confidences, answers == labels if known else np.empty(0))


def _mcnemar(one: Predictions | None, two: Predictions | None, labels: np.ndarray | None) -> McNemar | None:
    if labels is None or one is None or two is None or not (one.right.size and two.right.size):
        return None
    return evidence.mcnemar(one.answers, two.answers, labels)


def _speeds(runs: list[RunSummary]) -> list[float]:
    return [run.images_per_second for run in runs if run.images_per_second]


def _by_seed(arm: ArmSummary) -> dict[int, float]:
    return {run.seed: run.result["test_accuracy"] for run in arm.done if run.result}


def _parities(
    records: ExperimentRecords, document: Record, experiment: Experiment | None
) -> dict[str, Parity]:
    """The parity of each arm's recipe, where both frameworks have traced it."""
    parities = {}
    for name, arm in experiment.arms.items() if experiment else ():
        recipe = parity.traced_recipe(arm)
        if recipe is not None:
            key = parity.recipe_key(recipe, document["data"]["fingerprint"])
            traces = records.parity(key, FRAMEWORKS)
            if traces is not None:
                parities[name] = parity.compare(traces[0], traces[1], FRAMEWORKS)
    return parities


def _summarise_run(records: RunRecords, entry: Record) -> RunSummary:
    attempts, epochs, result = records.attempts(), records.epochs(), records.result()
    failures = records.failures()
    sessions = [attempt["driver_session"] for attempt in attempts]
    state, cause = "unfinished", None
    if result is not None:
        state = "done"
    elif failures and failures[-1]["given_up"]:
        state, cause = "failed", failures[-1]["cause"]
    timed = epochs[1:] or epochs
    return RunSummary(
        id=entry["id"],
        arm=entry["arm"],
        seed=entry["seed"],
        state=state,
        cause=cause,
        epochs=epochs,
        result=result,
        restarts=len(attempts) - len(set(sessions)),
        resumes=max(len(set(sessions)) - 1, 0),
        workers=attempts[-1]["workers"] if attempts else None,
        precision=attempts[-1].get("precision") if attempts else None,
        startup_seconds=sum(attempts[0]["startup"].values()) if attempts else None,
        images_per_second=float(np.median([epoch["images_per_second"] for epoch in timed]))
        if timed
        else None,
        timed_seconds=_training_seconds(timed),
        train_seconds=_training_seconds(epochs),
    )


def _training_seconds(epochs: list[Record]) -> float:
    return float(sum(epoch["data_seconds"] + epoch["step_seconds"] for epoch in epochs))


def _summarise_arm(name: str, arm: Record, runs: list[RunSummary], parity: Parity | None) -> ArmSummary:
    done = [run for run in runs if run.result is not None]
    accuracies = [run.result["test_accuracy"] for run in done if run.result]
    confusions = [np.array(run.result["confusion"]) for run in done if run.result]
    recipe = {key: value for key, value in arm.items() if key not in ("framework", "seeds")}
    settled = sorted({run.precision for run in runs if run.precision is not None})
    if recipe.get("precision") == "auto" and settled:
        recipe["precision"] = " and ".join(settled)
    return ArmSummary(
        name=name,
        framework=arm["framework"],
        recipe=recipe,
        seeds=arm["seeds"],
        runs=runs,
        parameters=done[0].result["parameters"] if done and done[0].result else None,
        accuracy=mean_interval(accuracies),
        balanced_accuracy=mean_interval([balanced_accuracy(confusion) for confusion in confusions]),
        accuracy_deviation=float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None,
        images_per_second=mean_interval(_speeds(done)),
        parity=parity,
        train_seconds=float(np.mean([run.train_seconds for run in done])) if done else None,
        confusion=np.sum(confusions, axis=0) if confusions else None,
        robustness=_robustness([run.result.get("robustness") for run in done if run.result]),
    )


def _robustness(tested: list[dict[str, list[float]] | None]) -> dict[str, list[Interval]]:
    """Over seeds, where all of them were tested."""
    given = [entry for entry in tested if entry is not None]
    if not given or len(given) < len(tested):
        return {}
    found = {kind: np.array([entry[kind] for entry in given]) for kind in given[0]}
    return {
        kind: [interval for values in table.T if (interval := mean_interval(values.tolist())) is not None]
        for kind, table in found.items()
    }


def compare_pair(
    first: ArmSummary, second: ArmSummary, *, margin: float, mcnemar: McNemar | None = None
) -> PairComparison:
    """The gap between two arms, paired by seed where they share at least two."""
    weighed = evidence.weigh(_by_seed(first), _by_seed(second), margin=margin)
    return PairComparison(
        first=first.name,
        second=second.name,
        differences=differing_factors(first, second),
        same_framework=first.framework == second.framework,
        evidence=weighed,
        adjusted_p=weighed.p_value if weighed else None,
        mcnemar=mcnemar,
        margin=margin,
        log_speed=evidence.log_ratio(_speeds(first.done), _speeds(second.done)),
        parity_failures=[]
        if first.framework == second.framework
        else [
            f"{arm.name}: {arm.parity.parts_at}"
            for arm in (first, second)
            if arm.parity is not None and not arm.parity.agrees
        ],
    )


_FACTOR_NAMES = {"inputs": "preprocessing", "init": "initial distribution", "loss": "loss"}


def differing_factors(first: ArmSummary, second: ArmSummary) -> list[str]:
    """Each factor besides the framework in which two arms differ, as `name (a / b)`."""
    one, two = stated(first.recipe), stated(second.recipe)
    factors = [
        f"{_FACTOR_NAMES.get(key, key.replace('_', ' '))} "
        f"({describe_value(first.recipe.get(key))} / {describe_value(second.recipe.get(key))})"
        for key in first.recipe | second.recipe
        if one.get(key) != two.get(key)
    ]
    if first.seeds != second.seeds:
        factors.append(f"seeds ({', '.join(map(str, first.seeds))} / {', '.join(map(str, second.seeds))})")
    return factors


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
