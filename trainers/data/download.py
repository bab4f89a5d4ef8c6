"""Fetch a published archive once: resumable, verified, safe when two processes ask at once."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from trainers.errors import InputError

_CHUNK = 1 << 20


def cache_directory() -> Path:
    """`$TANDEM_CACHE`, else `tandem` in the user's cache directory."""
    if chosen := os.environ.get("TANDEM_CACHE"):
        return Path(chosen)
    import platformdirs  # here, so that training on images at hand needs PyTorch, NumPy and Pydantic alone

    return platformdirs.user_cache_path("tandem")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `<path>.lock`; a second process waits until it is free."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        yield


def download(url: str, target: Path, *, md5: str) -> Path:
    """Bring `url` to `target`, continuing an earlier partial download, and check its MD5.

    Raises:
        InputError: the server cannot be reached, or what it sent has another checksum.
    """
    with locked(target):
        if target.exists():
            return target
        partial = target.with_name(target.name + ".part")
        try:
            _fetch(url, partial)
        except (urllib.error.URLError, OSError) as error:
            raise InputError(
                f"cannot download {url}: {error}; what has arrived is kept, so run again to go "
                "on, or set data.path or $TANDEM_DATA to a copy"
            ) from error
        digest = hashlib.md5(usedforsecurity=False)
        with open(partial, "rb") as handle:
            while block := handle.read(_CHUNK):
                digest.update(block)
        if digest.hexdigest() != md5:
            partial.unlink()
            raise InputError(
                f"{url} arrived with checksum {digest.hexdigest()}, published is {md5}; "
                "it was deleted, so run again to fetch it afresh"
            )
        partial.replace(target)
        return target


def _fetch(url: str, partial: Path) -> None:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    done = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing left to send: the checksum decides whether it is whole
            return
        raise
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with response, Progress(*columns) as progress:
        resumed = response.status == 206
        total = int(response.headers.get("Content-Length", 0)) + (done if resumed else 0)
        bar = progress.add_task(
            f"downloading {Path(url).name}", total=total or None, completed=done if resumed else 0
        )
        with open(partial, "ab" if resumed else "wb") as handle:
            while block := response.read(_CHUNK):
                handle.write(block)
                progress.advance(bar, len(block))
        if total and partial.stat().st_size < total:
            raise OSError(f"the connection ended after {partial.stat().st_size} of {total} bytes")
