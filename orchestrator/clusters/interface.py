"""What every cluster does with a job, this machine included.

A cluster is opened by its address, without a connection; the first call that needs one makes it.
"""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.clusters.job_bundle import JobBundle
from orchestrator.planning.job import Outcome
from orchestrator.store.storage import Record, Storage
from trainers.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

_LONGEST_TEXT = 300


@dataclasses.dataclass(frozen=True)
class Finding:
    """A reason why a job cannot run, or why it failed."""

    cause: str
    """A short name, for scripts."""
    sentence: str
    remedy: str
    """A command or an edit that removes the cause."""
    count: int = 1
    """How many objects have the same cause."""

    def __str__(self) -> str:
        times = f" ({self.count} times)" if self.count > 1 else ""
        return f"{self.sentence}{times}; {self.remedy}"


def shortened(message: object) -> str:
    """A message in one line, cut to a length that suits a finding."""
    return " ".join(str(message or "").split())[:_LONGEST_TEXT]


class Cluster(abc.ABC):
    """Where a job runs."""

    def __init__(self, address: str, namespace: str | None = None) -> None:
        """Remember where the cluster is.

        Args:
            address: as `--on` gives it.
            namespace: of Kubernetes, as `--namespace` gives it.

        Raises:
            InputError: the address is wrong, or this kind of cluster has no namespaces.
        """
        if namespace is not None:
            raise InputError(f"--namespace {namespace}: is for --on kuberay, not for {address!r}")
        self.address = address

    @abc.abstractmethod
    def check(self, bundle: JobBundle, *, probes: bool) -> Iterator[str]:
        """Describe a job before it runs, line by line.

        Args:
            bundle: the job.
            probes: whether pods may be started for it.

        Raises:
            TandemError: the job could not run; the message says why.
        """

    def check_results(self, bundle: JobBundle, *, probes: bool) -> Record:
        """What `check` describes, as plain JSON; at least its lines."""
        return {"lines": [*self.check(bundle, probes=probes)]}

    @abc.abstractmethod
    def run(self, bundle: JobBundle, console: Console) -> Outcome:
        """Run a job to its end.

        Args:
            bundle: the job.
            console: where progress is shown.

        Raises:
            TandemError: the job did not run.
        """

    @abc.abstractmethod
    def log(self, job_id: str, *, follow: bool) -> Iterator[str]:
        """What a job's driver and workers printed, each line once.

        Args:
            job_id: the job.
            follow: whether to wait for new lines until the job has ended.

        Raises:
            InputError: there is no such job.
        """

    @abc.abstractmethod
    def findings(self, job_id: str | None) -> list[Finding]:
        """Why a job does not run or failed; without a job, why none could run."""

    def fetch(self, bundle: JobBundle, directory: Path, *, skip: re.Pattern[str] | None) -> int:
        """Copy an experiment's results to a local directory; returns the number of files.

        Args:
            bundle: the experiment's job.
            directory: to copy to.
            skip: matches the paths of the files that are left out.
        """
        return Storage(bundle.spec.results).copy_to(directory, skip=skip)

    def manifests(self, bundle: JobBundle, *, schedule: str | None, validate: bool) -> list[dict[str, Any]]:
        """The Kubernetes objects that run a job.

        Args:
            bundle: the job.
            schedule: if given, the objects start the job at each of its times.
            validate: whether the API server validates the objects.

        Raises:
            InputError: this is not a Kubernetes cluster.
        """
        raise InputError(
            f"--on {self.address}: only kuberay, or kuberay:CONTEXT, runs jobs from Kubernetes objects"
        )
