"""WebDataset's tar files: consecutive files with the same name up to the first dot are one sample."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from trainers.data.labelled import (
    IMAGE_SUFFIXES,
    Encoded,
    Labelled,
    Split,
    groups_in_names,
    is_hidden,
    labelled,
    split_named,
)
from trainers.data.scratch import scratch_directory
from trainers.data.source import Source
from trainers.data.spec import DataSpec
from trainers.errors import InputError, one_line

_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_MEMBER = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")
"""A sample's key and the name of one of its fields, by WebDataset's own rule."""
_LABEL = "cls"
_PEEKED = 8
"""Members of a tar file that are looked at to recognize it."""
_DAMAGED = (OSError, EOFError, tarfile.TarError, zlib.error)


def _recognizes(path: Path) -> bool:
    shards = [file for file in _shards(path) if file.name.lower().endswith(_SUFFIXES)]
    if not shards:
        return False
    try:
        with tarfile.open(shards[0]) as tar:
            return _LABEL in {field for _, field, _ in itertools.islice(_members(tar), _PEEKED)}
    except _DAMAGED:
        return False


def _shards(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    names = (file for file in sorted(path.iterdir()) if file.name.lower().endswith(_SUFFIXES))
    return [file for file in names if not is_hidden(file.name)]


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Each file's key and field."""
    for member in tar:
        match = _MEMBER.fullmatch(member.name)
        if member.isfile() and match and not any(map(is_hidden, Path(member.name).parts)):
            yield match[1], match[2].lower(), member


def _read(path: Path | None, spec: DataSpec) -> Labelled:
    """Read the samples of all tar files; those named with `train`, `val` and `test` are splits."""
    assert path is not None
    shards = _shards(path)
    if not shards:
        raise InputError(f"{path} holds no {', '.join(_SUFFIXES)} files")
    scratch = None if all(map(_is_plain, shards)) else scratch_directory()
    of_kinds: dict[str, list[tuple[Encoded, str, str]]] = {}
    for shard in shards:
        kind = split_named(shard.name) or "train"
        of_kinds.setdefault(kind, []).extend(_samples(shard, spec, scratch))
    if "train" not in of_kinds:
        raise InputError(
            f"{path} holds no training samples, only {' and '.join(of_kinds)}; add those, or rename a file"
        )
    splits = {}
    for kind, samples in of_kinds.items():
        labels = [label for _, label, _ in samples]
        groups = None
        if spec.group_by is not None:
            groups = groups_in_names([key for *_, key in samples], spec.group_by)
        are_numbers = all(label.isdecimal() for label in labels)
        splits[kind] = Split(
            [image for image, *_ in samples],
            np.array(labels, np.int64) if are_numbers else np.array(labels),
            groups,
        )
    return dataclasses.replace(labelled(splits, None, path), scratch=scratch)


def _samples(
    shard: Path, spec: DataSpec, scratch: TemporaryDirectory[str] | None
) -> Iterator[tuple[Encoded, str, str]]:
    """The image, label and key of each sample of a tar file."""
    label_field = (spec.label_column or _LABEL).lower()
    image_field = spec.image_column and spec.image_column.lower()
    try:
        content = shard if scratch is None or _is_plain(shard) else _unzipped(shard, Path(scratch.name))
        with tarfile.open(content, "r:") as tar:
            for key, members in itertools.groupby(_members(tar), key=lambda member: member[0]):
                fields = {field: member for _, field, member in members}
                image = image_field or next(filter(_is_image, fields), "")
                if not {image, label_field} <= {*fields}:
                    raise InputError(
                        f"{shard}: the sample {key!r} has the fields {', '.join(fields)}; "
                        f"{spec.image_column or 'an image'} and {label_field} are needed, or others named by "
                        "data.image_column and data.label_column"
                    )
                label = tar.extractfile(fields[label_field])
                assert label is not None
                member = fields[image]
                name = f"{shard.name}/{member.name}"
                encoded = Encoded.of_part(content, member.offset_data, member.size, name)
                yield encoded, label.read().decode().strip(), key
    except (*_DAMAGED, UnicodeDecodeError) as error:
        raise InputError(f"{shard} cannot be read as a tar file of samples: {one_line(error)}") from error


def _is_plain(shard: Path) -> bool:
    """Whether a tar file is not compressed."""
    return shard.suffix.lower() == ".tar"


def _is_image(field: str) -> bool:
    return f".{field.rpartition('.')[2]}" in IMAGE_SUFFIXES


def _unzipped(shard: Path, directory: Path) -> Path:
    """A compressed tar file's content, in which images can be found by their offset."""
    target = directory / f"{shard.name}.tar"
    with gzip.open(shard) as compressed, open(target, "wb") as file:
        shutil.copyfileobj(compressed, file)
    return target


SOURCE = Source(
    read=_read,
    recognizes=_recognizes,
    precedence=1,
    fields=frozenset({"image_column", "label_column", "group_by"}),
)
