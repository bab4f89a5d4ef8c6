"""Labelled images, still as their source has them: what every reader gives."""

from __future__ import annotations

import dataclasses
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import numpy as np

from trainers.errors import InputError

# fmt: off
IMAGE_SUFFIXES = frozenset({
    ".avif", ".bmp", ".dcm", ".dicom", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm",
    ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
})
# fmt: on
_MOST_NAMED = 5
"""Names that a message has at most."""
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

    @classmethod
    def of_part(cls, path: Path, start: int, size: int, name: str) -> Encoded:
        """A picture among others in a file, by its first byte and its size."""

        def read() -> BinaryIO:
            with path.open("rb") as file:
                file.seek(start)
                return io.BytesIO(file.read(size))

        return cls(name, read)


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
    scratch: TemporaryDirectory[str] | None = None
    """Holds unpacked images until they are decoded."""


_SPLIT_NAMES = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing", "eval", "evaluation"},
}
"""Words in the names of each split's folders and files."""
# fmt: off
_OF_ANY_DATA = frozenset({
    "data", "dataset", "datasets", "file", "files", "folder", "full", "image", "images", "img", "imgs", "jpeg", "jpg",
    "mini", "new", "old", "pic", "pics", "picture", "pictures", "photo", "photos", "png", "raw", "sample", "samples",
    "set", "sets", "small", "split",
})
# fmt: on
"""Words that say nothing about what is in a folder."""


def split_named(name: str) -> str | None:
    """The split that a file or folder is named after: data/train-00000-of-00001.parquet, Testing, training_set."""
    words = set(_words(name))
    return next((kind for kind, names in _SPLIT_NAMES.items() if names & words), None)


def splits_named(names: Iterable[str]) -> dict[str, str]:
    """The split of each name that says nothing else: test1, train_images; birds_train, where there is birds_test.

    Unlike `split_named` it leaves out what may be a class, such as `test tube`.
    """
    kinds = {name: kind for name in names if (kind := split_named(name))}
    rests = {
        name: tuple(w for w in _words(name) if w not in _SPLIT_NAMES[kind] | _OF_ANY_DATA)
        for name, kind in kinds.items()
    }
    return {
        name: kind
        for name, kind in kinds.items()
        if not rests[name] or any(rests[other] == rests[name] and kinds[other] != kind for other in kinds)
    }


def _words(name: str) -> list[str]:
    """In lower case: trainA and TrainSet are two, and so is testset."""
    found = []
    for word in re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name):
        word = word.lower()
        begins = [split for names in _SPLIT_NAMES.values() for split in names if word.startswith(split)]
        rests = [(split, word.removeprefix(split)) for split in begins]
        found += next(([*pair] for pair in rests if pair[1] in _OF_ANY_DATA), [word])
    return found


_FEWEST_LABELS = 4
"""Below it nothing can be said of what the labels are."""
_ALMOST_ALL = 0.8
"""Share of distinct labels from which they are no classes; of numbers with fractions a fifth will do."""
_SEPARATORS = "|;,/+& "
_OWN_FUNCTION = (
    "tandem's own recipes give each picture one class; {task} is trained by a function of your own, "
    "arms.NAME.train_loop"
)


def check_task(labels: Sequence[str], source: Path | str) -> None:
    """Refuse labels that are measurements, or several classes at once.

    Args:
        labels: of all images, in words.
        source: to blame.

    Raises:
        InputError: says what they are taken for.
    """
    distinct = set(labels)
    for label in sorted(distinct):
        parts = _parts(label, distinct)
        if len(parts) > 1:
            raise InputError(
                f"{source}: the label {label!r} names {len(parts)} classes; "
                + _OWN_FUNCTION.format(task="a model of several labels")
            )
    share = len(distinct) / max(len(labels), 1)
    limit = _ALMOST_ALL / 4 if _are_measured(distinct) else _ALMOST_ALL
    if len(labels) >= _FEWEST_LABELS and len(distinct) > 2 and share >= limit:
        raise InputError(
            f"{source}: the labels have {len(distinct)} values in {len(labels)} pictures, such as "
            f"{min(distinct)!r}, so they are no classes; " + _OWN_FUNCTION.format(task="a regression")
        )


def _parts(label: str, labels: set[str]) -> list[str]:
    """The classes that a label names: by a bar or as a list always, by other separators if each is a label as well."""
    if "|" in label or (label.startswith("[") and label.endswith("]")):
        return [part for part in re.split(r"[|,;]", label.strip("[]")) if part.strip()]
    for separator in _SEPARATORS:
        parts = [part.strip() for part in label.split(separator) if part.strip()]
        if len(parts) > 1 and set(parts) <= labels:
            return parts
    return [label]


def _are_measured(labels: set[str]) -> bool:
    """Whether all are numbers, and not all of them whole."""
    try:
        return not all(float(label).is_integer() for label in labels)
    except ValueError:
        return False


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
        raise InputError(f"{source}: no training picture is of the classes {listed(sorted(unknown))}")
    return class_names, {
        kind: dataclasses.replace(
            split, labels=np.array([places[name] for name in split.labels.tolist()], np.int64)
        )
        for kind, split in splits.items()
    }


def labelled(splits: dict[str, Split], class_names: list[str] | None, source: Path) -> Labelled:
    """Splits whose labels are numbers, or the names of classes.

    Args:
        splits: with a training split.
        class_names: of labels that are numbers; None if they have no names.
        source: to blame.

    Raises:
        InputError: the labels are no classes, or a class has no training image.
    """
    if all(_are_names(split.labels) for split in splits.values()):
        check_task([label for split in splits.values() for label in split.labels.tolist()], source)
        class_names, splits = classes_of_names(splits, source)
    return Labelled(class_names=class_names, **splits)


def _are_names(labels: np.ndarray) -> bool:
    return labels.dtype.kind == "U" or (
        labels.dtype == object and all(isinstance(label, str) for label in labels)
    )


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def groups_in_names(names: Sequence[str], group_by: str) -> np.ndarray:
    """What each image belongs to, str [n]: the parts of its name in parentheses of the expression, or all of the match.

    Raises:
        InputError: `group_by` is no regular expression, or matches nothing in a name.
    """
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise InputError(f"data.group_by {group_by!r} is not a regular expression: {error}") from error
    matches = {name: pattern.search(name) for name in names}
    unmatched = [name for name, match in matches.items() if match is None]
    if unmatched:
        raise InputError(
            f"data.group_by {group_by!r} matches nothing in the name of {len(unmatched)} of {len(names)} pictures, "
            f"such as {unmatched[0]!r}"
        )
    return np.array(
        ["/".join(filter(None, match.groups())) or match[0] for match in matches.values() if match]
    )


def column_of(file: Path, names: list[str], known: tuple[str, ...], what: str, *, field: str) -> str:
    """The column of a file that holds something, by the first name that is known for it.

    Args:
        file: to blame.
        names: of its columns.
        known: names, compared without case and surrounding spaces.
        what: the column should hold.
        field: of `data:` that names it.

    Raises:
        InputError: there is none.
    """
    found = next((column for name in known if (column := _column(names, name)) is not None), None)
    if found is None:
        raise InputError(
            f"{file} has the columns {', '.join(names)}; one with {what} is needed, called {' or '.join(known)}, "
            f"or named by data.{field}"
        )
    return found


def named_column(file: Path, names: list[str], name: str | None, *, field: str) -> str | None:
    """The column that a field of `data:` names; None if the field is left out.

    Raises:
        InputError: the file has no such column.
    """
    if name is None:
        return None
    found = _column(names, name)
    if found is None:
        raise InputError(f"data.{field} {name!r} is not a column of {file}: {', '.join(names)}")
    return found


def _column(names: list[str], wanted: str) -> str | None:
    return next((name for name in names if name.strip().casefold() == wanted.strip().casefold()), None)


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


_LITTER = frozenset(
    {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"}
)


def is_hidden(name: str) -> bool:
    """Whether a file or folder was left behind by a notebook, a file manager or a file server."""
    return name.startswith(".") or name.casefold() in _LITTER


def pictures_below(directory: Path) -> Iterator[Path]:
    """The picture files in a directory and below, but for what is hidden."""
    for parent, below, names in os.walk(directory):
        below[:] = sorted(name for name in below if not is_hidden(name))
        for name in sorted(names):
            if not is_hidden(name) and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(parent, name)
