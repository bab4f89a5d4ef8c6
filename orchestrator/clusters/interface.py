"""What tandem needs of a cluster that is elsewhere: take a job, tell of it, show its log, stop it."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Iterator
from typing import Protocol

from orchestrator.clusters.diagnosis import Finding
from orchestrator.clusters.job_bundle import Package
from trainers.errors import ClusterError, InputError

_QUOTES = ", last available logs"
_LONGEST_MESSAGE = 500


class DriverLostError(ClusterError):
    """The cluster calls a job running whose driver is gone; submitting it again goes on from its records."""


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
    """The cluster's own words, in one line."""
    started_at: float | None
    """Seconds since the epoch."""
    ended_at: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Level:
    """One link of the chain from a job down to its runs."""

    kind: str
    name: str
    state: str
    detail: str = ""


def in_brief(message: str) -> str:
    """What Ray says of a job's end, in one line: with the last one of the log that it quotes."""
    said, _, log = message.partition(_QUOTES)
    told = [line.strip() for line in log.partition("\n")[2].splitlines() if line.strip()]
    return ": ".join([*said.strip().splitlines()[:1], *told[-1:]])[:_LONGEST_MESSAGE]


class Cluster(Protocol):
    """A cluster that runs the driver on its head node."""

    def submit(self, package: Package) -> Job:
        """Start a package's driver; where the same work is under way already, say so instead.

        Raises:
            ClusterError: it cannot be reached, or refuses.
        """

    def check(self, package: Package, *, probes: bool) -> Iterator[str]:
        """What there is to say of a package before it is submitted, line by line.

        Args:
            package: what would be submitted.
            probes: whether pods may be started to look; on a cluster that stands, a job of a few seconds looks anyway.

        Raises:
            TandemError: it could not run; says why.
        """

    def job(self, job_id: str) -> Job:
        """One job.

        Raises:
            InputError: there is no such job.
        """

    def jobs(self) -> list[Job]:
        """All of tandem's jobs, newest first."""

    def log(self, job_id: str, *, follow: bool) -> Iterator[str]:
        """What the driver prints, each line once; when following, until the job has ended.

        Raises:
            DriverLostError: the job will never end by itself.
        """

    def cancel(self, job_id: str) -> Job:
        """Stop a job, and wait until it has stopped."""

    def chain(self, job_id: str) -> list[Level]:
        """What a job consists of on this cluster, from the top down; its runs are in the records."""

    def findings(self, job_id: str | None) -> list[Finding]:
        """What keeps a job, or any job, from running, and the command or edit that mends it."""


def open_cluster(address: str, *, namespace: str | None = None) -> Cluster:
    """The cluster of an address.

    Args:
        address: of a Ray cluster's dashboard, or `kuberay` or `kuberay:CONTEXT`.
        namespace: of Kubernetes; the context's own when left out.

    Raises:
        InputError: the address is of no known kind.
        ClusterError: nothing answers there, or it runs another version of Ray.
    """
    kind, _, context = address.partition(":")
    if kind == "kuberay":
        from orchestrator.clusters.kuberay.cluster import KubeRay

        return KubeRay(context or None, namespace)
    if namespace is not None:
        raise InputError(f"--namespace {namespace}: is for --on kuberay, not for {address!r}")
    if re.match(r"(https?|ray)://", address):
        from orchestrator.clusters.ray_jobs import RayJobs

        return RayJobs(address)
    raise InputError(
        f"--on {address!r}: give the address of a Ray cluster's dashboard, such as http://head:8265, or kuberay, "
        "or kuberay: and a context of your kubeconfig"
    )
