"""Clusters that accept jobs: a job is submitted, runs without the command that submitted it, and can be followed.

What is the same on all of them is here: running a job to its end, submitting it again after its driver is lost,
and the last part of its status, which comes from the records.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestrator.clusters.interface import Cluster
from orchestrator.clusters.job_bundle import JobBundle
from orchestrator.planning.job import JobSpec, Outcome
from orchestrator.store.records import ExperimentRecords, RunRecords
from orchestrator.store.storage import Storage, StorageError
from trainers.errors import ClusterError, InputError, TandemError

if TYPE_CHECKING:
    from rich.console import Console

_LOG_EXCERPT = ", last available logs"
"""Separates, in Ray's message about a failed job, the reason from the end of the job's log."""
_LONGEST_MESSAGE = 500


class DriverLostError(ClusterError):
    """The cluster reports a job as running, but its driver is gone. A new submission resumes from the records."""


class JobState(enum.StrEnum):
    """The state of a job."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def is_terminal(self) -> bool:
        """Whether the state is final."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A submitted job as its cluster reports it."""

    id: str
    experiment: str
    """Its name."""
    results: str
    """URL or directory of the experiment's records and report."""
    state: JobState
    message: str
    """The cluster's message about the state, in one line."""
    started_at: float | None
    """Seconds since the epoch."""
    ended_at: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class StatusNode:
    """An object that a job consists of, with the objects below it."""

    kind: str
    name: str
    state: str
    detail: str = ""
    children: tuple[StatusNode, ...] = ()


class JobCluster(Cluster):
    """A cluster that runs a job's driver on its head node."""

    @abc.abstractmethod
    def submit(self, bundle: JobBundle) -> Job:
        """Start a job; if the same work is under way already, return that job.

        Raises:
            ClusterError: the cluster cannot be reached, or refuses the job.
        """

    @abc.abstractmethod
    def job(self, job_id: str) -> Job:
        """One job.

        Raises:
            InputError: there is no such job.
        """

    @abc.abstractmethod
    def jobs(self) -> list[Job]:
        """All of tandem's jobs, newest first."""

    @abc.abstractmethod
    def log(self, job_id: str, *, follow: bool) -> Iterator[str]:
        """What a job's driver and workers printed, each line once.

        A second call on the same object goes on after the last line of the first.

        Args:
            job_id: the job.
            follow: whether to wait for new lines until the job has ended.

        Raises:
            InputError: there is no such job.
            DriverLostError: the job's state will never become final.
        """

    @abc.abstractmethod
    def cancel(self, job_id: str) -> Job:
        """Stop a job, and wait until it has stopped."""

    @abc.abstractmethod
    def objects(self, job_id: str) -> StatusNode:
        """The objects of this cluster that a job consists of, the job's own at the root."""

    @property
    def options(self) -> str:
        """The options with which a command reaches this cluster."""
        return f"--on {self.address}"

    def status_tree(self, job_id: str) -> StatusNode:
        """The objects that a job consists of, and its runs where its records can be read from here."""
        root = self.objects(job_id)
        return dataclasses.replace(root, children=(*root.children, *_runs(self.job(job_id).results)))

    def run(self, bundle: JobBundle, console: Console) -> Outcome:
        """Submit a job and follow it to its end; Ctrl-C leaves the job running."""
        job = self.submit(bundle)
        earlier = _results(bundle.spec)
        console.print(f"job {job.id} {self.options}", soft_wrap=True)
        try:
            job = self._follow(bundle, job, console)
        except KeyboardInterrupt:
            follow, cancel = f"tandem logs {job.id} -f", f"tandem cancel {job.id}"
            line = f"the job goes on; {follow} {self.options}, or {cancel} {self.options}"
            console.print(line, soft_wrap=True)
            return Outcome(exit_code=130)
        return self._outcome(bundle.spec, job, console, earlier=earlier)

    def _follow(self, bundle: JobBundle, job: Job, console: Console) -> Job:
        """Print a job's log to its end; submit it again if its driver is lost, `kubernetes.retries` times."""
        settings = bundle.spec.experiment.kubernetes
        retries = 0 if settings is None else settings.retries
        while True:
            try:
                for line in self.log(job.id, follow=True):
                    console.print(line, soft_wrap=True)
                return job
            except DriverLostError as error:
                if retries == 0:
                    raise
                retries -= 1
                console.print(f"{error}; submitting it again", soft_wrap=True)
                self.cancel(job.id)
                job = self.submit(bundle)

    def _outcome(self, spec: JobSpec, job: Job, console: Console, *, earlier: str | None) -> Outcome:
        try:
            job = self.job(job.id)
        except InputError:
            raise TandemError(
                f"job {job.id} was deleted; submit it again to resume from its records"
            ) from None
        if job.state is JobState.STOPPED:
            raise TandemError(f"job {job.id} was stopped; submit it again to resume from its records")
        results = _results(spec)
        if job.state is not JobState.FAILED:
            if results is None:
                console.print(f"results: {job.results}, which cannot be read from here", soft_wrap=True)
            return Outcome(exit_code=0, results=results)
        if results == earlier:
            results = None  # the job failed before it wrote its results
        known = [finding for finding in self.findings(job.id) if finding.cause != "driver-failed"]
        error = None  # if runs failed, the log says which
        if known or results is None:
            error = str(known[0]) if known else f"job {job.id} {job.state}: {job.message}"
        return Outcome(exit_code=1, results=results, error=error)


def submitted(bundle: JobBundle, at: float | None) -> JobBundle:
    """A job with the time of its submission, in seconds since the epoch."""
    return dataclasses.replace(bundle, spec=dataclasses.replace(bundle.spec, submitted_at=at))


def message_in_one_line(message: str) -> str:
    """Ray's message about the end of a job, cut to its first line and the last line of the log in it."""
    reason, _, log = message.partition(_LOG_EXCERPT)
    lines = [line.strip() for line in log.partition("\n")[2].splitlines() if line.strip()]
    return ": ".join([*reason.strip().splitlines()[:1], *lines[-1:]])[:_LONGEST_MESSAGE]


def _results(spec: JobSpec) -> str | None:
    """The results of the experiment's last job, where its storage can be read from here."""
    try:
        content = Storage(spec.results).read(spec.results_file)
    except StorageError:
        return None
    return None if content is None else content.decode()


def _runs(results: str) -> list[StatusNode]:
    try:
        records = ExperimentRecords(Storage(results))
        return [_run(records.run(run["id"])) for run in records.document()["runs"]]
    except (StorageError, InputError):
        return []


def _run(run: RunRecords) -> StatusNode:
    failures = run.failures()
    state, detail = f"{len(run.epochs())} epochs", ""
    if run.result() is not None:
        state = "done"
    elif failures and failures[-1]["permanent"]:
        state, detail = "failed", failures[-1]["cause"]
    return StatusNode(kind="run", name=run.id, state=state, detail=detail)
