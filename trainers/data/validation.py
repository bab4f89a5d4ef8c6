"""Look at the data before anything is trained on it."""

from __future__ import annotations

import hashlib

import numpy as np

from trainers.errors import InputError

IMBALANCE = 10
"""Largest class over smallest, above which accuracy alone misleads."""


def check_labels(labels: np.ndarray, *, num_classes: int, where: str) -> None:
    """Refuse labels that are not whole numbers from 0 to num_classes - 1.

    Raises:
        InputError: names the first offending row and its value.
    """
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"the {where} labels are {labels.dtype}; whole numbers are needed")
    outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(outside):
        row = int(outside[0])
        raise InputError(
            f"{len(outside)} {where} labels are out of range: row {row} has {int(labels[row])}; "
            f"labels must be 0 to {num_classes - 1}"
        )


def warnings(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    class_names: list[str],
) -> list[str]:
    """What a careful reader would want to know: imbalance, absent classes, leaked test images.

    Args:
        train: images uint8 [n, height, width, channels] and labels int64 [n], validation included.
        test: likewise.
        class_names: a name for each label.
    """
    found = []
    counts = np.bincount(train[1], minlength=len(class_names))
    for label in np.flatnonzero(counts == 0):
        found.append(f"class {class_names[label]!r} has no training image")
    present = counts[counts > 0]
    if present.max() > IMBALANCE * present.min():
        found.append(
            f"the classes are out of balance: {present.max()} images of the largest, "
            f"{present.min()} of the smallest; read the per-class accuracy, not only the mean"
        )
    for label in np.flatnonzero(np.bincount(test[1], minlength=len(class_names)) == 0):
        found.append(f"class {class_names[label]!r} has no test image")
    if train[0].shape[1:] == test[0].shape[1:]:
        seen = {_digest(image) for image in train[0]}
        leaked = sum(_digest(image) in seen for image in test[0])
        if leaked:
            found.append(
                f"{leaked} of {len(test[0])} test images are also training images, "
                "so the test accuracy flatters"
            )
    return found


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()
