"""Metrics that are computed from the predictions of a run, for built-in arms and training functions alike.

A metric is a function of labels and scores that returns a number, or raises ValueError where such predictions have
none. Labels are int [n] classes, 0 or 1 [n, labels] where an example has several, or float [n] of a regression. Scores
are probabilities [n, classes], scores [n, labels], or predicted values [n]; where only classes are known, the predicted
class has the score 1. Other packages add metrics through the entry point group `tandem.metrics`. scikit-learn is
imported where it is used: commands that only train do not load it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points

import numpy as np

from orchestrator.experiment.metric import KNOWN, RECORDED
from orchestrator.store.prediction_records import Predictions
from trainers.errors import InputError, one_line

GROUP = "tandem.metrics"
Function = Callable[[np.ndarray, np.ndarray], float]
_THRESHOLD = 0.5


def _test_accuracy(labels: np.ndarray, scores: np.ndarray) -> float:
    return float(np.mean(_classes(labels, scores) == labels))


def _balanced_accuracy(labels: np.ndarray, scores: np.ndarray) -> float:
    from sklearn.metrics import balanced_accuracy_score

    present = np.unique(labels)
    predicted = np.where(np.isin(_classes(labels, scores), present), _classes(labels, scores), -1)
    return float(balanced_accuracy_score(labels, predicted))


def _macro_f1(labels: np.ndarray, scores: np.ndarray) -> float:
    from sklearn.metrics import f1_score

    predicted = scores >= _THRESHOLD if labels.ndim == 2 else _classes(labels, scores)
    return float(f1_score(labels, predicted, average="macro", zero_division=0))


def _top5_accuracy(labels: np.ndarray, scores: np.ndarray) -> float:
    _classes(labels, scores)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    return float(np.mean((best == labels[:, None]).any(axis=1)))


def _auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return float(np.mean([roc_auc_score(*column) for column in _columns(labels, scores)]))


def _mean_average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    from sklearn.metrics import average_precision_score

    return float(np.mean([average_precision_score(*column) for column in _columns(labels, scores)]))


def _rmse(labels: np.ndarray, scores: np.ndarray) -> float:
    return float(np.sqrt(np.mean(_errors(labels, scores) ** 2)))


def _mae(labels: np.ndarray, scores: np.ndarray) -> float:
    return float(np.mean(np.abs(_errors(labels, scores))))


def _classes(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    if labels.ndim != 1 or scores.ndim != 2:
        raise ValueError("it is for predictions of classes")
    return np.asarray(scores.argmax(axis=1))


def _columns(labels: np.ndarray, scores: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each class or label that some examples have and others lack: who has it, and the scores."""
    if scores.ndim != 2:
        raise ValueError("it is for predictions of classes and of several labels")
    has = labels if labels.ndim == 2 else labels[:, None] == np.arange(scores.shape[1])
    columns = [(has[:, place], scores[:, place]) for place in range(scores.shape[1])]
    columns = [column for column in columns if 0 < column[0].sum() < len(labels)]
    if not columns:
        raise ValueError("no class has test examples with and without it")
    return columns


def _errors(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    if labels.ndim != 1 or scores.ndim != 1:
        raise ValueError("it is for the predicted values of a regression")
    return np.asarray(labels - scores)


_OWN: dict[str, Function] = {
    "test_accuracy": _test_accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "macro_f1": _macro_f1,
    "top5_accuracy": _top5_accuracy,
    "auroc": _auroc,
    "mean_average_precision": _mean_average_precision,
    "rmse": _rmse,
    "mae": _mae,
}
_RANKS = {"top5_accuracy", "auroc", "mean_average_precision"}
"""What needs the probabilities of all classes, not of the predicted one alone."""

_OF_BUILT_IN = (*RECORDED, "macro_f1")
"""Built-in runs keep the predicted class of each test image."""


def require(wanted: Iterable[str]) -> None:
    """Check that built-in arms can have some metrics.

    Raises:
        InputError: one is neither recorded nor computed; says which there are.
    """
    installed = _installed()
    for name in wanted:
        if name not in (*_OF_BUILT_IN, *installed):
            raise InputError(
                f"metric {name!r}: built-in arms have no such metric; choose from "
                f"{', '.join([*_OF_BUILT_IN, *installed])}, or install a package that has it as an entry point of the "
                f"group {GROUP}"
            )
        if name in installed:
            _load(installed[name])


def compute(name: str, predictions: Predictions) -> float | None:
    """A metric of one run's predictions; None where there is no such metric.

    Raises:
        ValueError: the predictions have no such value; says why.
        InputError: the metric of another package cannot be imported.
    """
    function = _OWN.get(name)
    if function is None:
        entry = _installed().get(name)
        if entry is None:
            return None
        function = _load(entry)
    labels, scores = predictions.labels, predictions.scores
    if labels is None:
        raise ValueError("the labels of the test examples are not known")
    if scores is None:
        assert predictions.predicted is not None
        if name in _RANKS:
            raise ValueError(
                "it needs the probabilities of all classes, and only the predicted classes are known"
            )
        classes = 1 + int(max(labels.max(), predictions.predicted.max()))
        scores = (predictions.predicted[:, None] == np.arange(classes)).astype(float)
    try:
        value = float(function(labels, scores))
    except Exception as error:  # whatever another package's function raises
        raise ValueError(one_line(error) if name not in _OWN else str(error)) from error
    if not np.isfinite(value):
        raise ValueError("it is no number")
    return value


def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP) if entry.name not in KNOWN}


def _load(entry: EntryPoint) -> Function:
    try:
        function: Function = entry.load()
    except Exception as error:  # whatever another package raises when it is imported
        raise InputError(
            f"metric {entry.name!r}: {entry.value} cannot be imported: {one_line(error)}"
        ) from error
    if not callable(function):
        raise InputError(f"metric {entry.name!r}: {entry.value} is no function of labels and scores")
    return function
