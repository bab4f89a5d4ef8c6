"""What lies in the node's cache, and its removal."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from trainers.data.dataset import DECODED
from trainers.data.download import cache_directory, locked
from trainers.data.scratch import SCRATCH


@dataclasses.dataclass(frozen=True)
class CacheSize:
    """What the cache holds."""

    directory: str
    decoded: int
    """Data sets."""
    decoded_bytes: int
    other_bytes: int
    """Downloads, and what an interrupted command left."""


def measure() -> CacheSize:
    """The size of the cache of this machine."""
    root = cache_directory()
    decoded = _decoded()
    of_decoded = sum(map(_size, decoded))
    return CacheSize(str(root), len(decoded), of_decoded, _size(root) - of_decoded)


def clear(*, downloads: bool) -> int:
    """Remove the decoded data sets and what an interrupted command left; returns the bytes that this frees.

    Args:
        downloads: remove downloaded data too.
    """
    root = cache_directory()
    before = _size(root)
    for directory in _decoded():
        with locked(directory):  # which another process may be decoding
            shutil.rmtree(directory, ignore_errors=True)
    shutil.rmtree(root / SCRATCH, ignore_errors=True)
    if downloads:
        for entry in root.iterdir() if root.is_dir() else ():
            if entry.is_dir() and entry.name != DECODED:
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.is_file() and entry.suffix != ".lock":
                entry.unlink()
    return before - _size(root)


def _decoded() -> list[Path]:
    return [entry for entry in sorted((cache_directory() / DECODED).glob("*")) if entry.is_dir()]


def _size(directory: Path) -> int:
    return sum(
        file.stat().st_size for file in directory.rglob("*") if file.is_file() and not file.is_symlink()
    )
