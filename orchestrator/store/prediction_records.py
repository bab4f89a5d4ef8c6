"""Reads the predictions that runs left behind."""

from __future__ import annotations

import dataclasses

import numpy as np

from orchestrator.store.checked_files import (
    SAME_ACCURACY,
    Left,
    are_shares,
    are_whole,
    read_arrays,
)
from orchestrator.store.old_records import upgraded_predictions
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictions:
    """What one run predicted for each test example."""

    predicted: np.ndarray | None
    """Int [n] classes; None for a regression and for several labels."""
    confidences: np.ndarray | None
    """Float [n], the probabilities of these classes, where they are known."""
    scores: np.ndarray | None
    """Probabilities float [n, classes], or predicted values [n]; None where only classes are known."""
    labels: np.ndarray | None
    """Int [n] classes, 0 or 1 [n, labels], or float [n]; None where they are not known."""
    ids: np.ndarray | None = None
    """Names of the test examples, where a training function gave them."""


def read_handed_over(records: ExperimentRecords, name: str, left: Left) -> Predictions | None:
    """The predictions that a training function left in its last checkpoint."""
    arrays = read_arrays(records, name, left)
    if arrays is None:
        return None
    given, labels, ids = arrays.get("predictions"), arrays.get("labels"), arrays.get("ids")
    if given is None or labels is None:
        left.out(name, "it needs the arrays predictions and labels")
        return None
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    are_numbers = all(array.dtype.kind in "biuf" and np.isfinite(array).all() for array in (given, labels))
    if not are_numbers or given.ndim not in (1, 2) or not labels.ndim or not len(labels) == len(given) > 0:
        left.out(
            name,
            f"predictions {given.shape} and labels {labels.shape} are not finite numbers, a row for each example",
        )
        return None
    if ids is not None and (ids.shape != (len(labels),) or len(np.unique(ids)) < len(ids)):
        left.out(name, "ids are not one for each example, all different")
        return None
    found = _understood(given, labels, ids)
    if found is None:
        left.out(
            name,
            f"predictions {given.shape} do not fit labels {labels.shape}: neither classes, nor values, nor several "
            "labels of 0 and 1",
        )
    return found


def _understood(given: np.ndarray, labels: np.ndarray, ids: np.ndarray | None) -> Predictions | None:
    """Predictions by their form: classes, probabilities, values of a regression, or several labels."""
    if labels.ndim == 2:
        if given.shape != labels.shape or not np.isin(labels, (0, 1)).all():
            return None
        return Predictions(
            predicted=None, confidences=None, scores=given.astype(float), labels=labels.astype(int), ids=ids
        )
    if labels.ndim != 1:
        return None
    is_class = labels.dtype.kind in "biu" and labels.min() >= 0
    if given.ndim == 1 and is_class and given.dtype.kind in "biu" and given.min() >= 0:
        return Predictions(
            predicted=given.astype(int), confidences=None, scores=None, labels=labels.astype(int), ids=ids
        )
    if given.ndim == 1 and is_class and labels.max() <= 1 and are_shares(given):
        given = np.stack([1 - given, given], axis=1)
    if given.ndim == 1:
        return Predictions(
            predicted=None, confidences=None, scores=given.astype(float), labels=labels.astype(float), ids=ids
        )
    if not is_class or labels.max() >= given.shape[1]:
        return None
    are_probabilities = are_shares(given) and np.allclose(given.sum(axis=1), 1, atol=1e-3)
    return Predictions(
        predicted=given.argmax(axis=1),
        confidences=given.max(axis=1).astype(float) if are_probabilities else None,
        scores=given.astype(float),
        labels=labels.astype(int),
        ids=ids,
    )


def read_predictions(
    records: ExperimentRecords,
    name: str,
    result: Record,
    classes: int,
    images: int,
    labels: np.ndarray | None,
    left: Left,
) -> Predictions | None:
    """The predictions of a built-in run; None, and a note, where they are damaged."""
    arrays = read_arrays(records, name, left)
    if arrays is None:
        return None
    arrays = upgraded_predictions(arrays)
    predicted, confidences = arrays.get("predicted"), arrays.get("confidences")
    if predicted is None or not are_whole(predicted, (images,), classes):
        left.out(name, f"predicted is not one of {classes} classes for each of {images} images")
        return None
    if confidences is None or confidences.shape != (images,) or not are_shares(confidences):
        left.out(name, f"confidences are not a share between 0 and 1 for each of {images} images")
        return None
    if labels is not None and images:
        right = float(np.mean(predicted == labels))
        if abs(right - result["test_accuracy"]) > SAME_ACCURACY:
            told = result["test_accuracy"]
            left.out(name, f"its predictions have an accuracy of {right:.4f}, result.json says {told:.4f}")
            return None
    return Predictions(predicted=predicted, confidences=confidences, scores=None, labels=labels)
