"""Labelled images, still as their source has them: what every reader gives."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from trainers.errors import InputError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
IN_WORDS = {"train": "training", "validation": "validation", "test": "test"}
"""What messages call the splits."""


def in_words(counts: dict[str, int]) -> str:
    """How many of something each split has: `96 training, 8 validation, 24 test`."""
    return ", ".join(f"{count:,} {IN_WORDS[split]}" for split, count in counts.items())


@dataclasses.dataclass(frozen=True)
class Encoded:
    """An image file, opened when it is looked at, and the name to blame it by."""

    name: str
    open: Callable[[], BinaryIO]

    @classmethod
    def of_file(cls, path: Path, name: str) -> Encoded:
        """A picture in a file of its own."""
        return cls(name, lambda: path.open("rb"))


@dataclasses.dataclass(frozen=True)
class Split:
    """Images, either uint8 [n, height, width, channels] or encoded, with a label for each."""

    images: np.ndarray | list[Encoded]
    labels: np.ndarray
    groups: np.ndarray | None = None
    """What each image belongs to, such as a patient, str [n]; None where each stands alone."""

    def take(self, places: np.ndarray) -> Split:
        """The images at these places, in their order."""
        in_memory = isinstance(self.images, np.ndarray)
        images = self.images[places] if in_memory else [self.images[place] for place in places]
        return Split(images, self.labels[places], None if self.groups is None else self.groups[places])


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A whole source, with those splits that it has."""

    train: Split
    class_names: list[str] | None
    """None where the source only has numbers."""
    validation: Split | None = None
    test: Split | None = None
    notes: list[str] = dataclasses.field(default_factory=list)
    """What a reader should know."""


_SPLIT_NAMES = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val"},
    "test": {"test", "testing"},
}
"""Words in the names of each split's folders and files."""


def split_named(name: str) -> str | None:
    """Which split that is called after, if any: data/train-00000-of-00001.parquet, Testing, training_set."""
    words = set(re.findall("[a-z]+", name.lower()))
    return next((kind for kind, names in _SPLIT_NAMES.items() if names & words), None)


def classes_of_names(splits: dict[str, Split], source: Path) -> tuple[list[str], dict[str, Split]]:
    """Class names in their order, those that are numbers by value, and the splits with each label's place among them.

    Args:
        splits: whose labels are names, str [n].
        source: to blame.

    Raises:
        InputError: a class has no training image.
    """
    class_names = sorted({*splits["train"].labels.tolist()})
    if all(name.isdecimal() for name in class_names):
        class_names.sort(key=int)
    places = {name: place for place, name in enumerate(class_names)}
    named = {name for split in splits.values() for name in split.labels.tolist()}
    if unknown := named - {*class_names}:
        raise InputError(f"{source}: no training picture is of the classes {', '.join(sorted(unknown))}")
    return class_names, {
        kind: dataclasses.replace(
            split, labels=np.array([places[name] for name in split.labels.tolist()], np.int64)
        )
        for kind, split in splits.items()
    }


def column_of(file: Path, names: list[str], known: tuple[str, ...], what: str) -> str:
    """The column of a file that holds something, by the first name that is known for it."""
    found = next((name for name in known if name in names), None)
    if found is None:
        raise InputError(
            f"{file} has the columns {', '.join(names)}; one with {what} is needed, called {' or '.join(known)}"
        )
    return found


def check_group_column(file: Path, names: list[str], group_by: str | None) -> None:
    """Refuse a column of groups that a file does not have."""
    if group_by is not None and group_by not in names:
        raise InputError(f"data.group_by {group_by!r} is not a column of {file}: {', '.join(names)}")


def told_groups(file: Path, group_by: str, values: Sequence[object]) -> np.ndarray:
    """What each image belongs to, str [n].

    Raises:
        InputError: an image has no value.
    """
    missing = sum(value is None or value != value or value == "" for value in values)
    if missing:
        raise InputError(
            f"data.group_by: {missing} of {len(values)} images have no {group_by} in {file}; each needs one, "
            "its own if it stands alone"
        )
    return np.array([str(value) for value in values])


def is_hidden(path: Path) -> bool:
    """Whether that is what notebooks and file managers leave behind: .ipynb_checkpoints, ._1.jpg, __MACOSX."""
    return path.name.startswith((".", "__MACOSX"))
