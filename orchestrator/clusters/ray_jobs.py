"""A Ray cluster that is running, through the Ray Jobs API of its dashboard.

The end of a log stream is not the end of a job. The whole log is read each time and printed from the end of the last
read; only the job's state says that it has ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.clusters.driver_diagnosis import diagnose_log, driver_failed
from orchestrator.clusters.interface import Finding
from orchestrator.clusters.job_bundle import JobBundle, attempt_id, attempt_of
from orchestrator.clusters.job_cluster import (
    Job,
    JobCluster,
    JobState,
    StatusNode,
    message_in_one_line,
    submitted,
)
from orchestrator.execution.monitoring.driver_log import own_lines
from orchestrator.planning.job import ENTRYPOINT
from trainers.errors import ClusterError, InputError, TandemError

_DASHBOARD_PORT = 8265
_POLL_SECONDS = 1.0
_REQUEST_SECONDS = 30.0
_UNREACHABLE_SECONDS = 120.0
_STOP_SECONDS = 60.0
_AGENT_SECONDS = 60.0
"""How long a new head node may take until its agent accepts jobs."""
_LOG_END = 20_000
_EXPERIMENT, _RESULTS = "tandem-experiment", "tandem-results"


class RayJobs(JobCluster):
    """A Ray cluster by the address of its dashboard, or of its client server with `ray://`."""

    def __init__(self, address: str, namespace: str | None = None) -> None:
        super().__init__(address, namespace)
        self._dashboard = re.sub(r"^ray://([^:/]+).*", rf"http://\1:{_DASHBOARD_PORT}", address)
        if not re.match(r"https?://.", self._dashboard):
            raise InputError(f"--on {address!r}: give a host, such as http://head:8265")

    @functools.cached_property
    def _client(self) -> Any:
        """The connection.

        Raises:
            ClusterError: nothing answers, or the cluster runs another version of Ray.
        """
        import ray
        from ray.job_submission import JobSubmissionClient

        logging.getLogger("ray").setLevel(logging.ERROR)
        with self._requests():
            client: Any = JobSubmissionClient(self._dashboard)
        version = self._ray_version
        if version != ray.__version__:
            raise ClusterError(
                f"{self._dashboard} runs Ray {version}, but here is {ray.__version__}; "
                f"pip install 'ray[default,train,tune]=={version}' here, or upgrade the cluster"
            )
        return client

    @functools.cached_property
    def _ray_version(self) -> str:
        """The version of Ray that the cluster runs, which Ray's client does not give."""
        import requests

        with self._requests():
            url = f"{self._dashboard}/api/version"
            response = requests.get(url, headers=_authorization(), timeout=_REQUEST_SECONDS)
            response.raise_for_status()
            return str(response.json()["ray_version"])

    def submit(self, bundle: JobBundle) -> Job:
        """Start a job; if the same work is under way already, return that job."""
        earlier = [job for job in self.jobs() if attempt_of(job.id, bundle.job_id) is not None]
        for job in earlier:
            if not job.state.is_terminal:
                return job
        attempts = [attempt_of(job.id, bundle.job_id) or 0 for job in earlier]
        job_id = attempt_id(bundle.job_id, max(attempts, default=0) + 1)
        with submitted(bundle, time.time()).directory() as directory:
            self._start(
                entrypoint=f"{ENTRYPOINT} {job_id} .",
                submission_id=job_id,
                runtime_env={"working_dir": str(directory)},
                metadata={_EXPERIMENT: bundle.spec.experiment.name, _RESULTS: bundle.spec.results},
            )
        return self.job(job_id)

    def _start(self, **job: Any) -> None:
        """Submit a job, waiting for a head node that has just started."""
        limit = time.monotonic() + _AGENT_SECONDS
        while True:
            try:
                with self._requests():
                    self._client.submit_job(**job)
                return
            except ClusterError as error:
                if "No available agent" not in str(error) or time.monotonic() > limit:
                    raise
                time.sleep(_POLL_SECONDS)

    def check(self, bundle: JobBundle, *, probes: bool) -> Iterator[str]:
        """Check the data, the storage and the resources on the cluster, in a job of a few seconds."""
        check = dataclasses.replace(bundle, spec=dataclasses.replace(bundle.spec, is_check=True))
        job = self.submit(check)
        yield f"Ray {self._ray_version} at {self._dashboard}"
        yield from self.log(job.id, follow=True)
        if self.job(job.id).state is not JobState.SUCCEEDED:
            raise TandemError(f"{self._dashboard} cannot run this experiment")
        with self._requests():
            self._client.delete_job(job.id)

    def job(self, job_id: str) -> Job:
        """One job."""
        missing = f"{self._dashboard} has no job called {job_id!r}; see tandem list --on {self.address}"
        with self._requests():
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
        with self._requests():
            listed = self._client.list_jobs()
        jobs = [_job(details) for details in listed if (details.metadata or {}).get(_EXPERIMENT)]
        return sorted(jobs, key=lambda job: -(job.started_at or 0))

    def log(self, job_id: str, *, follow: bool) -> Iterator[str]:
        """What the driver and its workers printed, each line once, also after the connection was lost."""
        printed, reached_at = 0, time.monotonic()
        while True:
            try:
                ended = self.job(job_id).state.is_terminal
                log = self._log(job_id)
            except ClusterError:
                if not follow or time.monotonic() - reached_at > _UNREACHABLE_SECONDS:
                    raise
                time.sleep(_POLL_SECONDS)
                continue
            reached_at = time.monotonic()
            whole = len(log) if ended else log.rfind("\n") + 1
            yield from own_lines(log[printed:whole])
            printed = max(printed, whole)
            if ended or not follow:
                return
            time.sleep(_POLL_SECONDS)

    def cancel(self, job_id: str) -> Job:
        """Stop a job, and wait until it has stopped."""
        job = self.job(job_id)
        if job.state.is_terminal:
            return job
        with self._requests():
            self._client.stop_job(job_id)
        limit = time.monotonic() + _STOP_SECONDS
        while not (job := self.job(job_id)).state.is_terminal:
            if time.monotonic() > limit:
                raise ClusterError(f"job {job_id} still runs {_STOP_SECONDS:g} s after it was asked to stop")
            time.sleep(_POLL_SECONDS)
        return job

    def objects(self, job_id: str) -> StatusNode:
        """The Ray job; the cluster does not belong to it."""
        job = self.job(job_id)
        return StatusNode(kind="Ray job", name=job.id, state=job.state, detail=job.message)

    def findings(self, job_id: str | None) -> list[Finding]:
        """Why a job failed, from its log.

        Raises:
            ClusterError: without a job, the reason why the cluster cannot be used.
        """
        if job_id is None:
            self.jobs()
            return []
        job = self.job(job_id)
        if job.state is not JobState.FAILED:
            return []
        log = self._log(job_id)
        known = diagnose_log(log[-_LOG_END:])
        remedy = f"tandem logs {job_id} --on {self.address}"
        return [known or driver_failed(job.message, log=log, remedy=remedy)]

    def _log(self, job_id: str) -> str:
        with self._requests():
            return str(self._client.get_job_logs(job_id))

    @contextlib.contextmanager
    def _requests(self) -> Iterator[None]:
        """Turn the errors of requests to the cluster into one sentence."""
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise ClusterError(
                f"{self._dashboard} refuses the token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the "
                "cluster's token, or put it into ~/.ray/auth_token"
            ) from error
        except (ConnectionError, requests.exceptions.RequestException) as error:
            raise ClusterError(
                f"{self._dashboard} does not answer; is the cluster up, and is this its dashboard's address?"
            ) from error
        except (RuntimeError, KeyError, ValueError) as error:
            lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise ClusterError(f"{self._dashboard} refuses: {lines[-1]}") from error


def _authorization() -> dict[str, str]:
    """The header with Ray's token, from where Ray itself takes it; empty where tokens are not in use."""
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN")
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    if not token and file.is_file():
        token = file.read_text().strip()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _job(details: Any) -> Job:
    return Job(
        id=details.submission_id,
        experiment=details.metadata[_EXPERIMENT],
        results=details.metadata.get(_RESULTS, ""),
        state=JobState(str(details.status.value).lower()),
        message=message_in_one_line(details.message or ""),
        started_at=details.start_time / 1000 if details.start_time else None,
        ended_at=details.end_time / 1000 if details.end_time else None,
    )
