"""Room in the node's cache for what is unpacked until it is decoded."""

from __future__ import annotations

import shutil
from tempfile import TemporaryDirectory

from trainers.data.download import cache_directory
from trainers.errors import InputError

SCRATCH = "scratch"
"""Directory of the cache that holds unpacked data."""


def scratch_directory(*, needed: int = 0) -> TemporaryDirectory[str]:
    """A directory that is removed when it is closed.

    Args:
        needed: bytes that it will hold.

    Raises:
        InputError: the disk has less room.
    """
    root = cache_directory() / SCRATCH
    try:
        root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(root).free
        if free < needed:
            raise InputError(
                f"the data cache {root.parent} has {free:,} bytes free, and {needed:,} are needed to unpack the data; "
                "free some space or set $TANDEM_CACHE to another directory"
            )
        return TemporaryDirectory(dir=root)
    except OSError as error:
        raise InputError(
            f"the data cache {root.parent} cannot be written: {error.strerror}; free some space or set "
            "$TANDEM_CACHE to another directory"
        ) from error
