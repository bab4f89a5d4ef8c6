"""Kubernetes with KubeRay: every experiment gets a RayJob, which makes a Ray cluster for it and takes it down.

KubeRay's word on a job is taken for what it is: its object may say Running with nothing running. The records in
storage decide what is done, so a job that is lost is simply submitted again.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator
from typing import Protocol

from orchestrator.clusters.diagnosis import Finding, diagnose, lost_driver
from orchestrator.clusters.interface import DriverLostError, Job, JobState, Level, in_brief
from orchestrator.clusters.job_bundle import Package, attempt_of
from orchestrator.clusters.kuberay import api as api
from orchestrator.clusters.kuberay.api import KubernetesApi
from orchestrator.clusters.kuberay.capacity import shortfalls
from orchestrator.clusters.kuberay.manifests import EXPERIMENT, JOB, RESULTS, render
from orchestrator.clusters.kubernetes_objects import Manifest, seconds_of, spec_of, status_of
from orchestrator.clusters.snapshot import Facts, state_of
from orchestrator.execution import lease
from orchestrator.execution.driver_log import KeptLog
from orchestrator.store.storage import Storage, StorageError
from trainers.errors import ClusterError, InputError

_OURS = "app.kubernetes.io/managed-by=tandem"
_LOOK_SECONDS = 1.0
_EXPLAIN_SECONDS = 5.0
_GONE_SECONDS = 120.0
_LONGEST_SECRET = 50
_ENDED = {
    "SUCCEEDED": JobState.SUCCEEDED,
    "FAILED": JobState.FAILED,
    "STOPPED": JobState.STOPPED,
}


class KubeRay:
    """The namespace of a Kubernetes cluster that KubeRay's operator watches. See `Cluster`."""

    def __init__(self, context: str | None, namespace: str | None) -> None:
        self._api = KubernetesApi(context, namespace)
        self._asked_for = namespace
        self._logs: dict[str, _Log] = {}

    def submit(self, package: Package) -> Job:
        """Create a package's RayJob; where the same work is under way already, give that job."""
        self._enter_namespace_of(package)
        earlier = self._api.list(api.RAY_JOB, labels=f"{_OURS},{JOB}={package.job_id}")
        for manifest in earlier:
            if not _state(manifest).is_terminal:
                self._keep_files(package, manifest)
                return _job(manifest)
        attempt = max((_attempt(manifest) for manifest in earlier), default=0) + 1
        *_, ray_job = self._rendered(package, attempt)
        try:
            created = self._api.create(api.RAY_JOB, ray_job)
        except api.AlreadyThere:
            found = self._api.get(api.RAY_JOB, ray_job["metadata"]["name"])
            if found is None:
                raise
            created = found  # by an earlier try whose answer was lost, or by somebody else
        try:
            self._keep_files(package, created)
        except ClusterError:
            self._api.delete(api.RAY_JOB, created["metadata"]["name"])
            raise
        return _job(created)

    def validate(self, package: Package) -> None:
        """Have the API server check a package's objects as if they were sent; nothing is kept.

        Raises:
            ClusterError: it refuses one.
        """
        self._enter_namespace_of(package)
        for manifest in self._rendered(package, attempt=1):
            kind = api.RAY_JOB if manifest["kind"] == "RayJob" else api.CONFIG_MAP
            with contextlib.suppress(api.AlreadyThere):
                self._api.create(kind, manifest, dry_run=True)

    def check(self, package: Package, *, probes: bool) -> Iterator[str]:
        """What the control plane knows: rights, the objects themselves, room on nodes and in quotas, the queue.

        A probe is a head alone, which then looks at the data and the storage from there.
        """
        self._enter_namespace_of(package)
        yield f"Kubernetes {self._api.version}, namespace {self._api.namespace} of {self._api.context}"
        self._require(self.findings(None))
        self.validate(package)
        yield "the API server takes the experiment's objects"
        settings = package.experiment.kubernetes
        assert settings is not None  # or validate would have refused
        nodes, quotas = self._readable(api.NODE), self._readable(api.QUOTA)
        self._require(shortfalls(settings, nodes=nodes, quotas=quotas))
        seen = f"{len(nodes)} nodes" if nodes else "nodes, which these credentials may not see,"
        yield f"room: {seen} and {len(quotas)} quotas were compared with the pods"
        if settings.queue is not None and settings.scheduler == "kueue":
            queues = [queue["metadata"]["name"] for queue in self._readable(api.LOCAL_QUEUE)]
            if queues and settings.queue not in queues:
                raise InputError(
                    f"kubernetes.queue {settings.queue!r}: the namespace's queues are {', '.join(queues)}"
                )
        if not probes:
            yield "data, storage and time are known on the cluster only: --probe has a head pod look there"
            return
        yield from self._probed(dataclasses.replace(package, is_check=True))

    def _probed(self, package: Package) -> Iterator[str]:
        job = self.submit(package)
        try:
            with contextlib.suppress(StorageError):  # a storage that only the pods can read
                yield from self.log(job.id, follow=True)
            if (job := self.job(job.id)).state is not JobState.SUCCEEDED:
                raise ClusterError(self._reason(self._manifest(job.id)))
            yield f"the data can be read there, and {job.results} can be written"
        finally:
            self._api.delete(api.RAY_JOB, job.id)

    def _require(self, findings: list[Finding]) -> None:
        if findings:
            raise ClusterError(str(findings[0]))

    def job(self, job_id: str) -> Job:
        """One job."""
        return _job(self._manifest(job_id))

    def jobs(self) -> list[Job]:
        """All of tandem's jobs, newest first."""
        jobs = [_job(manifest) for manifest in self._api.list(api.RAY_JOB, labels=_OURS)]
        return sorted(jobs, key=lambda job: -(job.started_at or 0))

    def log(self, job_id: str, *, follow: bool) -> Iterator[str]:
        """What the driver prints, each line once, also over several calls; when following, also what the job waits for.

        Raises:
            DriverLostError: the job is Running for KubeRay alone.
        """
        explained, explained_at = "", time.monotonic()
        latest = self._manifest(job_id)
        if job_id not in self._logs:
            self._logs[job_id] = self._log_of(latest)
        source = self._logs[job_id]
        for manifest in self._api.watch(api.RAY_JOB, job_id, every=_LOOK_SECONDS):
            latest = manifest or latest
            state = JobState.STOPPED if manifest is None else _state(manifest)
            ended = state.is_terminal or not follow
            yield from source.new(latest, final=ended).splitlines()
            if ended:
                return
            if time.monotonic() - explained_at < _EXPLAIN_SECONDS:
                continue
            explained_at = time.monotonic()
            if state is JobState.RUNNING:
                self._require_driver(latest)
            else:
                line = f"waiting: {self._reason(latest)}"
                if line != explained:
                    yield line
                    explained = line

    def _require_driver(self, manifest: Manifest) -> None:
        cluster = status_of(manifest).get("rayClusterName")
        lost = lost_driver(
            manifest,
            self._pods(cluster) if cluster else [],
            silent_seconds=_silent_seconds(manifest),
            now=time.time(),
        )
        if lost is not None:
            raise DriverLostError(lost)

    def cancel(self, job_id: str) -> Job:
        """Stop a job by deleting its RayJob, and wait until its pods are gone; its records stay."""
        manifest = self._manifest(job_id)
        if _state(manifest).is_terminal:
            return _job(manifest)
        cluster = status_of(manifest).get("rayClusterName")
        owns = "clusterSelector" not in manifest["spec"]
        self._api.delete(api.RAY_JOB, job_id)
        limit = time.monotonic() + _GONE_SECONDS
        while True:
            pods = self._api.list(api.POD, labels=f"ray.io/cluster={cluster}") if cluster and owns else []
            if not pods and self._api.get(api.RAY_JOB, job_id) is None:
                break
            if time.monotonic() > limit:
                raise ClusterError(
                    f"{job_id} was told to stop, but {len(pods)} of its pods are still there after "
                    f"{_GONE_SECONDS:g} s; is KubeRay's operator running? kubectl get deployment -A | grep kuberay"
                )
            time.sleep(_LOOK_SECONDS)
        return _job(manifest, state=JobState.STOPPED)

    def chain(self, job_id: str) -> list[Level]:
        """The RayJob, its RayCluster, each pod, and the Ray job."""
        manifest = self._manifest(job_id)
        status = status_of(manifest)
        job = _job(manifest)
        levels = [Level(kind="RayJob", name=job_id, state=_deployment(manifest), detail=job.message)]
        cluster_name = status.get("rayClusterName")
        if not cluster_name:
            return levels
        cluster = self._api.get(api.RAY_CLUSTER, cluster_name)
        levels.append(Level(kind="RayCluster", name=cluster_name, state=_cluster_state(cluster)))
        for pod in self._pods(cluster_name):
            levels.append(
                Level(
                    kind="Pod",
                    name=pod["metadata"]["name"],
                    state=str(status_of(pod).get("phase", "Unknown")),
                    detail=_pod_detail(pod),
                )
            )
        if status.get("jobId"):
            levels.append(
                Level(
                    kind="Ray job", name=status["jobId"], state=status.get("jobStatus") or "not yet submitted"
                )
            )
        return levels

    def _reason(self, manifest: Manifest) -> str:
        """Why a job does not run yet, in one sentence."""
        try:
            findings = self.findings(manifest["metadata"]["name"])
        except InputError:  # it was deleted meanwhile
            findings = []
        return str(findings[0]) if findings else _job(manifest).message

    def findings(self, job_id: str | None) -> list[Finding]:
        """What keeps a job, or any job, from running."""
        return diagnose(self._access() if job_id is None else self._facts(job_id))

    def _access(self) -> Facts:
        return Facts(
            namespace=self._api.namespace,
            missing_rights=self._missing_rights(),
            knows_ray_jobs=self._knows(api.RAY_JOB),
        )

    def _facts(self, job_id: str) -> Facts:
        manifest = self._manifest(job_id)
        cluster_name = status_of(manifest).get("rayClusterName")
        pods = self._pods(cluster_name) if cluster_name else []
        names = {name for name in (job_id, cluster_name) if name} | {pod["metadata"]["name"] for pod in pods}
        events = [
            event for event in self._readable(api.EVENT) if event["involvedObject"].get("name") in names
        ]
        workloads = [
            workload
            for workload in self._readable(api.WORKLOAD)
            if job_id in {owner["name"] for owner in workload["metadata"].get("ownerReferences", [])}
        ]
        return Facts(
            namespace=self._api.namespace,
            job=manifest,
            cluster=self._api.get(api.RAY_CLUSTER, cluster_name) if cluster_name else None,
            pods=pods,
            events=events,
            nodes=self._readable(api.NODE),
            workloads=workloads,
            driver_silent_seconds=_silent_seconds(manifest),
            now=time.time(),
        )

    def _readable(self, kind: api.Kind, *, labels: str = "") -> list[Manifest]:
        """Objects of a kind, or none where it is unknown here or these credentials may not see it."""
        try:
            return self._api.list(kind, labels=labels)
        except api.Refusal:
            return []

    def _knows(self, kind: api.Kind) -> bool:
        try:
            self._api.list(kind, fields="metadata.name=none")
        except api.NotThere:
            return False
        except api.Refusal:
            return True
        return True

    def _missing_rights(self) -> list[str]:
        needed = [
            *((verb, api.RAY_JOB) for verb in ("create", "get", "list", "watch", "delete")),
            ("create", api.CONFIG_MAP),
            ("list", api.RAY_CLUSTER),
            ("list", api.POD),
            ("list", api.EVENT),
        ]
        return [f"{verb} {kind.resource}" for verb, kind in needed if not self._api.may(verb, kind)]

    def _manifest(self, job_id: str) -> Manifest:
        manifest = self._api.get(api.RAY_JOB, job_id)
        if manifest is None or JOB not in manifest["metadata"].get("labels", {}):
            raise InputError(
                f"namespace {self._api.namespace} of {self._api.context} has no job called {job_id!r}; "
                "see tandem list --on kuberay, or name another namespace with --namespace"
            )
        return manifest

    def _pods(self, cluster: str) -> list[Manifest]:
        return self._readable(api.POD, labels=f"ray.io/cluster={cluster}")

    def _enter_namespace_of(self, package: Package) -> None:
        settings = package.experiment.kubernetes
        named = None if settings is None else settings.namespace
        if named is not None and self._asked_for not in (None, named):
            raise InputError(
                f"--namespace {self._asked_for} contradicts kubernetes.namespace {named!r} of the experiment; "
                "leave one of them out"
            )
        self._api.namespace = named or self._api.namespace

    def _rendered(self, package: Package, attempt: int) -> list[Manifest]:
        return render(package, namespace=self._api.namespace, attempt=attempt)

    def _keep_files(self, package: Package, ray_job: Manifest) -> None:
        """Give a RayJob the ConfigMap that its pods wait for; it goes when the RayJob goes."""
        for manifest in self._rendered(package, _attempt(ray_job)):
            if manifest["kind"] != "ConfigMap":
                continue
            owner = {
                "apiVersion": api.RAY_JOB.api,
                "kind": api.RAY_JOB.name,
                "name": ray_job["metadata"]["name"],
                "uid": ray_job["metadata"]["uid"],
            }
            manifest["metadata"]["ownerReferences"] = [owner]
            with contextlib.suppress(api.AlreadyThere):
                self._api.create(api.CONFIG_MAP, manifest)

    def _log_of(self, manifest: Manifest) -> _Log:
        results = _annotations(manifest).get(RESULTS, "")
        if "://" in results:
            return _StoredLog(Storage(results), manifest["metadata"]["name"])
        return _DashboardLog(self._api)


class _Log(Protocol):
    def new(self, manifest: Manifest, *, final: bool) -> str:
        """What the driver printed since the last call."""


class _StoredLog:
    """The log that the driver keeps in a storage that can be read from here too."""

    def __init__(self, storage: Storage, job_id: str) -> None:
        self._kept = KeptLog(storage, job_id)

    def new(self, manifest: Manifest, *, final: bool) -> str:
        try:
            return self._kept.new(final=final)
        except StorageError:
            if final:
                raise
            return ""  # may pass; what is missed now comes with the next look


class _DashboardLog:
    """The log that Ray's dashboard shows while the cluster stands, where the storage is inside it."""

    def __init__(self, kubernetes: KubernetesApi) -> None:
        self._api = kubernetes
        self._cluster, self._printed = "", 0

    def new(self, manifest: Manifest, *, final: bool) -> str:
        status = status_of(manifest)
        service = str(status.get("dashboardURL") or "").partition(".")[0]
        cluster = status.get("rayClusterName")
        if not service or not cluster:
            return ""
        if cluster != self._cluster:
            self._cluster, self._printed = cluster, 0
        token = self._token(cluster)
        answer = self._api.proxied(f"{service}:dashboard", f"/api/jobs/{status['jobId']}/logs", token)
        if answer is None and final:
            return f"the cluster is gone; the whole log is kept below {_annotations(manifest).get(RESULTS)}/logs\n"
        log = _logs_in(answer)
        whole = len(log) if final else log.rfind("\n") + 1
        new, self._printed = log[self._printed : whole], max(self._printed, whole)
        return new

    def _token(self, cluster: str) -> str:
        secret = self._api.get(api.SECRET, secret_of(cluster))
        return "" if secret is None else base64.b64decode(secret["data"]["auth_token"]).decode()


def secret_of(cluster: str) -> str:
    """The Secret in which the operator keeps a cluster's token: its name, cut as KubeRay's CheckName cuts it."""
    name = cluster[-_LONGEST_SECRET:]
    return name if name[0].isalpha() else f"r{name[1:]}"


def _logs_in(answer: str | None) -> str:
    try:
        return str(json.loads(answer or "{}").get("logs", ""))
    except ValueError:
        return ""


def _silent_seconds(manifest: Manifest) -> float | None:
    results = _annotations(manifest).get(RESULTS, "")
    if "://" not in results:
        return None
    try:
        return lease.silent_seconds(Storage(results))
    except StorageError:
        return None


def _attempt(manifest: Manifest) -> int:
    """Which attempt at the same work a RayJob is, from 1."""
    return attempt_of(manifest["metadata"]["name"], manifest["metadata"]["labels"][JOB]) or 1


def _annotations(manifest: Manifest) -> dict[str, str]:
    return manifest["metadata"].get("annotations") or {}


def _deployment(manifest: Manifest) -> str:
    return status_of(manifest).get("jobDeploymentStatus") or "not yet seen by the operator"


def _state(manifest: Manifest) -> JobState:
    """Both of KubeRay's statuses matter: a stopped job is Complete, and one past its deadline still RUNNING."""
    deployment = _deployment(manifest)
    ray = str(status_of(manifest).get("jobStatus") or "")
    if deployment in ("Failed", "ValidationFailed"):
        return JobState.FAILED
    if deployment == "Complete":
        return _ENDED.get(ray, JobState.FAILED)
    if deployment == "Running" and ray in ("RUNNING", *_ENDED):
        return JobState.RUNNING
    return JobState.PENDING


def _job(manifest: Manifest, *, state: JobState | None = None) -> Job:
    status, metadata = status_of(manifest), manifest["metadata"]
    words = [status.get("reason"), in_brief(str(status.get("message") or ""))]
    return Job(
        id=metadata["name"],
        experiment=metadata["labels"][EXPERIMENT],
        results=_annotations(manifest).get(RESULTS, ""),
        state=state or _state(manifest),
        message=": ".join(word for word in words if word) or _deployment(manifest),
        started_at=seconds_of(status.get("startTime") or metadata.get("creationTimestamp")),
        ended_at=seconds_of(status.get("endTime")),
    )


def _cluster_state(cluster: Manifest | None) -> str:
    if cluster is None:
        return "gone"
    status = status_of(cluster)
    ready, desired = status.get("readyWorkerReplicas", 0), status.get("desiredWorkerReplicas", 0)
    return f"{status.get('state') or 'starting'}, {ready} of {desired} workers ready"


def _pod_detail(pod: Manifest) -> str:
    told = []
    for container in status_of(pod).get("containerStatuses") or []:
        for kind in ("waiting", "terminated"):
            reason, _ = state_of(container, kind)
            if reason:
                told.append(f"{container['name']}: {reason}")
        if container.get("restartCount"):
            told.append(f"{container['name']}: {container['restartCount']} restarts")
    node = spec_of(pod).get("nodeName")
    return ", ".join([*([f"on {node}"] if node else []), *told])
