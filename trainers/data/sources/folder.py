"""Pictures in one folder for each class."""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from trainers.data.labelled import (
    IMAGE_SUFFIXES,
    IN_WORDS,
    Encoded,
    Labelled,
    Split,
    groups_in_names,
    is_hidden,
    listed,
    split_named,
    splits_named,
)
from trainers.data.source import Source
from trainers.data.spec import DataSpec
from trainers.errors import InputError

_MOST_NAMED = 5
"""Folders and kinds of files that a note names."""
_WANTED = (
    "put the pictures of each class into a folder of its own, or name pictures and labels in a metadata.csv"
)


@dataclasses.dataclass(frozen=True)
class _Root:
    """A folder that holds class folders."""

    path: Path
    classes: list[Path]

    @property
    def names(self) -> list[str]:
        """Of the classes."""
        return [folder.name for folder in self.classes]


def _read(path: Path | None, spec: DataSpec) -> Labelled:
    """Read a directory of class folders, or one with such directories for each split.

    Args:
        path: the directory.
        spec: whose `group_by` is a regular expression that finds in a picture's path what it belongs to.

    Raises:
        InputError: there are no class folders, or classes that are not trained on.
    """
    if path is None or not path.is_dir():
        raise InputError(f"data.path {str(path)!r} is a file; source folder needs a directory")
    notes: list[str] = []
    others: Counter[str] = Counter()

    def split(root: _Root) -> Split:
        if unknown := {*root.names} - {*train.names}:
            raise InputError(
                f"{root.path} has the classes {listed(sorted(unknown))}, which {train.path} does not have"
            )
        files: list[tuple[Path, int]] = []
        for folder in root.classes:
            found = sorted(_files(folder))
            pictures = [file for file in found if _is_picture(file)]
            _check_no_splits(folder, pictures)
            files += [(file, labels[folder.name]) for file in pictures]
            others.update(file.suffix for file in found if not _is_picture(file))
        notes.extend(_left_beside(root))
        images = [Encoded.of_file(file, file.relative_to(path).as_posix()) for file, _ in files]
        groups = (
            None
            if spec.group_by is None
            else groups_in_names([image.name for image in images], spec.group_by)
        )
        return Split(images, np.array([label for _, label in files], np.int64), groups)

    try:
        roots = _find_roots(path, notes)
        train = roots["train"]
        labels = {name: label for label, name in enumerate(train.names)}
        splits = {kind: split(root) for kind, root in roots.items()}
        notes.extend(_alike_inside(train))
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error
    if others:
        notes.append(
            f"{others.total()} files in the class folders are not pictures of a kind that is read here and were "
            f"left out: {_kinds(others)}"
        )
    return Labelled(class_names=train.names, notes=notes, **splits)


def _find_roots(path: Path, notes: list[str]) -> dict[str, _Root]:
    """The class folders of each split, or of `train` alone; through wrapper folders where there is one way only.

    Raises:
        InputError: says what was found instead.
    """
    directory = _unwrapped(path)
    if directory != path:
        notes.append(f"the class folders were found in {directory.relative_to(path)}")
    folders = _folders(directory)
    by_split: dict[str, list[Path]] = {}
    for folder in sorted(folders, key=lambda folder: (len(re.findall(r"[^\W_]+", folder.name)), folder.name)):
        if kind := split_named(folder.name):  # of train and train_old, the first is taken
            by_split.setdefault(kind, []).append(folder)
    train = next((folder for folder in by_split.get("train", []) if _folders(folder)), None)
    if train is None:
        return {"train": _root(directory, notes)}

    roots, used = {"train": _root(_unwrapped(train), notes)}, {train}
    known = {*roots["train"].names}
    for kind in ("validation", "test"):
        candidates = by_split.get(kind, [])
        for folder in candidates:
            inside = _unwrapped(folder, known)
            classes = _folders(inside)
            if kind not in roots and (len(classes) > 1 or known & {entry.name for entry in classes}):
                roots[kind] = _Root(inside, classes)
                used.add(folder)
        if kind not in roots:
            used.update(candidates)
            notes.extend(_unlabelled(folder, kind) for folder in candidates)
    if left := [folder.name for folder in folders if folder not in used]:
        notes.append(f"folders beside the splits were left out: {listed(left)}")
    return roots


def _root(directory: Path, notes: list[str]) -> _Root:
    """The class folders of training pictures, less a test split without classes beside them.

    Raises:
        InputError: these are no classes: too few, or called like splits.
    """
    by_name = {folder.name: folder for folder in _folders(directory)}
    if not by_name:
        raise InputError(_no_folders(directory))
    splits = dict(sorted(splits_named(by_name).items(), key=lambda split: [*IN_WORDS].index(split[1])))
    classes = [folder for name, folder in by_name.items() if name not in splits]
    if splits and not _stand_beside_classes(splits, by_name, classes):
        raise InputError(_no_classes(directory, by_name, splits))
    for name, kind in splits.items():
        if kind == "train":
            notes.append(f"{name}/ is taken for a class, as the folders beside it are")
            classes = sorted([*classes, by_name[name]])
        else:
            notes.append(_unlabelled(by_name[name], kind))
    if len(classes) == 1:
        (folder,) = classes
        beside = _pictures(directory)
        raise InputError(
            f"{directory} holds one class folder only, {folder.name} with {_plural(_count(folder))}"
            f"{f', and {_plural(len(beside))} beside it' if beside else ''}; at least 2 classes are needed"
        )
    return _Root(directory, classes)


def _stand_beside_classes(splits: dict[str, str], by_name: dict[str, Path], classes: list[Path]) -> bool:
    """Whether folders called like a split are an unlabelled one beside classes, or a class called train."""
    return (
        len({*splits.values()}) == 1
        and ("train" not in splits.values() or [name.casefold() for name in splits] == ["train"])
        and not any(_folders(by_name[name]) for name in splits)
        and sum(bool(_pictures(folder)) for folder in classes) >= 2
    )


def _unlabelled(folder: Path, kind: str) -> str:
    return (
        f"{folder.name}/ holds {_plural(_count(folder))} but no class folders, so it was left out; {kind} pictures "
        "are held out of the training pictures"
    )


def _no_folders(directory: Path) -> str:
    """Why a directory without class folders is not read."""
    if here := _pictures(directory):
        return f"{directory} holds {_plural(len(here))} but no class folders; {_WANTED}{_table_beside(directory)}"
    others = Counter(file.suffix for file in _files(directory))
    only = f", only other files: {_kinds(others)}" if others else ""
    return (
        f"{directory} holds no images{only}; expected one folder for each class with "
        f"{', '.join(sorted(IMAGE_SUFFIXES))} files in it, or a metadata.csv with a file_name and a label for each "
        "picture"
    )


def _no_classes(directory: Path, by_name: dict[str, Path], splits: dict[str, str]) -> str:
    """Why folders that are called like splits are not read."""
    flat = [name for name in splits if not _folders(by_name[name])]
    if not flat:
        found = f"{directory} holds {' and '.join(f'{name}/' for name in splits)}"
        if "train" in splits.values():
            return f"{found} instead of class folders; give it as data.path if it is the data set"
        return (
            f"{found} but no train/ with class folders; give the training pictures as train/, or one of these folders "
            "as data.path"
        )
    counts = [_count(by_name[name]) for name in flat]
    if len(flat) == 1:
        found = f"{flat[0]}/ holds {_plural(counts[0])} but no class folders"
    else:
        named = " and ".join(f"{name}/" for name in flat)
        found = f"{named} hold pictures but no class folders ({' and '.join(map(str, counts))})"
    rename = f"if {flat[0]} is a class, give its folder another name; " if len(splits) == 1 else ""
    return f"{directory}: {found}; {rename}{_WANTED}{_table_beside(directory)}"


def _check_no_splits(folder: Path, pictures: Sequence[Path]) -> None:
    """Refuse a class folder that is a data set itself.

    Raises:
        InputError: it has train/ and test/ in it.
    """
    inside: dict[Path, set[str]] = {}
    for parent in {picture.parent for picture in pictures}:
        while parent != folder:
            inside.setdefault(parent.parent, set()).add(parent.name)
            parent = parent.parent
    for parent, names in sorted(inside.items()):
        splits = splits_named(names)
        if len({*splits.values()}) > 1:
            raise InputError(
                f"{parent} holds {' and '.join(f'{name}/' for name in sorted(splits))} and would be one class; give "
                f"it as data.path if it is the data set, or put the splits above the classes, as train/{folder.name}"
            )


def _left_beside(root: _Root) -> list[str]:
    """Notes on what lies beside the class folders."""
    notes = []
    if beside := _pictures(root.path):
        notes.append(f"{_plural(len(beside))} beside the class folders of {root.path.name}/ were left out")
    with_pictures = {*_folders(root.path)}
    if empty := [folder.name for folder in _subfolders(root.path) if folder not in with_pictures]:
        notes.append(f"folders of {root.path.name}/ without pictures were left out: {listed(empty)}")
    return notes


def _alike_inside(root: _Root) -> list[str]:
    """A note on class folders that all hold folders of the same names, which may be the classes."""
    inside = [{folder.name for folder in _folders(folder)} for folder in root.classes]
    names = sorted(inside[0])
    if len(names) < 2 or any(found != inside[0] for found in inside) or all(map(str.isdecimal, names)):
        return []
    return [
        f"each class folder holds the folders {listed(names)}: if these are the classes, put them above "
        f"{listed(root.names)}"
    ]


def _table_beside(directory: Path) -> str:
    """Which table to give instead, if one lies there."""
    tables = sorted(entry for entry in directory.iterdir() if entry.suffix.lower() in (".csv", ".tsv"))
    return f", or give a table that does, such as data.path={tables[0]}" if tables else ""


def _unwrapped(directory: Path, known: set[str] | frozenset[str] = frozenset()) -> Path:
    """The directory, or what is in it as long as that is one folder, of no known class, with folders of its own."""
    while len(folders := _folders(directory)) == 1 and folders[0].name not in known and _folders(folders[0]):
        (directory,) = folders
    return directory


def _folders(directory: Path) -> list[Path]:
    """The folders that hold pictures, in them or below."""
    return [folder for folder in _subfolders(directory) if _has_pictures(folder)]


def _subfolders(directory: Path) -> list[Path]:
    with os.scandir(directory) as entries:
        return sorted(Path(entry) for entry in entries if entry.is_dir() and not is_hidden(entry.name))


def _pictures(directory: Path) -> list[Path]:
    """Those in a directory itself."""
    with os.scandir(directory) as entries:
        return [Path(entry) for entry in entries if _is_picture_entry(entry)]


def _has_pictures(directory: str | Path) -> bool:
    """Whether `_files` has any, found at the first."""
    below = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if _is_picture_entry(entry):
                return True
            if entry.is_dir(follow_symlinks=False) and not is_hidden(entry.name):
                below.append(entry.path)
    return any(map(_has_pictures, below))


def _is_picture_entry(entry: os.DirEntry[str]) -> bool:
    return _is_picture(Path(entry.name)) and not is_hidden(entry.name) and not entry.is_dir()


def _files(directory: Path) -> Iterator[Path]:
    """The files in a directory and below, but for what is hidden; links to directories are not followed."""

    def refuse(error: OSError) -> None:
        raise error

    for parent, below, names in os.walk(directory, onerror=refuse):
        below[:] = [name for name in below if not is_hidden(name)]
        yield from (Path(parent, name) for name in names if not is_hidden(name))


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES


def _count(folder: Path) -> int:
    return sum(map(_is_picture, _files(folder)))


def _plural(pictures: int) -> str:
    return f"{pictures} picture{'' if pictures == 1 else 's'}"


def _kinds(suffixes: Counter[str]) -> str:
    return ", ".join(
        f"{count} {suffix or 'without a suffix'}" for suffix, count in suffixes.most_common(_MOST_NAMED)
    )


SOURCE = Source(read=_read, recognizes=Path.is_dir, precedence=-1, fields=frozenset({"group_by"}))
