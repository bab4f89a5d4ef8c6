"""The interface of a data source: how its files are recognized and read."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

from trainers.data.labelled import Labelled
from trainers.data.spec import DataSpec


def files_below(path: Path, spec: DataSpec) -> list[Path]:
    """All files and directories at a path, through links too, each directory once."""
    if not path.is_dir():
        return [path]
    found, ahead, seen = [], [path], set()
    while ahead:
        here = ahead.pop()
        if (real := os.path.realpath(here)) in seen or not os.access(here, os.R_OK | os.X_OK):
            continue
        seen.add(real)
        below = [here / name for name in sorted(os.listdir(here))]
        found += below
        ahead += [entry for entry in below if entry.is_dir()]
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A kind of data.

    A module of `trainers.data.sources` has one as `SOURCE`, and the module's name is the source's name. Another package
    adds one through the entry point group `tandem.sources`.
    """

    read: Callable[[Path | None, DataSpec], Labelled] | None = None
    """Reads what is at a path, which is None if `locate` gives none; raises `InputError` with one sentence. A source
    without it only locates the data, and the source that recognizes them reads them."""
    recognizes: Callable[[Path], bool] = lambda path: False
    """Whether an existing path holds this kind of data; asked where `data.source` is left out."""
    precedence: int = 0
    """Of several sources that recognize a path, the one with the highest precedence reads it."""
    fields: frozenset[str] = frozenset()
    """Those of `image_column`, `label_column`, `extension`, `images` and `group_by` that it has a meaning for."""
    locate: Callable[[], Path | None] | None = None
    """Finds or downloads the data where `data.path` is left out, or gives None for data that need no path; None if a
    path is needed."""
    files: Callable[[Path, DataSpec], list[Path]] = files_below
    """The files that it reads. If one of them changes, the data are decoded again."""
