"""Hold out validation and test images where a source does not, fairly and the same for everybody."""

from __future__ import annotations

import numpy as np

from trainers.data.labelled import Labelled, Split
from trainers.data.spec import DataSpec
from trainers.errors import InputError

_SEED = 0


def hold_out(labelled: Labelled, spec: DataSpec) -> dict[str, Split]:
    """Training, validation and test images; those that the source does not tell apart are drawn once for each split.

    Raises:
        InputError: there are too few images, or groups of them, to hold any out; or the source has a test split of its
            own, but each seed should have another.
    """
    train, test, validation = labelled.train, labelled.test, labelled.validation
    if test is not None and spec.has_many_splits:
        raise InputError(
            f"data.{'folds' if spec.folds else 'resplit'}: {spec.path or spec.source} has a test split of its own, "
            "which stays the same for every seed; leave the field out, or give the training images alone"
        )
    order = _order(train, seed=_SEED if spec.folds else spec.split)
    if spec.folds is not None:
        fold, order = _fold(train, order, spec.split, spec.folds)
        test = train.take(fold)
    elif test is None:
        held_out = _between_groups(train, order, max(1, round(spec.test * len(order))))
        test, order = train.take(order[:held_out]), order[held_out:]
    order = order[: spec.limit]
    if validation is None:
        held_out = _between_groups(train, order, round(spec.validation * len(order)))
        validation, order = train.take(order[:held_out]), order[held_out:]
    if not len(order):
        raise InputError(
            f"{spec.path}: {len(train.labels)} images leave none to train on with test: {spec.test} and "
            f"validation: {spec.validation}; add images or hold out less"
        )
    if train.groups is not None:
        order = order[_stratified(train.labels[order], seed=_SEED)]
    return {"train": train.take(order), "validation": validation, "test": test}


def _fold(train: Split, order: np.ndarray, number: int, folds: int) -> tuple[np.ndarray, np.ndarray]:
    """The test images of a fold, and the others.

    Raises:
        InputError: there are fewer images or groups than folds.
    """
    ends = [round(len(order) * place / folds) for place in (number, number + 1)]
    first, last = (end if end == len(order) else _between_groups(train, order, end) for end in ends)
    if len(order) < folds or first >= last:
        what = "images" if train.groups is None else "groups"
        raise InputError(f"data.folds {folds}: there are too few {what} for so many folds; choose fewer")
    return order[first:last], np.concatenate([order[:first], order[last:]])


def _order(split: Split, *, seed: int) -> np.ndarray:
    """A random order in which every stretch holds the classes in their proportions and no group is interrupted."""
    if split.groups is None:
        return _stratified(split.labels, seed=seed)
    names, members = np.unique(split.groups, return_inverse=True)
    counts = np.zeros((len(names), int(split.labels.max()) + 1), np.int64)
    np.add.at(counts, (members, split.labels), 1)
    places = np.empty(len(names), np.int64)
    places[_stratified(counts.argmax(axis=1), seed=seed)] = np.arange(len(names))
    return np.argsort(places[members], kind="stable")


def _between_groups(split: Split, order: np.ndarray, wanted: int) -> int:
    """Where to cut an order so that no group is on both sides, nearest to what is wanted.

    Raises:
        InputError: there is one group only.
    """
    if split.groups is None or wanted == 0:
        return wanted
    groups = split.groups[order]
    between = np.flatnonzero(groups[1:] != groups[:-1]) + 1
    if not len(between):
        raise InputError(
            f"data.group_by: the {len(order)} images left to split all belong to {str(groups[0])!r}; at least two "
            "groups are needed to hold out test images, and a third for validation"
        )
    return int(between[np.abs(between - wanted).argmin()])


def _stratified(labels: np.ndarray, *, seed: int) -> np.ndarray:
    """A random order of the examples in which every stretch holds the classes in their proportions."""
    labels = labels.astype(np.int64)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels)
    first, sizes = (per_class[labels[by_class]] for per_class in (np.cumsum(counts) - counts, counts))
    offsets = rng.random(len(counts))[labels[by_class]]
    return by_class[np.argsort((np.arange(len(labels)) - first + offsets) / sizes)]


def count_groups(splits: dict[str, Split]) -> dict[str, int] | None:
    """Of how many groups each split holds images; None where each image stands alone."""
    counts = {name: len(set(split.groups)) for name, split in splits.items() if split.groups is not None}
    return counts or None
