"""A job's failure that another attempt would only repeat, kept in storage.

KubeRay starts a failed driver again whatever its exit code is. A later attempt at the same job ends at once with the
recorded failure. Failures of the cluster or of the storage are not recorded, so that another attempt may succeed.
"""

from __future__ import annotations

import re
import time

from orchestrator.execution.lease import HeldError
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Storage, StorageError
from trainers.errors import ClusterError, InputError, TandemError

_FILE = "failure.json"
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
        if record is None or record["submitted_at"] != self._submitted_at:
            return None
        if self._submitted_at is None and time.time() - record["failed_at"] > self._seconds:
            return None
        return int(record["exit_code"]), [str(line) for line in record["lines"]]

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
