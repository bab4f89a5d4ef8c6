"""What a submitted driver prints, kept in storage while it prints, so that it outlives the cluster.

    <storage>/<name>/logs/<job id>/<start of the driver>-<number>.txt

A new file is begun when the last has grown large, so that following a log reads only what is new.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from orchestrator.store.storage import Storage, StorageError

_RAY = re.compile(
    r"(?:\(\S+ pid=[^)]*\) )?\[?\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+\s+"
    r"(?P<level>INFO|WARNING|ERROR) \w+\.py:\d+ -- (?P<message>.*)"
)
_TENSORFLOW = re.compile(
    r"(?:^|\s)(?P<level>[IWEF])(?:0000 00:00:\S+\s+\d+)? [\w/.-]+\.(?:cc|cu|h):\d+\] (?P<message>.*)"
)
_BANNER = re.compile(
    r"All log messages before absl::InitializeLog\(\)|^To enable the following instructions:"
)
_LARGEST_SEGMENT = 256 << 10
_KEEP_SECONDS = 2.0


@contextlib.contextmanager
def kept(storage: Storage, job_id: str) -> Iterator[None]:
    """Copy all that this process and its children print into storage, every two seconds.

    What is printed goes where it went before as well. A storage that fails does not stop the driver.
    """
    keeper = _Keeper(storage.at("logs", job_id))
    sys.stdout.flush()
    sys.stderr.flush()
    before = os.dup(1), os.dup(2)
    source, sink = os.pipe()
    reader = threading.Thread(target=keeper.read, args=(source, before[0]), name="tandem-log")
    reader.start()
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os.close(sink)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, original in enumerate(before, start=1):
            os.dup2(original, descriptor)
        keeper.over.set()
        reader.join(timeout=10)


class _Keeper:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._start = f"{time.time():.3f}"
        self._segment, self._text = 1, b""
        self._unkept = False
        self.over = threading.Event()

    def read(self, source: int, onward: int) -> None:
        """Read until every writer is gone, or this process' own and a moment more."""
        os.set_blocking(source, False)
        kept_at = 0.0
        while True:
            ending = self.over.is_set()
            chunk = self._next(source)
            if chunk:
                with contextlib.suppress(OSError):
                    os.write(onward, chunk)
                self._text += chunk
                self._unkept = True
            if self._unkept and (ending or time.monotonic() - kept_at > _KEEP_SECONDS):
                self._keep()
                kept_at = time.monotonic()
            if ending and not chunk:
                return
            if not chunk:
                time.sleep(0.05)

    def _next(self, source: int) -> bytes:
        try:
            return os.read(source, 1 << 16)
        except BlockingIOError:
            return b""

    def _keep(self) -> None:
        with contextlib.suppress(StorageError):
            self._storage.write(f"{self._start}-{self._segment:05d}.txt", self._text)
            self._unkept = False
            if len(self._text) > _LARGEST_SEGMENT:
                self._segment, self._text = self._segment + 1, b""


class KeptLog:
    """The kept log of a job, read piece by piece: each character once, through all of the driver's attempts."""

    def __init__(self, storage: Storage, job_id: str, *, since: float | None = None) -> None:
        """Read from the beginning.

        Args:
            storage: the experiment's.
            job_id: an earlier job, whose objects were deleted, may have had the same.
            since: leaves out the drivers that started before, in seconds since the epoch.
        """
        self._storage = storage.at("logs", job_id)
        self._segment, self._read = "" if since is None else f"{since:.3f}", 0
        self._attempt, self._start = 0, ""

    def new(self, *, final: bool = False) -> str:
        """What came since the last call, in whole lines; all that there is when nothing more can come.

        A line with its number precedes what each attempt but the first printed.

        Raises:
            StorageError: the storage cannot be read.
        """
        text = ""
        names = [name for name in self._storage.names() if name.endswith(".txt") and name >= self._segment]
        for name in names:
            if name != self._segment:
                self._segment, self._read = name, 0
            content = self._storage.read(name) or b""
            whole = len(content) if final or name != names[-1] else content.rfind(b"\n") + 1
            start = name.partition("-")[0]
            if start != self._start:
                self._start, self._attempt = start, self._attempt + 1
                if self._attempt > 1:
                    began = datetime.fromtimestamp(float(start), UTC).isoformat(" ", "seconds")
                    text += f"attempt {self._attempt}, started {began}\n"
            text += content[self._read : whole].decode(errors="replace")
            self._read = max(self._read, whole)
        return text


def own_lines(text: str) -> Iterator[str]:
    """The lines of a log without Ray's and TensorFlow's own messages; their warnings are labelled."""
    for line in text.splitlines():
        if (ray := _RAY.match(line)) is not None:
            if ray["level"] != "INFO":
                yield f"Ray's {ray['level'].lower()}: {ray['message']}"
        elif (tensorflow := _TENSORFLOW.search(line)) is not None:
            if tensorflow["level"] in "EF":
                yield f"TensorFlow's error: {tensorflow['message']}"
        elif not _BANNER.search(line):
            yield line


def jobs_of(storage: Storage) -> list[str]:
    """The ids of the jobs that logs are kept of, in the order in which they began."""
    logs = storage.at("logs")
    return sorted(logs.names(), key=lambda job_id: logs.at(job_id).names()[:1])
