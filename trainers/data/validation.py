"""Look at the data before anything is trained on it."""

from __future__ import annotations

import hashlib

import numpy as np

from trainers.data.labelled import IN_WORDS, check_task
from trainers.data.spec import DataSpec
from trainers.errors import InputError

IMBALANCE = 10
"""Largest class over smallest, above which accuracy alone misleads."""
FEW_LEVELS = 64
"""A quarter of what 8 bits hold."""
_ALMOST_ALL = 0.99
"""Share of the pixels that decides, so that a mark burnt into the pictures does not."""


def classes_of_numbers(labels: np.ndarray) -> list[str]:
    """Names for the classes of training labels that are mere numbers, from 0 to the largest.

    Raises:
        InputError: they are no whole numbers, or too large to count classes.
    """
    _check_whole(labels, where="training")
    largest = int(labels.max()) if len(labels) else -1
    if largest >= max(len(labels), 1):
        raise InputError(
            f"a training label is {largest}, but there are {len(labels)} training images; number the classes from 0"
        )
    return [str(label) for label in range(largest + 1)]


def check_labels(labels: np.ndarray, *, num_classes: int, where: str) -> None:
    """Refuse labels that are not whole numbers from 0 to num_classes - 1.

    Raises:
        InputError: names the first offending row and its value.
    """
    _check_whole(labels, where=where)
    outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(outside):
        row = int(outside[0])
        raise InputError(
            f"{len(outside)} {where} labels are out of range: row {row} has {int(labels[row])}; "
            f"labels must be 0 to {num_classes - 1}"
        )


def _check_whole(labels: np.ndarray, *, where: str) -> None:
    if np.issubdtype(labels.dtype, np.floating) and np.isfinite(labels).all():
        check_task([f"{label:g}" for label in labels.tolist()], f"the {where} labels")
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"the {where} labels are {labels.dtype}; whole numbers, or names, are needed")


def grey_levels(deep: np.ndarray, training: np.ndarray) -> list[str]:
    """A note on images whose pixels have few of the 256 values that 8 bits hold.

    Args:
        deep: int64 [256], how many pixels of the images stored in more than 8 bits have each value.
        training: int64 [channels, 256], the same of all training images.
    """
    remedy = "set data.window to the stored values that matter, or data.stretch to percentiles"
    if deep.any():
        distinct = int(np.count_nonzero(deep))
        commonest = np.cumsum(np.sort(deep)[::-1])
        needed = int(np.searchsorted(commonest, _ALMOST_ALL * commonest[-1])) + 1
        if needed <= FEW_LEVELS:
            which, number = ("", distinct) if distinct <= FEW_LEVELS else ("99 % of ", needed)
            return [
                f"{which}the pixels of the images stored in more than 8 bits keep {number} of 256 grey levels; {remedy}"
            ]
    used = np.flatnonzero(training.any(axis=0))
    if used[-1] - used[0] < FEW_LEVELS:
        return [
            f"the training pixels have {len(used)} of 256 grey levels, from {used[0]} to {used[-1]}: if that is all "
            f"that the images hold, {remedy}"
        ]
    return []


def outside_window(spec: DataSpec, stored: list[tuple[str, float, float]]) -> list[str]:
    """A note on images that `data.window` leaves plain black or white.

    Args:
        spec: has the window.
        stored: name, lowest and highest stored value of each image.

    Raises:
        InputError: these are all images.
    """
    if spec.window is None:
        return []
    black, white = spec.window
    outside = [name for name, low, high in stored if high <= black or low >= white]
    if outside and len(outside) == len(stored):
        lowest, highest = min(low for _, low, _ in stored), max(high for *_, high in stored)
        raise InputError(
            f"data.window [{black:g}, {white:g}] leaves all images of {spec.path} plain black or white: their stored "
            f"values go from {lowest:g} to {highest:g}"
        )
    if not outside:
        return []
    return [
        f"{len(outside)} of {len(stored)} images, such as {outside[0]}, lie wholly outside data.window and are plain "
        "black or white"
    ]


def warnings(arrays: dict[str, np.ndarray], class_names: list[str]) -> list[str]:
    """What a careful reader would want to know: imbalance, absent classes, contradictions, leaks.

    Args:
        arrays: `train_images` uint8 [n, height, width, channels] and `train_labels` int64 [n], and so on of the
            other splits.
        class_names: a name for each label.
    """
    found = []
    counts, test_counts = (
        np.bincount(arrays[f"{split}_labels"], minlength=len(class_names)) for split in ("train", "test")
    )
    found += _without_images(counts, class_names, "training")
    present = counts[counts > 0]
    if present.max() > IMBALANCE * present.min():
        found.append(
            f"the classes are out of balance: {present.max()} images of the largest, "
            f"{present.min()} of the smallest; read the balanced and the per-class accuracy too, and see "
            "loss.class_weights"
        )
    found += _without_images(test_counts, class_names, "test")
    seen: dict[bytes, int] = {}
    contradicted = set()
    for split in ("train", "validation"):
        for image, label in zip(arrays[f"{split}_images"], arrays[f"{split}_labels"].tolist(), strict=True):
            digest = _digest(image)
            if seen.setdefault(digest, label) != label:
                contradicted.add(digest)
    if contradicted:
        found.append(f"{len(contradicted)} training images are there under two classes or more")
    leaked = sum(_digest(image) in seen for image in arrays["test_images"])
    if leaked:
        found.append(
            f"{leaked} of {len(arrays['test_images'])} test images are also training images, "
            "so the test accuracy flatters"
        )
    return found


def _without_images(counts: np.ndarray, class_names: list[str], where: str) -> list[str]:
    """A note on the classes of which a split has no image."""
    names = [class_names[label] for label in np.flatnonzero(counts == 0)]
    if len(names) < 2:
        return [f"class {name!r} has no {where} image" for name in names]
    return [f"{len(names)} of {len(class_names)} classes, such as {names[0]!r}, have no {where} image"]


def shared_groups(groups: dict[str, np.ndarray | None]) -> list[str]:
    """What a careful reader would want to know of groups that a source's own splits share.

    Args:
        groups: of each split, the group of each image, str [n]; None where it is not told.
    """
    names = {split: set() if found is None else set(found.tolist()) for split, found in groups.items()}
    found = []
    for split, others in (("validation", ("train",)), ("test", ("train", "validation"))):
        shared = names[split] & set.union(*(names[other] for other in others))
        if shared:
            found.append(
                f"{len(shared)} of {len(names[split])} groups of the {split} images, such as {min(shared)!r}, have "
                f"{' or '.join(IN_WORDS[other] for other in others)} images too, so the {split} accuracy flatters"
            )
    return found


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()
