"""Images that a function of the user's own gives, `data.source: package.module:function`.

The function is called with `data.path`, or without an argument if that is left out. It returns the images of one split,
or of several as `{"train": …, "validation": …, "test": …}`, maybe with `"class_names"`. The images of a split are

- a pair of images and labels;
- or batches: an iterable of mappings with a column of images and one of labels;
- or a Ray Data dataset with these columns.

Images are arrays of pixels, the contents of picture files (bytes), or their paths, which may be relative to
`data.path`. Batches are written to the node's cache one by one, so that all of them together may be larger than memory.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np

from trainers.data.arrays import as_labels, as_pixels
from trainers.data.labelled import (
    IN_WORDS,
    Encoded,
    Labelled,
    Split,
    column_of,
    labelled,
    named_column,
    told_groups,
)
from trainers.data.scratch import scratch_directory
from trainers.data.source import files_below
from trainers.data.spec import DataSpec
from trainers.errors import InputError, one_line

_CLASS_NAMES = "class_names"
_IMAGES = ("image", "images", "img")
_LABELS = ("label", "labels", "class")
_BATCH = 256
"""Rows of a Ray Data dataset that are read at a time."""
_NEEDED = (
    "images and labels are needed: a pair of arrays, batches with a column image and a column label, or a Ray Data "
    "dataset with them; or a dictionary of these with train, validation and test"
)


def read(name: str, path: Path | None, spec: DataSpec) -> Labelled:
    """Call the function, and read what it returns.

    Raises:
        InputError: the function cannot be imported, fails, or returns something else than images and labels.
    """
    function = _function(name)
    scratch = scratch_directory()
    try:
        given = function() if path is None else function(path)
        parts = dict(given) if isinstance(given, Mapping) and "train" in given else {"train": given}
        class_names = parts.pop(_CLASS_NAMES, None)
        if unknown := {*parts} - {*IN_WORDS}:
            raise InputError(
                f"data.source {name!r} returns {', '.join(map(repr, unknown))}; the keys are {', '.join(IN_WORDS)} and "
                f"{_CLASS_NAMES}"
            )
        splits = {
            kind: _Reader(name, kind, spec, scratch).split(part)
            for kind, part in parts.items()
            if part is not None
        }
    except InputError:
        raise
    except Exception as error:  # whatever a user's function raises
        raise InputError(f"data.source {name!r} failed: {one_line(error)}") from error
    names = None if class_names is None else [str(each) for each in class_names]
    return dataclasses.replace(labelled(splits, names, Path(name)), scratch=scratch)


def files(name: str, path: Path | None, spec: DataSpec) -> list[Path]:
    """The function's module and what is at `data.path`."""
    _function(name)
    found = importlib.util.find_spec(name.partition(":")[0])
    module = [] if found is None or found.origin is None else [Path(found.origin)]
    return module + ([] if path is None else files_below(path, spec))


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except AttributeError as error:
        raise InputError(f"data.source {name!r}: {module!r} has no function {function!r}") from error
    except Exception as error:  # whatever a user's module raises when it is imported
        raise InputError(f"data.source {name!r}: cannot import {module!r}: {one_line(error)}") from error
    return found


class _Reader:
    """Reads what the function returned for one split."""

    def __init__(self, name: str, kind: str, spec: DataSpec, scratch: TemporaryDirectory[str]) -> None:
        self._name = name
        self._where = IN_WORDS[kind]
        self._spec = spec
        self._spool = Path(scratch.name) / kind
        """The pixels or the picture files of batches, one after the other."""

    def split(self, given: Any) -> Split:
        """The images and labels.

        Raises:
            InputError: it is something else.
        """
        if isinstance(given, tuple) and len(given) == 2:
            images, labels = given
            if isinstance(images, np.ndarray) and images.dtype != object and self._spec.group_by is None:
                pixels = as_pixels(images, self._where, self._spec)
                return Split(pixels, as_labels(np.asarray(labels), self._where))
            given = {"image": images, "label": labels}
        labels_of, groups_of, encoded = list[np.ndarray](), list[np.ndarray](), list[Encoded]()
        first: np.ndarray | None = None
        with open(self._spool, "wb") as spool:
            for number, batch in enumerate(self._batches(given)):
                images, labels, groups = self._columns(number, batch)
                if isinstance(images, np.ndarray) and images.dtype != object:
                    pixels = self._pixels(images, number)
                    first = pixels[:0] if first is None else first
                    if (pixels.shape[1:], pixels.dtype) != (first.shape[1:], first.dtype):
                        raise InputError(
                            f"{self._blame(number)} has images of {pixels.dtype} {[*pixels.shape[1:]]}, the first has "
                            f"{first.dtype} {[*first.shape[1:]]}; give all one size, or picture files as bytes"
                        )
                    spool.write(np.ascontiguousarray(pixels).data)
                else:
                    encoded += [
                        self._encoded(image, spool, f"{self._where} batch {number} image {place}")
                        for place, image in enumerate(images)
                    ]
                labels_of.append(as_labels(np.asarray(labels), self._where))
                if groups is not None:
                    groups_of.append(groups)
        if not any(map(len, labels_of)) or (first is not None and encoded):
            what = "both arrays and files as" if encoded else "no"
            raise InputError(f"data.source {self._name!r} returns {what} {self._where} images; {_NEEDED}")
        labels = np.concatenate(labels_of)
        groups = np.concatenate(groups_of) if groups_of else None
        if first is None:
            return Split(encoded, labels, groups)
        bytes_each = first.dtype.itemsize * int(np.prod(first.shape[1:]))
        shape = (self._spool.stat().st_size // bytes_each, *first.shape[1:])
        return Split(np.memmap(self._spool, first.dtype, "r", shape=shape), labels, groups)

    def _batches(self, given: Any) -> Iterable[Any]:
        if hasattr(given, "iter_batches"):  # Ray Data, which is not imported here
            batches: Iterable[Any] = given.iter_batches(batch_size=_BATCH, batch_format="numpy")
            return batches
        if isinstance(given, Mapping):
            return [given]
        if isinstance(given, Iterable) and not isinstance(given, str | bytes | np.ndarray):
            return given
        raise InputError(f"data.source {self._name!r} returns {type(given).__name__}; {_NEEDED}")

    def _blame(self, number: int) -> str:
        return f"data.source {self._name!r}: {self._where} batch {number}"

    def _columns(self, number: int, batch: Any) -> tuple[Any, Any, np.ndarray | None]:
        """The images, labels and groups of a batch."""
        if not isinstance(batch, Mapping):
            raise InputError(f"{self._blame(number)} is {type(batch).__name__}; {_NEEDED}")
        blamed, names = Path(self._blame(number)), [str(name) for name in batch]
        image = named_column(blamed, names, self._spec.image_column, field="image_column") or column_of(
            blamed, names, _IMAGES, "images", field="image_column"
        )
        label = named_column(blamed, names, self._spec.label_column, field="label_column") or column_of(
            blamed, names, _LABELS, "labels", field="label_column"
        )
        group = named_column(blamed, names, self._spec.group_by, field="group_by")
        if len(batch[image]) != len(batch[label]):
            raise InputError(
                f"{self._blame(number)} has {len(batch[image])} images but {len(batch[label])} labels"
            )
        return (
            batch[image],
            batch[label],
            None if group is None else told_groups(blamed, group, list(batch[group])),
        )

    def _pixels(self, images: np.ndarray, number: int) -> np.ndarray:
        """As `as_pixels`, but by a rule that holds for every batch alike."""
        is_number = images.dtype != np.uint8 and self._spec.window is None and self._spec.stretch is None
        if (
            is_number
            and len(images)
            and not (images.dtype.kind == "f" and 0 <= images.min() <= images.max() <= 1)
        ):
            raise InputError(
                f"{self._blame(number)} has images of {images.dtype} from {images.min():g} to {images.max():g}; "
                "batches need uint8, or floats from 0.0 to 1.0, or data.window or data.stretch"
            )
        return as_pixels(images, self._where, self._spec)

    def _encoded(self, image: Any, spool: BinaryIO, name: str) -> Encoded:
        """A picture file, or an array of a size of its own, which is kept as one."""
        if isinstance(image, str | Path):
            return Encoded.of_file((self._spec.path or Path()) / image, str(image))
        if isinstance(image, np.ndarray) and image.dtype == np.uint8:
            from PIL import Image

            file = io.BytesIO()
            Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image).save(file, "PNG")
            image = file.getvalue()
        if not isinstance(image, bytes):
            raise InputError(
                f"data.source {self._name!r}: {name} is {type(image).__name__}; an array of uint8, bytes of a picture "
                "file, or its path is needed"
            )
        start = spool.tell()
        spool.write(image)
        return Encoded.of_part(self._spool, start, len(image), name)
