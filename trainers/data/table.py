"""Pictures that a table names, one in each row: a .csv file, or the metadata.csv of a directory."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from pathlib import Path

import numpy as np

from trainers.data.labelled import (
    IMAGE_SUFFIXES,
    Encoded,
    Labelled,
    Split,
    check_group_column,
    classes_of_names,
    column_of,
    is_hidden,
    split_named,
    told_groups,
)
from trainers.errors import InputError, one_line

TABLE = "metadata.csv"
"""What Hugging Face calls it."""
_PICTURE = ("file_name", "filename", "image", "path")
_LABEL = ("label", "class")
_SPLIT = "split"


@dataclasses.dataclass(frozen=True)
class _Table:
    file: Path
    columns: list[str]
    rows: list[dict[str, str]]

    def values(self, column: str) -> list[str]:
        return [row[column] for row in self.rows]

    def pictures(self) -> list[str]:
        """Paths relative to the table's own directory."""
        column = column_of(self.file, self.columns, _PICTURE, "the pictures' files")
        return [name.replace("\\", "/") for name in self.values(column)]

    def labels(self, pictures: list[str]) -> list[str]:
        column = column_of(self.file, self.columns, _LABEL, "labels")
        labels = self.values(column)
        without = [name for name, label in zip(pictures, labels, strict=True) if not label]
        if without:
            raise InputError(
                f"{self.file} has no {column} for {len(without)} pictures, such as {without[0]!r}"
            )
        return labels

    def splits(self, pictures: list[str]) -> list[str]:
        """Each picture's split as the column or the folders tell it; where neither does, all are for training."""
        if _SPLIT in self.columns:
            told = [split_named(value) for value in self.values(_SPLIT)]
            what = f"column {_SPLIT}"
        else:
            told = [split_named(Path(name).parent.as_posix()) for name in pictures]
            what = "folder"
            if not {"train", "test"} <= {*told}:  # a class may be called train
                return ["train"] * len(pictures)
        known = [split for split in told if split is not None]
        if len(known) < len(told):
            raise InputError(
                f"{self.file}: the {what} of {pictures[told.index(None)]!r} tells no split, as the others' does; "
                f"give each row train, validation or test in a column called {_SPLIT}"
            )
        if "train" not in known:
            raise InputError(f"{self.file} has no picture whose {_SPLIT} is train")
        return known


def read_table(path: Path, group_by: str | None) -> Labelled:
    """Read the pictures that a table names, with their classes and maybe their splits.

    Args:
        path: the table, or a directory that has one called metadata.csv.
        group_by: the column that says what a picture belongs to.

    Raises:
        InputError: it lacks a column, a picture, a label or a split.
    """
    table = _open(path)
    check_group_column(table.file, table.columns, group_by)
    pictures, directory = table.pictures(), table.file.parent
    if not pictures:
        raise InputError(f"{table.file} names no pictures")
    # Unlike Path.is_file this is False, and no error, for a name that no file can have.
    missing = [name for name in pictures if not os.path.isfile(directory / name)]
    if missing:
        raise InputError(
            f"{len(missing)} of the {len(pictures)} pictures that {table.file} names are not in {directory}, such as "
            f"{missing[0]!r}"
        )
    whole = Split(
        [Encoded.of_file(directory / name, name) for name in pictures],
        np.array(table.labels(pictures)),
        None if group_by is None else told_groups(table.file, group_by, table.values(group_by)),
    )
    told = np.array(table.splits(pictures))
    class_names, splits = classes_of_names(
        {str(split): whole.take(np.flatnonzero(told == split)) for split in np.unique(told)}, table.file
    )
    return Labelled(
        class_names=class_names, notes=_unnamed(path, pictures) if path.is_dir() else [], **splits
    )


def files_of_table(path: Path) -> list[Path]:
    """A table and the pictures that it names."""
    table = _open(path)
    return [table.file, *(table.file.parent / name for name in table.pictures())]


def _open(path: Path) -> _Table:
    """The columns and rows of a CSV file, which a spreadsheet may have separated by semicolons or tabs."""
    file = path / TABLE if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8-sig")
        separator = max(",;\t", key=text.partition("\n")[0].count)
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, restval="", strict=True)
        return _Table(file, [*(reader.fieldnames or [])], [*reader])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{file} cannot be read as comma-separated values in UTF-8: {one_line(error)}"
        ) from error


def _unnamed(directory: Path, pictures: list[str]) -> list[str]:
    """What is told of a directory's pictures that its table does not name."""
    found = {file for file in directory.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES}
    left_out = [file for file in found - {directory / name for name in pictures} if not is_hidden(file)]
    return [f"{len(left_out)} pictures are not named in {TABLE} and were left out"] if left_out else []
