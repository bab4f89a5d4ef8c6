"""Where a job's log is read: in the experiment's storage, or at Ray's dashboard while the cluster exists."""

from __future__ import annotations

import base64
import json
import time
from typing import Protocol

from orchestrator.clusters.kuberay import api, status
from orchestrator.clusters.kuberay.api import KubernetesApi, Refusal
from orchestrator.clusters.kuberay.objects import Manifest, seconds_of, status_of
from orchestrator.execution.monitoring.driver_log import KeptLog
from orchestrator.store.storage import Storage, StorageError

_LONGEST_SECRET = 50
_POLL_SECONDS, _LONGEST_POLL_SECONDS = 2.0, 5.0
_BYTES_PER_SECOND = 64 << 10
"""Read from the dashboard on average, unless that would leave longer pauses."""


class Log(Protocol):
    """A job's log, read part by part."""

    def new(self, ray_job: Manifest, *, final: bool) -> str:
        """What was printed since the last call, in whole lines; if the job has ended, all that is left."""


def open_log(ray_job: Manifest, kubernetes: KubernetesApi) -> Log:
    """The log of a job."""
    results = status.results_of(ray_job)
    if "://" in results:
        created_at = seconds_of(ray_job["metadata"].get("creationTimestamp"))
        return _StoredLog(Storage(results), status.driver_id(ray_job), since=created_at)
    return _DashboardLog(kubernetes)


class _StoredLog:
    """The log that the driver writes into a storage that can be read from here too."""

    def __init__(self, storage: Storage, job_id: str, *, since: float | None) -> None:
        self._kept = KeptLog(storage, job_id, since=since)

    def new(self, ray_job: Manifest, *, final: bool) -> str:
        try:
            return self._kept.new(final=final)
        except StorageError:
            if final:
                raise
            return ""  # the next call reads what this one missed


class _DashboardLog:
    """The log that Ray's dashboard serves, for a storage that only the pods can read.

    The dashboard sends a log from its beginning, so the longer a log is, the less often it is read.
    """

    def __init__(self, kubernetes: KubernetesApi) -> None:
        self._api = kubernetes
        self._cluster, self._printed, self._token = "", 0, ""
        self._next_at = 0.0
        self._is_refused = False

    def new(self, ray_job: Manifest, *, final: bool) -> str:
        job_status = status_of(ray_job)
        service = str(job_status.get("dashboardURL") or "").partition(".")[0]
        cluster = job_status.get("rayClusterName")
        if not service or not cluster or self._is_refused or (time.monotonic() < self._next_at and not final):
            return ""
        try:
            if cluster != self._cluster:
                self._token = self._read_token(cluster)
                self._cluster, self._printed = cluster, 0
            path = f"/api/jobs/{job_status['jobId']}/logs"
            response = self._api.proxied(f"{service}:dashboard", path, self._token)
        except Refusal as refusal:
            if refusal.status != 403:
                raise
            self._is_refused = True
            return f"the log cannot be followed from here, the job goes on: {refusal}\n"
        if response is None and final:
            return f"the cluster is gone; {status.results_of(ray_job)}/logs has the whole log\n"
        log = _log_in(response)
        self._next_at = time.monotonic() + min(
            max(_POLL_SECONDS, len(log) / _BYTES_PER_SECOND), _LONGEST_POLL_SECONDS
        )
        whole = len(log) if final else log.rfind("\n") + 1
        new, self._printed = log[self._printed : whole], max(self._printed, whole)
        return new

    def _read_token(self, cluster: str) -> str:
        secret = self._api.get(api.SECRET, secret_name(cluster))
        return "" if secret is None else base64.b64decode(secret["data"]["auth_token"]).decode()


def secret_name(cluster: str) -> str:
    """The Secret that holds a cluster's token: the cluster's name, shortened as KubeRay's CheckName does."""
    name = cluster[-_LONGEST_SECRET:]
    return name if name[0].isalpha() else f"r{name[1:]}"


def _log_in(response: str | None) -> str:
    try:
        return str(json.loads(response or "{}").get("logs", ""))
    except ValueError:
        return ""
