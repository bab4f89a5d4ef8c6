"""A job's failure that another attempt would only repeat, kept in storage.

KubeRay starts a failed driver again whatever its exit code is. A later attempt at the same job ends at once with the
recorded failure. Failures of the cluster or of the storage are not recorded, so that another attempt may succeed.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.execution.lease import HeldError
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Storage, StorageError
from trainers.errors import ClusterError, InputError, TandemError

_FILE, _MEMORY_FILE = "failure.json", "memory.json"
_NOTE_SECONDS = 5.0
_FULL = 0.95
"""Of its limit: a container that uses so much is about to be killed."""
_CGROUP = Path("/sys/fs/cgroup")
_LOST = re.compile(r"the worker of rank [\d, ]+ died")


class JobFailure:
    """The recorded failure of one job."""

    def __init__(self, storage: Storage, job_id: str, *, submitted_at: float | None, seconds: float) -> None:
        """Name the job.

        Args:
            storage: the experiment's.
            job_id: may be given again after the job's objects were deleted.
            submitted_at: tells such jobs apart; None where the job was created from rendered objects.
            seconds: for how long a failure of a job without a time of submission is taken for the same job's.
        """
        self._storage = storage.at("jobs", job_id)
        self._submitted_at, self._seconds = submitted_at, seconds

    def read(self) -> tuple[int, list[str]] | None:
        """The exit code and the lines of an earlier attempt that failed for good; None if there is none."""
        record = self._storage.read_json(_FILE)
        if record is not None and self._is_same_job(record["submitted_at"], record["failed_at"]):
            return int(record["exit_code"]), [str(line) for line in record["lines"]]
        killed = self._killed_for_memory()
        return None if killed is None else (1, [killed])

    @contextlib.contextmanager
    def memory_noted(self, *, every: float = _NOTE_SECONDS) -> Iterator[None]:
        """Note how full this container's memory is while the block lasts.

        A note that is left behind shows that the driver was killed, and whether memory may be the cause.
        """
        over = threading.Event()

        def note() -> None:
            while not over.wait(every):
                if (memory := container_memory()) is not None:
                    used, limit = memory
                    record = {"submitted_at": self._submitted_at, "used_bytes": used, "limit_bytes": limit}
                    with contextlib.suppress(StorageError):
                        self._storage.write_json(_MEMORY_FILE, record | {"noted_at": time.time()})

        noting = threading.Thread(target=note, daemon=True, name="tandem-memory")
        noting.start()
        try:
            yield
        finally:
            over.set()
            noting.join(timeout=every)
            with contextlib.suppress(StorageError):
                self._storage.delete(_MEMORY_FILE)

    def _killed_for_memory(self) -> str | None:
        """Why the driver before this one must have been killed; None if it was not, or not for memory."""
        note = self._storage.read_json(_MEMORY_FILE)
        if note is None or not self._is_same_job(note["submitted_at"], note["noted_at"]):
            return None
        if note["used_bytes"] < _FULL * note["limit_bytes"]:
            return None
        used, limit = (note[name] / 2**30 for name in ("used_bytes", "limit_bytes"))
        return (
            f"tandem: out of memory: the driver was killed while its pod used {used:.2f} of {limit:.2f} GiB; raise "
            "kubernetes.head.memory_gib and submit again: it resumes from its records"
        )

    def _is_same_job(self, submitted_at: float | None, noted_at: float) -> bool:
        if submitted_at != self._submitted_at:
            return False
        return submitted_at is not None or time.time() - noted_at <= self._seconds

    def write(self, exit_code: int, lines: list[str]) -> None:
        """Record a failure that another attempt would repeat."""
        record = {"exit_code": exit_code, "lines": lines}
        times = {"submitted_at": self._submitted_at, "failed_at": time.time()}
        self._storage.write_json(_FILE, record | times)


def is_final(error: TandemError) -> bool:
    """Whether another attempt would fail with the same error."""
    return not isinstance(error, ClusterError | StorageError | HeldError)


def final_failures(records: ExperimentRecords) -> list[str]:
    """A line for each run that failed permanently; none if any of them only lost its workers."""
    lines = []
    try:
        runs = records.document()["runs"]
    except InputError:
        return []
    for run in runs:
        run_records = records.run(run["id"])
        failures = run_records.failures()
        if run_records.result() is not None or not failures or not failures[-1]["permanent"]:
            continue
        cause = failures[-1]["cause"]
        if _LOST.search(cause):
            return []
        lines.append(f"{run['arm']} seed {run['seed']} failed: {cause}; failed permanently")
    return lines


def container_memory(cgroup: Path = _CGROUP) -> tuple[int, int] | None:
    """Bytes that this container uses and that cannot be freed, and its limit; None where it has none."""
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        lines = (line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        counted = {name: int(value) for name, value in lines}
        return None if limit == "max" else (counted["anon"] + counted["shmem"], int(limit))
    except (OSError, ValueError, KeyError):
        return None
