"""Pictures in one folder for each class."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np

from trainers.data.labelled import IMAGE_SUFFIXES, Encoded, Labelled, Split, is_hidden, split_named
from trainers.data.table import TABLE
from trainers.errors import InputError


def read_folder(path: Path, group_by: str | None) -> Labelled:
    """Read a directory of class folders, or one with such directories for each split.

    Args:
        path: the directory.
        group_by: a regular expression that finds in a picture's path what it belongs to.

    Raises:
        InputError: there are no pictures, or classes that are not trained on.
    """
    if not path.is_dir():
        raise InputError(f"data.path {str(path)!r} is a file; source folder needs a directory")
    named = reversed(_folders(path))  # of train and train_old, the first is taken
    roots = {kind: folder for folder in named if (kind := split_named(folder.name))}
    if "train" not in roots or not _folders(roots["train"]):  # a class may be called train
        roots = {"train": path}
    names = [folder.name for folder in _folders(roots["train"])]
    left_out: Counter[str] = Counter()

    def split(kind: str) -> Split:
        unknown = {folder.name for folder in _folders(roots[kind])} - set(names)
        if unknown:
            raise InputError(
                f"{roots[kind]} has the classes {', '.join(sorted(unknown))}, which {roots['train']} does not have"
            )
        found = [
            (file, label)
            for label, name in enumerate(names)
            for file in sorted((roots[kind] / name).rglob("*"))
            if not is_hidden(file) and not file.is_dir()
        ]
        files = [(file, label) for file, label in found if file.suffix.lower() in IMAGE_SUFFIXES]
        left_out.update(file.suffix for file, _ in found if file.suffix.lower() not in IMAGE_SUFFIXES)
        if not files:
            raise InputError(
                f"{roots[kind]} holds no images; expected one folder for each class with "
                f"{', '.join(sorted(IMAGE_SUFFIXES))} files in it, or a {TABLE} with a file_name and a label for "
                "each picture"
            )
        images = [Encoded.of_file(file, file.relative_to(path).as_posix()) for file, _ in files]
        groups = None if group_by is None else _groups([image.name for image in images], group_by)
        return Split(images, np.array([label for _, label in files], np.int64), groups)

    splits = {kind: split(kind) for kind in roots}
    return Labelled(class_names=names, notes=_unread(left_out), **splits)


def _unread(suffixes: Counter[str]) -> list[str]:
    if not suffixes:
        return []
    kinds = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in suffixes.most_common(5))
    return [
        f"{suffixes.total()} files in the class folders are not pictures of a kind that is read here and were left "
        f"out: {kinds}"
    ]


def _groups(names: list[str], group_by: str) -> np.ndarray:
    """What each file belongs to: the parts of its name in parentheses of the expression, or all that it matches."""
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


def _folders(directory: Path) -> list[Path]:
    return sorted(entry for entry in directory.iterdir() if entry.is_dir() and not is_hidden(entry))
