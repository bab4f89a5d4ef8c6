"""One run as its records describe it."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping

import numpy as np

from orchestrator.experiment.metric import RECORDED
from orchestrator.store.storage import Record
from orchestrator.store.validation import CheckedRun
from trainers.accuracy import balanced_accuracy

TIMED_SECONDS = 0.5
CROWDED = 0.1
_GUESSING_ERRORS = 3
_MOST_CLASSES = 1000
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


def without_clocks(told: object) -> object:
    """The same without the metrics that measure time."""
    if isinstance(told, dict):
        return {name: value for name, value in told.items() if not _OF_A_CLOCK.search(name)}
    return [without_clocks(entry) for entry in told] if isinstance(told, list) else told


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
