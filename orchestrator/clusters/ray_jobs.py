"""Any Ray cluster, through the Ray Jobs API of its dashboard.

The end of a log stream is not the end of a job: the log is read whole at each look and printed from where the
last look ended, and only the job's state says that nothing more comes. Ray's own token is sent where
RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token gives one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

from orchestrator.clusters.diagnosis import Finding, diagnose, driver_failed
from orchestrator.clusters.interface import Job, JobState, Level, in_brief
from orchestrator.clusters.job_bundle import ENTRYPOINT, Package, attempt_id, attempt_of
from orchestrator.clusters.snapshot import Facts
from trainers.errors import ClusterError, InputError, TandemError

_DASHBOARD_PORT = 8265
_LOOK_SECONDS = 1.0
_UNREACHABLE_SECONDS = 120.0
_STOP_SECONDS = 60.0
_AGENT_SECONDS = 60.0
"""Until a new head's agent, which starts jobs, is there."""
_LOG_END = 20_000
_EXPERIMENT, _RESULTS = "tandem-experiment", "tandem-results"


class RayJobs:
    """A Ray cluster by its dashboard's address. See `Cluster`."""

    def __init__(self, address: str) -> None:
        from ray.job_submission import JobSubmissionClient

        logging.getLogger("ray").setLevel(logging.ERROR)
        address = re.sub(r"^ray://([^:/]+).*", rf"http://\1:{_DASHBOARD_PORT}", address)
        self.address = address
        with self._asking():
            self._client: Any = JobSubmissionClient(address)

    def submit(self, package: Package) -> Job:
        """Start a package's driver; where the same work is under way already, give that job."""
        earlier = [job for job in self.jobs() if attempt_of(job.id, package.job_id) is not None]
        for job in earlier:
            if not job.state.is_terminal:
                return job
        attempts = [attempt_of(job.id, package.job_id) or 0 for job in earlier]
        job_id = attempt_id(package.job_id, max(attempts, default=0) + 1)
        with package.directory() as directory:
            self._start(
                entrypoint=f"{ENTRYPOINT} {job_id} .",
                submission_id=job_id,
                runtime_env={"working_dir": str(directory)},
                metadata={_EXPERIMENT: package.experiment.name, _RESULTS: package.results},
            )
        return self.job(job_id)

    def _start(self, **job: Any) -> None:
        """Hand a job over, waiting for a cluster that has only just come up."""
        limit = time.monotonic() + _AGENT_SECONDS
        while True:
            try:
                with self._asking():
                    self._client.submit_job(**job)
                return
            except ClusterError as error:
                if "No available agent" not in str(error) or time.monotonic() > limit:
                    raise
                time.sleep(_LOOK_SECONDS)

    def check(self, package: Package, *, probes: bool) -> Iterator[str]:
        """Have the cluster itself look at the data, the storage and its room, in a job of a few seconds."""
        probe = dataclasses.replace(package, is_check=True)
        job = self.submit(probe)
        yield from self.log(job.id, follow=True)
        if self.job(job.id).state is not JobState.SUCCEEDED:
            raise TandemError(f"{self.address} cannot run this experiment")
        with self._asking():
            self._client.delete_job(job.id)

    def job(self, job_id: str) -> Job:
        """One job."""
        missing = f"{self.address} has no job called {job_id!r}; see tandem list --on {self.address}"
        with self._asking():
            try:
                details = self._client.get_job_info(job_id)
            except RuntimeError as error:
                if "404" in str(error):
                    raise InputError(missing) from error
                raise
        if not (details.metadata or {}).get(_EXPERIMENT):
            raise InputError(missing)
        return _job(details)

    def jobs(self) -> list[Job]:
        """All of tandem's jobs, newest first."""
        with self._asking():
            listed = self._client.list_jobs()
        jobs = [_job(details) for details in listed if (details.metadata or {}).get(_EXPERIMENT)]
        return sorted(jobs, key=lambda job: -(job.started_at or 0))

    def log(self, job_id: str, *, follow: bool) -> Iterator[str]:
        """What the driver prints, each line once, through losses of the connection."""
        printed, answered_at = 0, time.monotonic()
        while True:
            try:
                ended = self.job(job_id).state.is_terminal
                with self._asking():
                    log: str = self._client.get_job_logs(job_id)
            except ClusterError:
                if not follow or time.monotonic() - answered_at > _UNREACHABLE_SECONDS:
                    raise
                time.sleep(_LOOK_SECONDS)
                continue
            answered_at = time.monotonic()
            whole = len(log) if ended else log.rfind("\n") + 1
            yield from log[printed:whole].splitlines()
            printed = max(printed, whole)
            if ended or not follow:
                return
            time.sleep(_LOOK_SECONDS)

    def cancel(self, job_id: str) -> Job:
        """Stop a job, and wait until it has stopped."""
        job = self.job(job_id)
        if job.state.is_terminal:
            return job
        with self._asking():
            self._client.stop_job(job_id)
        limit = time.monotonic() + _STOP_SECONDS
        while not (job := self.job(job_id)).state.is_terminal:
            if time.monotonic() > limit:
                raise ClusterError(f"job {job_id} was told to stop but still runs after {_STOP_SECONDS:g} s")
            time.sleep(_LOOK_SECONDS)
        return job

    def chain(self, job_id: str) -> list[Level]:
        """The Ray job alone: the cluster is not the job's own."""
        job = self.job(job_id)
        return [Level(kind="Ray job", name=job.id, state=job.state, detail=job.message)]

    def findings(self, job_id: str | None) -> list[Finding]:
        """What ended a job, as far as its driver's last words tell."""
        if job_id is None:
            return []
        job = self.job(job_id)
        if job.state is not JobState.FAILED:
            return []
        with self._asking():
            log: str = self._client.get_job_logs(job_id)
        known = diagnose(Facts(namespace="", log=log[-_LOG_END:]))
        remedy = f"tandem logs {job_id} --on {self.address}"
        return known or [driver_failed(job.message, log=log, remedy=remedy)]

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn what goes wrong between here and there into one sentence."""
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise ClusterError(
                f"{self.address} refuses the token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the "
                "cluster's token, or put it into ~/.ray/auth_token"
            ) from error
        except (ConnectionError, requests.exceptions.RequestException) as error:
            raise ClusterError(
                f"{self.address} does not answer; is the cluster up, and is this its dashboard's address?"
            ) from error
        except (RuntimeError, KeyError, ValueError) as error:
            lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise ClusterError(f"{self.address} refuses: {lines[-1]}") from error


def _job(details: Any) -> Job:
    return Job(
        id=details.submission_id,
        experiment=details.metadata[_EXPERIMENT],
        results=details.metadata.get(_RESULTS, ""),
        state=JobState(str(details.status.value).lower()),
        message=in_brief(details.message or ""),
        started_at=details.start_time / 1000 if details.start_time else None,
        ended_at=details.end_time / 1000 if details.end_time else None,
    )
