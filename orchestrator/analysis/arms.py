"""What the records say of one arm and its runs. Pure."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from orchestrator.analysis.inference import Interval, Scores, mean_interval, share_interval
from orchestrator.analysis.parity import Parity
from orchestrator.store.storage import Record
from orchestrator.store.validation import CheckedRun
from trainers.accuracy import balanced_accuracy, class_accuracy

_TIMED_SECONDS = 0.5
_CROWDED = 0.1
_GUESSING_ERRORS = 3
_SHARE = (0.0, 1.0)


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
    def balanced_accuracy(self) -> float | None:
        """Of the final test, with every class counted alike."""
        return None if self.result is None else balanced_accuracy(np.array(self.result["confusion"]))

    @property
    def is_guessing(self) -> bool:
        """Whether its predictions are no better than one class for all images, or a class at random.

        Neither its accuracy is above the commonest class's share, nor its balanced accuracy above that of a blind
        guess, by three standard errors.
        """
        if self.result is None:
            return False
        confusion = np.array(self.result["confusion"])
        of_class = confusion.sum(axis=1)
        known = of_class[of_class > 0]
        if len(known) < 2:
            return False
        commonest, blind = known.max() / known.sum(), 1 / len(known)
        error = np.sqrt(commonest * (1 - commonest) / known.sum())
        blind_error = np.sqrt(blind * (1 - blind) * (1 / known).sum()) / len(known)
        return bool(
            self.result["test_accuracy"] <= commonest + _GUESSING_ERRORS * error
            and balanced_accuracy(confusion) <= blind + _GUESSING_ERRORS * blind_error
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmSummary:
    """One arm over its seeds."""

    name: str
    framework: str
    recipe: Record
    """With `precision: auto` as its runs resolved it."""
    seeds: list[int]
    runs: list[RunSummary]
    right: np.ndarray | None
    """Bool [seeds, n], which test images each finished run classifies correctly; None unless that is known for all."""
    parameters: int | None
    balanced_accuracy: Interval | None
    """With every class counted alike, however many test images it has."""
    parity: Parity | None
    """Whether both frameworks do the same work on this arm's recipe; None where it was not traced."""
    train_seconds: float | None
    """Mean over the seeds that are done."""
    confusion: np.ndarray | None
    """Int64 [classes, classes], summed over seeds."""
    overlap: float
    """As `Scores` has it."""
    corruption_robustness: dict[str, list[Interval]]
    """By kind of damage, accuracy on undamaged test images and by growing severity; empty where it was not tested."""

    @property
    def done(self) -> list[RunSummary]:
        """The runs with a final test."""
        return [run for run in self.runs if run.state == "done"]

    @property
    def accuracies(self) -> dict[int, float]:
        """Test accuracy by seed."""
        return {run.seed: run.result["test_accuracy"] for run in self.done if run.result}

    @functools.cached_property
    def scores(self) -> Scores:
        """Test accuracy by seed, with each image's where it is known."""
        return Scores(self.accuracies, self.right, self.overlap)

    @property
    def speeds(self) -> dict[int, float]:
        """Images per second by seed."""
        return {run.seed: run.images_per_second for run in self.done if run.images_per_second}

    @property
    def comparable_speeds(self) -> dict[int, float]:
        """Likewise, empty where the arm trained too shortly to be timed."""
        return {} if self.is_too_short_to_time else self.speeds

    @functools.cached_property
    def accuracy(self) -> Interval | None:
        """Test accuracy over the seeds that are done, with their and the images' sampling error."""
        return share_interval(self.scores)

    @property
    def accuracy_deviation(self) -> float | None:
        """Standard deviation over seeds."""
        found = [*self.accuracies.values()]
        return float(np.std(found, ddof=1)) if len(found) > 1 else None

    @functools.cached_property
    def images_per_second(self) -> Interval | None:
        """Over the seeds that are done."""
        return mean_interval([*self.speeds.values()])

    @property
    def guessing(self) -> list[int]:
        """Seeds whose predictions are no better than a guess."""
        return [run.seed for run in self.done if run.is_guessing]

    @property
    def is_too_short_to_time(self) -> bool:
        """Whether its runs trained for less than half a second where their speed was taken."""
        return any(run.timed_seconds < _TIMED_SECONDS for run in self.done)

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


@dataclasses.dataclass(frozen=True)
class Predictions:
    """An arm's predictions for the test split, each [seeds, n]; `right` is empty where the labels are unknown."""

    predicted: np.ndarray
    confidences: np.ndarray
    right: np.ndarray


def summarise_run(run: CheckedRun) -> RunSummary:
    """What a run's records say."""
    attempts, epochs, failures = run.attempts, run.epochs, run.failures
    sessions = [attempt["driver_session"] for attempt in attempts]
    state, cause = "unfinished", None
    if run.result is not None:
        state = "done"
    elif failures and failures[-1]["permanent"]:
        state, cause = "failed", failures[-1]["cause"]
    timed = epochs[1:] or epochs
    return RunSummary(
        id=run.entry["id"],
        arm=run.entry["arm"],
        seed=run.entry["seed"],
        state=state,
        cause=cause,
        epochs=epochs,
        result=run.result,
        restarts=len(attempts) - len(set(sessions)),
        resumes=max(len(set(sessions)) - 1, 0),
        workers=attempts[-1]["workers"] if attempts else None,
        precision=attempts[-1].get("precision") if attempts else None,
        settings=(attempts[-1].get("environment") or {}).get("settings", {}) if attempts else {},
        startup_seconds=sum(attempts[0]["startup"].values()) if attempts else None,
        is_cold=bool(attempts)
        and any(attempts[0]["startup"].get(part, 0) > 0 for part in ("workers_seconds", "import_seconds")),
        images_per_second=float(np.median([epoch["images_per_second"] for epoch in timed]))
        if timed
        else None,
        timed_seconds=_training_seconds(timed),
        train_seconds=_training_seconds(epochs),
        others_share=float(np.mean([epoch.get("others_share") or 0.0 for epoch in timed])) if timed else 0.0,
    )


def _training_seconds(epochs: list[Record]) -> float:
    return float(sum(epoch["data_seconds"] + epoch["step_seconds"] for epoch in epochs))


def summarise_arm(
    name: str,
    arm: Record,
    runs: list[RunSummary],
    *,
    right: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    overlap: float = 0.0,
) -> ArmSummary:
    """Put an arm's runs together.

    Args:
        name: the arm's.
        arm: as the experiment's document has it.
        runs: all of it.
        right: bool [finished seeds, n], the test images that each finished run classifies correctly, if known for all.
        labels: int [n], their classes; known wherever `right` is.
        overlap: as `Scores` has it.
    """
    done = [run for run in runs if run.result is not None]
    confusions = [np.array(run.result["confusion"]) for run in done if run.result]
    recipe = {key: value for key, value in arm.items() if key not in ("framework", "seeds")}
    resolved = sorted({run.precision for run in runs if run.precision is not None})
    if recipe.get("precision") == "auto" and resolved:
        recipe["precision"] = " and ".join(resolved)
    return ArmSummary(
        name=name,
        framework=arm["framework"],
        recipe=recipe,
        seeds=arm["seeds"],
        runs=runs,
        right=right,
        parameters=done[0].result.get("parameters") if done and done[0].result else None,
        overlap=overlap,
        balanced_accuracy=share_interval(
            dataclasses.replace(balanced_scores(done, right, labels), overlap=overlap)
        ),
        parity=None,
        train_seconds=float(np.mean([run.train_seconds for run in done])) if done else None,
        confusion=np.sum(confusions, axis=0) if confusions else None,
        corruption_robustness=_corruption_robustness(
            [run.result.get("corruption_robustness") for run in done if run.result]
        ),
    )


def balanced_scores(done: list[RunSummary], right: np.ndarray | None, labels: np.ndarray | None) -> Scores:
    """Balanced accuracy by seed; an image weighs as much as its class is rare."""
    by_seed = {run.seed: score for run in done if (score := run.balanced_accuracy) is not None}
    if right is None or labels is None:
        return Scores(by_seed)
    of_class = np.bincount(labels)
    weights = len(labels) / np.count_nonzero(of_class) / of_class[labels]
    return Scores(by_seed, right * weights)


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


def gather_predictions(runs: list[CheckedRun], labels: np.ndarray | None) -> Predictions | None:
    """The predictions of an arm's finished runs that have any; None where there are none."""
    given = [run.predictions for run in runs if run.predictions is not None]
    if not given:
        return None
    predicted = np.stack([prediction.predicted for prediction in given])
    confidences = np.stack([prediction.confidences for prediction in given])
    return Predictions(predicted, confidences, np.empty(0, bool) if labels is None else predicted == labels)
