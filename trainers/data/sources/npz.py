"""An `.npz` file of arrays."""

from __future__ import annotations

import dataclasses
import zipfile
import zlib
from pathlib import Path

import numpy as np

from trainers.data.arrays import as_labels, as_pixels
from trainers.data.labelled import IN_WORDS, Labelled, Split, labelled, told_groups
from trainers.data.source import Source
from trainers.data.spec import DataSpec
from trainers.errors import InputError

_NAMES = (
    {"train": ("x_train", "y_train"), "validation": ("x_val", "y_val"), "test": ("x_test", "y_test")},
    {
        "train": ("train_images", "train_labels"),
        "validation": ("val_images", "val_labels"),
        "test": ("test_images", "test_labels"),
    },
    {"train": ("images", "labels")},
)
"""Images and labels of each split, after Keras, after MedMNIST, and of a whole yet to be split."""


def _read(path: Path | None, spec: DataSpec) -> Labelled:
    assert path is not None
    try:
        with zipfile.ZipFile(path):  # np.load takes single arrays too
            pass
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read as an .npz of plain arrays: {error}") from error

    for convention in _NAMES:
        splits = {
            kind: Split(
                as_pixels(arrays[images], IN_WORDS[kind], spec), as_labels(arrays[labels], IN_WORDS[kind])
            )
            for kind, (images, labels) in convention.items()
            if images in arrays and labels in arrays
        }
        if "train" in splits:
            if spec.group_by is not None:
                splits["train"] = dataclasses.replace(
                    splits["train"],
                    groups=_array_of_groups(path, arrays, spec.group_by, len(splits["train"].labels)),
                )
            names = arrays.get("class_names")
            return labelled(splits, None if names is None else names.reshape(-1).astype(str).tolist(), path)
    raise InputError(
        f"{path} holds the arrays {', '.join(arrays) or 'none'}; x_train and y_train (x_val, y_val, x_test, "
        "y_test), train_images and train_labels, or images and labels are needed"
    )


def _array_of_groups(path: Path, arrays: dict[str, np.ndarray], group_by: str, images: int) -> np.ndarray:
    if group_by not in arrays:
        raise InputError(f"data.group_by {group_by!r} is not one of the arrays {', '.join(arrays)}")
    values = arrays[group_by].reshape(-1)
    groups = told_groups(path, group_by, list(values.astype(str) if values.dtype.kind == "S" else values))
    if len(groups) != images:
        raise InputError(f"data.group_by {group_by!r} has {len(groups)} values for {images} training images")
    return groups


SOURCE = Source(
    read=_read,
    recognizes=lambda path: path.suffix.lower() == ".npz" and path.is_file(),
    fields=frozenset({"group_by"}),
)
