"""IDX files, the format of MNIST: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and so on, maybe with `.gz`."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from trainers.data.arrays import as_pixels
from trainers.data.labelled import IN_WORDS, Labelled, Split, is_hidden, split_named
from trainers.data.source import Source
from trainers.data.spec import DataSpec
from trainers.errors import InputError, one_line

_NAME = re.compile(r"(?P<set>.*)(?P<what>images|labels)[-.]idx[1-4][-.]ubyte(\.gz)?", re.IGNORECASE)
_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
"""By the third byte of a file."""


def _found(directory: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    """The IDX files in a directory, or where torchvision puts them in it."""
    for pattern in ("*ubyte*", "raw/*ubyte*", "*/raw/*ubyte*"):
        for file in sorted(directory.glob(pattern)):
            match = _NAME.fullmatch(file.name)
            if match and not is_hidden(file.name) and file.is_file():
                yield file, match


def _read(path: Path | None, spec: DataSpec) -> Labelled:
    """Pair the files of images and labels by what stands before `images` and `labels` in their names."""
    assert path is not None
    directory = path if path.is_dir() else path.parent
    pairs: dict[str, dict[str, Path]] = {}
    for file, match in _found(directory):
        of_split = pairs.setdefault(match["set"], {})
        if of_split.setdefault(match["what"].lower(), file).suffix == ".gz":
            of_split[match["what"].lower()] = file  # of both forms the unpacked one
    splits: dict[str, tuple[str, Split]] = {}
    for name, files in pairs.items():
        kind = "test" if "t10k" in name else split_named(name) or "train"
        if kind in splits:
            raise InputError(
                f"{directory} holds several data sets, {splits[kind][0]!r} and {name!r}; move the files of one of them "
                "to a directory of its own"
            )
        if missing := {"images", "labels"} - {*files}:
            raise InputError(f"{directory} has no {missing.pop()} for {name!r}; put both files there")
        labels = _array(files["labels"])
        if labels.ndim != 1:
            raise InputError(
                f"{files['labels']} has the shape {[*labels.shape]}; one label an image is needed"
            )
        splits[kind] = (
            name,
            Split(as_pixels(_array(files["images"]), IN_WORDS[kind], spec), labels.astype(np.int64)),
        )
    if "train" not in splits:
        raise InputError(
            f"{directory} has no training images; files such as train-images-idx3-ubyte and train-labels-idx1-ubyte "
            "are needed"
        )
    return Labelled(class_names=None, **{kind: split for kind, (_, split) in splits.items()})


def _array(file: Path) -> np.ndarray:
    """What an IDX file holds: two zeros, a byte for the type, one for the dimensions, their sizes, and the values."""
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix.lower() == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file} cannot be read: {one_line(error)}") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES:
        raise InputError(f"{file} is no IDX file: it does not begin with two zeros and a type")
    dtype, dimensions = np.dtype(_TYPES[content[2]]), content[3]
    start = 4 + 4 * dimensions
    shape = [int.from_bytes(content[at : at + 4]) for at in range(4, start, 4)]
    if len(content) != start + math.prod(shape) * dtype.itemsize:
        raise InputError(
            f"{file} has {len(content)} bytes; {start + math.prod(shape) * dtype.itemsize} are needed for the shape "
            f"{shape}, so fetch it again"
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape)


def _recognizes(path: Path) -> bool:
    return any(True for _ in _found(path)) if path.is_dir() else bool(_NAME.fullmatch(path.name))


SOURCE = Source(read=_read, recognizes=_recognizes, precedence=1)
