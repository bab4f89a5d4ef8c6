"""Where a job's log is read: in the experiment's storage, or at Ray's dashboard while the cluster exists."""

from __future__ import annotations

import base64
import json
from typing import Protocol

from orchestrator.clusters.kuberay import api, status
from orchestrator.clusters.kuberay.api import KubernetesApi
from orchestrator.clusters.kuberay.objects import Manifest, status_of
from orchestrator.execution.driver_log import KeptLog
from orchestrator.store.storage import Storage, StorageError

_LONGEST_SECRET = 50


class Log(Protocol):
    """A job's log, read part by part."""

    def new(self, ray_job: Manifest, *, final: bool) -> str:
        """What was printed since the last call, in whole lines; if the job has ended, all that is left."""


def open_log(ray_job: Manifest, kubernetes: KubernetesApi) -> Log:
    """The log of a job."""
    results = status.results_of(ray_job)
    if "://" in results:
        return _StoredLog(Storage(results), status.driver_id(ray_job))
    return _DashboardLog(kubernetes)


class _StoredLog:
    """The log that the driver writes into a storage that can be read from here too."""

    def __init__(self, storage: Storage, job_id: str) -> None:
        self._kept = KeptLog(storage, job_id)

    def new(self, ray_job: Manifest, *, final: bool) -> str:
        try:
            return self._kept.new(final=final)
        except StorageError:
            if final:
                raise
            return ""  # the next call reads what this one missed


class _DashboardLog:
    """The log that Ray's dashboard serves, for a storage that only the pods can read."""

    def __init__(self, kubernetes: KubernetesApi) -> None:
        self._api = kubernetes
        self._cluster, self._printed = "", 0

    def new(self, ray_job: Manifest, *, final: bool) -> str:
        job_status = status_of(ray_job)
        service = str(job_status.get("dashboardURL") or "").partition(".")[0]
        cluster = job_status.get("rayClusterName")
        if not service or not cluster:
            return ""
        if cluster != self._cluster:
            self._cluster, self._printed = cluster, 0
        token = self._token(cluster)
        response = self._api.proxied(f"{service}:dashboard", f"/api/jobs/{job_status['jobId']}/logs", token)
        if response is None and final:
            return f"the cluster is gone; {status.results_of(ray_job)}/logs has the whole log\n"
        log = _log_in(response)
        whole = len(log) if final else log.rfind("\n") + 1
        new, self._printed = log[self._printed : whole], max(self._printed, whole)
        return new

    def _token(self, cluster: str) -> str:
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
