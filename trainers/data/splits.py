"""Hold out validation and test images where a source does not, fairly and the same for everybody."""

from __future__ import annotations

import numpy as np

from trainers.data.labelled import Labelled, Split
from trainers.data.spec import DataSpec
from trainers.errors import InputError

_SEED = 0


def hold_out(labelled: Labelled, spec: DataSpec) -> dict[str, Split]:
    """Training, validation and test images; those that the source does not tell apart are drawn once for all.

    Raises:
        InputError: there are too few images, or groups of them, to hold any out.
    """
    train, test, validation = labelled.train, labelled.test, labelled.validation
    order = _order(train)
    if test is None:
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
        order = order[_stratified(train.labels[order])]
    return {"train": train.take(order), "validation": validation, "test": test}


def _order(split: Split) -> np.ndarray:
    """A random order in which every stretch holds the classes in their proportions and no group is interrupted."""
    if split.groups is None:
        return _stratified(split.labels)
    names, members = np.unique(split.groups, return_inverse=True)
    counts = np.zeros((len(names), int(split.labels.max()) + 1), np.int64)
    np.add.at(counts, (members, split.labels), 1)
    places = np.empty(len(names), np.int64)
    places[_stratified(counts.argmax(axis=1))] = np.arange(len(names))
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


def _stratified(labels: np.ndarray) -> np.ndarray:
    """A random order of the examples in which every stretch holds the classes in their proportions."""
    labels = labels.astype(np.int64)
    rng = np.random.default_rng(_SEED)
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
