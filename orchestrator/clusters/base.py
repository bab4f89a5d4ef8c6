"""What tandem needs of a cluster that is elsewhere: take a job, tell of it, show its log, stop it."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Iterator
from typing import Protocol

from orchestrator.clusters.package import Package
from trainers.errors import InputError


class JobState(enum.StrEnum):
    """Where a job stands."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing more comes."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A submitted experiment as its cluster tells of it."""

    id: str
    experiment: str
    """Its name."""
    results: str
    """Where its records and report are kept."""
    state: JobState
    message: str
    """The cluster's own words."""
    started_at: float | None
    """Seconds since the epoch."""
    ended_at: float | None


class Cluster(Protocol):
    """A cluster that runs the driver on its head node."""

    def submit(self, package: Package) -> Job:
        """Start a package's driver; where the same work is under way already, say so instead.

        Raises:
            ClusterError: it cannot be reached, or refuses.
        """

    def job(self, job_id: str) -> Job:
        """One job.

        Raises:
            InputError: there is no such job.
        """

    def jobs(self) -> list[Job]:
        """All of tandem's jobs, newest first."""

    def log(self, job_id: str, *, follow: bool) -> Iterator[str]:
        """What the driver prints, each line once; when following, until the job has ended."""

    def cancel(self, job_id: str) -> Job:
        """Stop a job, and wait until it has stopped."""


def open_cluster(address: str) -> Cluster:
    """The cluster of an address.

    Raises:
        InputError: the address is of no known kind.
        ClusterError: nothing answers there, or it runs another version of Ray.
    """
    if re.match(r"(https?|ray)://", address):
        from orchestrator.clusters.ray_jobs import RayJobs

        return RayJobs(address)
    raise InputError(
        f"--on {address!r}: give the address of a Ray cluster's dashboard, such as http://head:8265"
    )
