"""Pictures that a table names, one in each row: a .csv or .jsonl file, or the metadata of a directory."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from pathlib import Path

import numpy as np

from trainers.data.labelled import (
    Encoded,
    Labelled,
    Split,
    check_task,
    classes_of_names,
    column_of,
    is_hidden,
    named_column,
    pictures_below,
    split_named,
    splits_named,
    told_groups,
)
from trainers.data.source import Source
from trainers.data.spec import DataSpec
from trainers.errors import InputError, one_line

_SUFFIXES = (".csv", ".tsv", ".jsonl")
_METADATA = ("metadata.csv", "metadata.jsonl")
"""What Hugging Face's image folders call it, in the directory itself or in that of each split."""
# fmt: off
_PICTURE = (
    "file_name", "filename", "filepath", "file_path", "image", "image_path", "image_name", "image_id", "img", "path",
    "file", "id",
)
_LABEL = ("label", "class", "class_name", "category", "dx", "breed", "diagnosis", "species", "target")
# fmt: on
_SPLIT = "split"


@dataclasses.dataclass(frozen=True)
class _Table:
    file: Path
    columns: list[str]
    rows: list[dict[str, str]]
    spec: DataSpec
    split: str | None = None
    """The split of all its pictures; None where it may name several."""

    @property
    def directory(self) -> Path:
        """What the names of pictures are relative to."""
        return self.spec.images or self.file.parent

    def values(self, column: str) -> list[str]:
        return [row[column] for row in self.rows]

    def pictures(self) -> list[str]:
        """Paths relative to the directory."""
        column = named_column(self.file, self.columns, self.spec.image_column, field="image_column")
        column = column or column_of(
            self.file, self.columns, _PICTURE, "the pictures' files", field="image_column"
        )
        names = [name.replace("\\", "/") for name in self.values(column)]
        if self.spec.extension is None:
            return names
        suffix = f".{self.spec.extension.lstrip('.')}"
        return [name if name.lower().endswith(suffix.lower()) else name + suffix for name in names]

    def files(self, names: list[str]) -> list[Path | None]:
        """Each picture's file; in `images` at any depth, if one file alone has the name. None where there is none."""
        # Unlike Path.is_file this is False, and no error, for a name that no file can have.
        found = [path if os.path.isfile(path := self.directory / name) else None for name in names]
        if None not in found or self.spec.images is None:
            return found
        below: dict[str, list[Path]] = {}
        for file in pictures_below(self.directory):
            below.setdefault(file.name, []).append(file)
        return [
            file or (below[name][0] if len(below.get(name, [])) == 1 else None)
            for file, name in zip(found, names, strict=True)
        ]

    def label_column(self) -> str:
        named = named_column(self.file, self.columns, self.spec.label_column, field="label_column")
        return named or column_of(self.file, self.columns, _LABEL, "labels", field="label_column")

    def labels(self, pictures: list[str]) -> list[str]:
        column = self.label_column()
        labels = self.values(column)
        without = [
            name for name, label in zip(pictures, labels, strict=True) if label.casefold() in ("", "nan")
        ]
        if without:
            raise InputError(
                f"{self.file} has no {column} for {len(without)} pictures, such as {without[0]!r}"
            )
        return labels

    def splits(self, pictures: list[str]) -> list[str]:
        """Each picture's split by the column or the folders; where neither names any, all are for training."""
        if self.split is not None:
            return [self.split] * len(pictures)
        column = next((name for name in self.columns if name.strip().casefold() == _SPLIT), None)
        if column is not None:
            told = [split_named(value) for value in self.values(column)]
            what = f"column {column}"
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

    def read(self) -> tuple[Split, np.ndarray]:
        """All pictures, and the split of each.

        Raises:
            InputError: it lacks a column, a picture, a label or a split.
        """
        groups = named_column(self.file, self.columns, self.spec.group_by, field="group_by")
        pictures = self.pictures()
        if not pictures:
            raise InputError(f"{self.file} names no pictures")
        files = self.files(pictures)
        if missing := [name for name, file in zip(pictures, files, strict=True) if file is None]:
            raise InputError(
                f"{len(missing)} of the {len(pictures)} pictures that {self.file} names are not in "
                f"{self.directory}, such as {missing[0]!r}{self._remedy(missing[0])}"
            )
        whole = Split(
            [Encoded.of_file(file, name) for file, name in zip(files, pictures, strict=True) if file],
            np.array(self.labels(pictures)),
            None if groups is None else told_groups(self.file, groups, self.values(groups)),
        )
        return whole, np.array(self.splits(pictures))

    def _remedy(self, missing: str) -> str:
        """The fields that find a picture, if a file below the table's directory has its name."""
        wanted = Path(missing)
        for file in pictures_below(self.file.parent):
            folder = Path(*file.parts[: -len(wanted.parts)])
            if wanted.name in (file.name, file.stem) and folder / wanted.parent == file.parent:
                elsewhere = [] if folder == self.directory else [f"data.images: {folder}"]
                lacking = [] if wanted.name == file.name else [f"data.extension: {file.suffix[1:]}"]
                return f"; set {' and '.join(elsewhere + lacking)}"
        return ""


def _read(path: Path | None, spec: DataSpec) -> Labelled:
    """Read the pictures that a table names, with their classes and maybe their splits.

    Args:
        path: the table, or a directory that has one.
        spec: names columns, and what the pictures' names are relative to.

    Raises:
        InputError: it lacks a column, a picture, a label or a split.
    """
    tables = _tables(path, spec)
    if not tables:
        raise InputError(
            f"{path} holds no {' or '.join(_METADATA)}; give a table, such as data.path=labels.csv"
        )
    notes: list[str] = []
    if unlabelled := [table for table in tables if table.split == "test" and not _has_labels(table)]:
        tables = [table for table in tables if table not in unlabelled]
        notes += [f"{table.file} has no labels, so its test pictures were left out" for table in unlabelled]
    parts = [table.read() for table in tables]
    told = np.concatenate([splits for _, splits in parts])
    whole = Split(
        [image for part, _ in parts for image in part.images],
        np.concatenate([part.labels for part, _ in parts]),
        None if spec.group_by is None else np.concatenate([part.groups for part, _ in parts]),
    )
    if "train" not in told:
        raise InputError(f"{path} has no training pictures; give them a table in train/ too")
    check_task(whole.labels.tolist(), tables[0].file)
    class_names, splits = classes_of_names(
        {str(split): whole.take(np.flatnonzero(told == split)) for split in np.unique(told)}, tables[0].file
    )
    if path.is_dir():
        named = {file for table in tables for file in table.files(table.pictures())}
        left_out = sum(picture not in named for picture in pictures_below(path))
        if left_out:
            notes.append(f"{left_out} pictures are not named in {tables[0].file.name} and were left out")
    return Labelled(class_names=class_names, notes=notes, **splits)


def _recognizes(path: Path) -> bool:
    """Whether a path is a table, or a directory with one for its pictures or for those of its training split."""
    if path.is_dir():
        return any(split in (None, "train") for _, split in _metadata(path))
    return path.suffix.lower() in _SUFFIXES


def _files(path: Path, spec: DataSpec) -> list[Path]:
    """A path's tables and the pictures that they name."""
    return [
        file
        for table in _tables(path, spec)
        for file in (table.file, *filter(None, table.files(table.pictures())))
    ]


def _has_labels(table: _Table) -> bool:
    try:
        table.label_column()
    except InputError:
        return False
    return True


def _tables(path: Path, spec: DataSpec) -> list[_Table]:
    found = _metadata(path) if path.is_dir() else [(path, None)]
    return [_open(file, spec, split) for file, split in found]


def _metadata(directory: Path) -> list[tuple[Path, str | None]]:
    """The tables of a directory, or those of its splits' folders, or of the only folder in it."""
    if own := _metadata_in(directory):
        return [(own, None)]
    folders = [entry for entry in sorted(directory.iterdir()) if entry.is_dir() and not is_hidden(entry.name)]
    splits = splits_named(folder.name for folder in folders)
    of_splits = [
        (file, splits[folder.name])
        for folder in folders
        if folder.name in splits and (file := _metadata_in(folder))
    ]
    if not of_splits and len(folders) == 1:
        return _metadata(folders[0])
    return of_splits


def _metadata_in(directory: Path) -> Path | None:
    return next((directory / name for name in _METADATA if (directory / name).is_file()), None)


def _open(file: Path, spec: DataSpec, split: str | None) -> _Table:
    """The columns and rows of a table, in which a spreadsheet may have separated values by semicolons or tabs."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        rows = _json_rows(file, text) if file.suffix.lower() == ".jsonl" else _csv_rows(text)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{file} cannot be read as comma-separated values in UTF-8: {one_line(error)}"
        ) from error
    columns, values = rows
    return _Table(file, columns, values, spec, split)


def _csv_rows(text: str) -> tuple[list[str], list[dict[str, str]]]:
    separator = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=separator, restval="", strict=True, skipinitialspace=True
    )
    columns = [*(reader.fieldnames or [])]
    return columns, [{column: row[column].strip() for column in columns} for row in reader]


def _json_rows(file: Path, text: str) -> tuple[list[str], list[dict[str, str]]]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise InputError(f"{file}:{number}: is no JSON object; give one for each picture")
        rows.append({name: _in_words(value) for name, value in row.items()})
    columns = [*dict.fromkeys(name for row in rows for name in row)]
    return columns, [dict.fromkeys(columns, "") | row for row in rows]


def _in_words(value: object) -> str:
    """A JSON value as a table has it; several labels as `cat|dog`."""
    if isinstance(value, list):
        return "|".join(map(_in_words, value))
    return "" if value is None else str(value).strip()


SOURCE = Source(
    read=_read,
    recognizes=_recognizes,
    precedence=1,
    fields=frozenset({"image_column", "label_column", "extension", "images", "group_by"}),
    files=_files,
)
