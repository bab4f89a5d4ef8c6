"""Kubernetes with KubeRay: each experiment gets a RayJob, which creates a Ray cluster and deletes it at the end.

KubeRay may report Running when nothing runs any more. The records in storage decide what is done, so a lost job is
submitted again.

The module is long because one class implements all of `JobCluster`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.clusters.interface import Finding
from orchestrator.clusters.job_bundle import JobBundle
from orchestrator.clusters.job_cluster import (
    DriverLostError,
    Job,
    JobCluster,
    JobState,
    StatusNode,
    submitted,
)
from orchestrator.clusters.kuberay import api, claim_reader, manifests, status
from orchestrator.clusters.kuberay.api import KubernetesApi
from orchestrator.clusters.kuberay.capacity import shortfalls
from orchestrator.clusters.kuberay.diagnosis import diagnose
from orchestrator.clusters.kuberay.diagnosis.job import lost_driver
from orchestrator.clusters.kuberay.logs import Log, open_log
from orchestrator.clusters.kuberay.objects import Manifest, group_of, ready_since, seconds_of, status_of
from orchestrator.clusters.kuberay.snapshot import Snapshot
from orchestrator.execution import lease
from orchestrator.execution.monitoring.driver_log import own_lines
from orchestrator.store.storage import Storage, StorageError
from trainers.errors import ClusterError, InputError

_MANAGED = "app.kubernetes.io/managed-by=tandem"
_POLL_SECONDS = 1.0
_EXPLAIN_SECONDS = 5.0
_DELETION_SECONDS = 120.0
_LAST_LINES = 3
_FIRST_LOOK_SECONDS = 2.0
"""Within this time an operator has looked at a new RayJob."""
_GATE = "RayJobDeletionPolicy"


class _NoDeletionRules(Exception):
    """The operator, or its definitions, do not have deletion rules."""


class KubeRay(JobCluster):
    """A namespace of a Kubernetes cluster, by a context of the kubeconfig: `kuberay` or `kuberay:CONTEXT`."""

    def __init__(self, address: str, namespace: str | None = None) -> None:
        super().__init__(address)
        self._context = address.partition(":")[2] or None
        self._requested_namespace = namespace
        self._named_namespace = namespace
        self._logs: dict[str, Log] = {}
        self._unreadable: set[str] = set()
        """Resources that these credentials may not list."""

    @functools.cached_property
    def _api(self) -> KubernetesApi:
        return KubernetesApi(self._context, self._requested_namespace)

    @property
    def options(self) -> str:
        """The options with which a command reaches this namespace."""
        return super().options + (f" -n {self._named_namespace}" if self._named_namespace else "")

    def submit(self, bundle: JobBundle) -> Job:
        """Create a job's RayJob; if the same work is under way already, return that job."""
        self._enter_namespace(bundle)
        earlier = self._api.list(api.RAY_JOB, labels=f"{_MANAGED},{manifests.JOB}={bundle.job_id}")
        for ray_job in self._without_left_over(earlier):
            if not status.job_state(ray_job).is_terminal:
                self._create_files(bundle, ray_job)
                return status.job_of(ray_job)
        attempt = max((status.attempt(ray_job) for ray_job in earlier), default=0) + 1
        bundle = submitted(bundle, time.time())
        try:
            created = self._create_job(bundle, attempt, deletion_rules=True)
        except _NoDeletionRules:
            created = self._create_job(bundle, attempt + 1, deletion_rules=False)
        return status.job_of(created)

    def _create_job(self, bundle: JobBundle, attempt: int, *, deletion_rules: bool) -> Manifest:
        """Create a RayJob and its ConfigMap.

        Raises:
            _NoDeletionRules: the operator does not have them.
        """
        namespace = self._api.namespace
        *_, ray_job = manifests.render(
            bundle, namespace=namespace, attempt=attempt, deletion_rules=deletion_rules
        )
        name = ray_job["metadata"]["name"]
        try:
            with _recognised_deletion_rules():
                created = self._api.create(api.RAY_JOB, ray_job)
        except api.AlreadyExists:  # an earlier request created it, or somebody else
            found = self._api.get(api.RAY_JOB, name)
            if found is None:
                raise
            created = found
        try:
            self._create_files(bundle, created)
        except ClusterError:
            self._api.delete(api.RAY_JOB, name)
            raise
        if "deletionStrategy" in ray_job["spec"] and self._refuses_deletion_rules(name):
            self._api.delete(api.RAY_JOB, name)
            raise _NoDeletionRules
        return created

    def _refuses_deletion_rules(self, name: str) -> bool:
        """Whether the operator's feature gate for deletion rules is off, which it says when it first sees a job."""
        limit = time.monotonic() + _FIRST_LOOK_SECONDS
        while time.monotonic() < limit:
            seen = status_of(self._api.get(api.RAY_JOB, name))
            if deployment := seen.get("jobDeploymentStatus"):
                return str(deployment) == "ValidationFailed" and _GATE in str(seen.get("message"))
            time.sleep(_FIRST_LOOK_SECONDS / 10)
        return False

    def _without_left_over(self, ray_jobs: list[Manifest]) -> list[Manifest]:
        """Delete the RayJobs that have been kept for long enough; returns the others."""
        now, kept = time.time(), []
        for ray_job in ray_jobs:
            if status.is_left_over(ray_job, now=now):
                with contextlib.suppress(api.Refusal):  # these credentials may only read
                    self._api.delete(api.RAY_JOB, ray_job["metadata"]["name"])
                    continue
            kept.append(ray_job)
        return kept

    def manifests(self, bundle: JobBundle, *, schedule: str | None, validate: bool) -> list[Manifest]:
        """The objects that run a job, or a RayCronJob that starts it at each time of a schedule."""
        if schedule is None:
            rendered = manifests.render(bundle, namespace=self._requested_namespace)
        else:
            bundle = dataclasses.replace(bundle, spec=dataclasses.replace(bundle.spec, is_dated=True))
            rendered = manifests.render_nightly(
                bundle, schedule=schedule, namespace=self._requested_namespace
            )
        if validate:
            self._validate(bundle)
        return rendered

    def _validate(self, bundle: JobBundle) -> None:
        """Have the API server validate a job's objects in a dry run.

        Raises:
            ClusterError: it refuses one.
        """
        self._enter_namespace(bundle)
        try:
            self._try_creation(bundle, deletion_rules=True)
        except _NoDeletionRules:
            self._try_creation(bundle, deletion_rules=False)

    def _try_creation(self, bundle: JobBundle, *, deletion_rules: bool) -> None:
        namespace = self._api.namespace
        for manifest in manifests.render(bundle, namespace=namespace, deletion_rules=deletion_rules):
            kind = api.RAY_JOB if manifest["kind"] == "RayJob" else api.CONFIG_MAP
            with contextlib.suppress(api.AlreadyExists), _recognised_deletion_rules():
                self._api.create(kind, manifest, dry_run=True)

    def check(self, bundle: JobBundle, *, probes: bool) -> Iterator[str]:
        """Check permissions, the objects themselves, room on nodes and in quotas, and the queue.

        With probes, a head pod then checks the data and the storage from there.
        """
        self._enter_namespace(bundle)
        yield f"Kubernetes {self._api.version}, namespace {self._api.namespace} of {self._api.context}"
        _require(self.findings(None))
        self._validate(bundle)
        yield "the API server accepts the experiment's objects"
        settings = bundle.spec.experiment.kubernetes
        assert settings is not None  # or the validation would have failed
        nodes, quotas = self._readable(api.NODE), self._readable(api.QUOTA)
        _require(shortfalls(settings, nodes=nodes, quotas=quotas))
        readable = f"{len(nodes)} nodes" if nodes else "nodes, which these credentials cannot list,"
        yield f"room: {readable} and {len(quotas)} quotas were compared with the pods"
        if settings.queue is not None and settings.scheduler == "kueue":
            queues = [queue["metadata"]["name"] for queue in self._readable(api.LOCAL_QUEUE)]
            if queues and settings.queue not in queues:
                raise InputError(
                    f"kubernetes.queue {settings.queue!r}: the namespace's queues are {', '.join(queues)}"
                )
        if not probes:
            yield "data, storage and time are known on the cluster only: --probe checks them from a head pod"
            return
        probe = dataclasses.replace(bundle, spec=dataclasses.replace(bundle.spec, is_check=True))
        yield from self._probed(probe)

    def _probed(self, bundle: JobBundle) -> Iterator[str]:
        job = self.submit(bundle)
        try:
            with contextlib.suppress(StorageError):  # a storage that only the pods can read
                yield from self.log(job.id, follow=True)
            if (job := self.job(job.id)).state is not JobState.SUCCEEDED:
                raise ClusterError(self._reason(self._ray_job(job.id)))
            yield f"the data can be read there, and {job.results} can be written"
        finally:
            self._api.delete(api.RAY_JOB, job.id)

    def job(self, job_id: str) -> Job:
        """One job."""
        return status.job_of(self._ray_job(job_id))

    def jobs(self) -> list[Job]:
        """All of tandem's jobs, newest first."""
        found = [
            job
            for labels in (_MANAGED, manifests.NIGHTLY)
            for job in self._api.list(api.RAY_JOB, labels=labels)
        ]
        ours = {job["metadata"]["name"]: job for job in found if status.is_tandems(job)}
        jobs = [status.job_of(ray_job) for ray_job in self._without_left_over([*ours.values()])]
        return sorted(jobs, key=lambda job: -(job.started_at or 0))

    def log(self, job_id: str, *, follow: bool) -> Iterator[str]:
        """What the driver and its workers printed; when following, also what the job waits for.

        Raises:
            DriverLostError: KubeRay reports the job as Running, but its driver is gone.
        """
        explained, explained_at = "", time.monotonic()
        latest = self._ray_job(job_id)
        if job_id not in self._logs:
            self._logs[job_id] = open_log(latest, self._api)
        for ray_job in self._api.watch(api.RAY_JOB, job_id, every=_POLL_SECONDS):
            latest = ray_job or latest
            state = JobState.STOPPED if ray_job is None else status.job_state(ray_job)
            ended = state.is_terminal or not follow
            yield from own_lines(self._logs[job_id].new(latest, final=ended))
            if ended:
                return
            if time.monotonic() - explained_at < _EXPLAIN_SECONDS:
                continue
            explained_at = time.monotonic()
            if state is JobState.RUNNING and self._has_head(latest):
                continue
            line = f"waiting: {self._reason(latest)}"
            if line != explained:
                yield line
                explained = line

    def _has_head(self, ray_job: Manifest) -> bool:
        """Whether the head pod of a running job is ready, or cannot be looked at.

        Raises:
            DriverLostError: the job has no driver any more.
        """
        cluster = status_of(ray_job).get("rayClusterName")
        pods = self._pods(cluster) if cluster else []
        renewed_at = _lease_renewed_at(ray_job)
        lost = lost_driver(ray_job, pods, lease_renewed_at=renewed_at, now=time.time())
        if lost is not None:
            raise DriverLostError(lost)
        heads = [pod for pod in pods if group_of(pod) == "headgroup"]
        return not pods or any(ready_since(pod) is not None for pod in heads)

    def cancel(self, job_id: str) -> Job:
        """Stop a job by deleting its RayJob, and wait until its pods are deleted; its records stay.

        Of a job that has ended, what is left is deleted.
        """
        ray_job = self._ray_job(job_id)
        state = status.job_state(ray_job)
        cluster = status_of(ray_job).get("rayClusterName")
        owns_cluster = "clusterSelector" not in ray_job["spec"]
        self._api.delete(api.RAY_JOB, job_id)
        limit = time.monotonic() + _DELETION_SECONDS
        while True:
            labels = f"ray.io/cluster={cluster}"
            pods = self._api.list(api.POD, labels=labels) if cluster and owns_cluster else []
            if not pods and self._api.get(api.RAY_JOB, job_id) is None:
                break
            if time.monotonic() > limit:
                raise ClusterError(
                    f"{job_id} was deleted, but {len(pods)} of its pods still exist after "
                    f"{_DELETION_SECONDS:g} s; is KubeRay's operator running? kubectl get deployment -A | grep kuberay"
                )
            time.sleep(_POLL_SECONDS)
        return status.job_of(ray_job, state=state if state.is_terminal else JobState.STOPPED)

    def fetch(self, bundle: JobBundle, directory: Path, *, skip: re.Pattern[str] | None) -> int:
        """Copy an experiment's results to a local directory, from a claim through a pod of its own."""
        if "://" in bundle.spec.results:
            return super().fetch(bundle, directory, skip=skip)
        self._enter_namespace(bundle)
        return claim_reader.fetch(self._api, bundle, directory, skip=skip)

    def objects(self, job_id: str) -> StatusNode:
        """The RayJob, its RayCluster, each pod, and the Ray job."""
        ray_job = self._ray_job(job_id)
        cluster = status_of(ray_job).get("rayClusterName")
        if not cluster:
            return status.tree(ray_job, None, [])
        return status.tree(ray_job, self._api.get(api.RAY_CLUSTER, cluster), self._pods(cluster))

    def _reason(self, ray_job: Manifest) -> str:
        """Why a job does not run yet, in one sentence."""
        try:
            findings = self.findings(ray_job["metadata"]["name"])
        except InputError:  # the job was deleted meanwhile
            findings = []
        return str(findings[0]) if findings else status.job_of(ray_job).message

    def findings(self, job_id: str | None) -> list[Finding]:
        """Why a job does not run or failed; without a job, whether these credentials can run one."""
        return diagnose(self._access() if job_id is None else self._snapshot(job_id))

    def _access(self) -> Snapshot:
        return Snapshot(
            namespace=self._api.namespace,
            missing_permissions=self._missing_permissions(),
            kuberay_installed=self._knows(api.RAY_JOB),
        )

    def _snapshot(self, job_id: str) -> Snapshot:
        ray_job = self._ray_job(job_id)
        cluster = status_of(ray_job).get("rayClusterName")
        pods = self._pods(cluster) if cluster else []
        events = [
            event
            for event in self._readable(api.EVENT)
            if (name := event["involvedObject"].get("name") or "") in (job_id, cluster)
            or (cluster and name.startswith(f"{cluster}-"))  # also of pods that exist no longer
        ]
        workloads = [
            workload
            for workload in self._readable(api.WORKLOAD)
            if job_id in {owner["name"] for owner in workload["metadata"].get("ownerReferences", [])}
        ]
        return Snapshot(
            namespace=self._api.namespace,
            job=ray_job,
            cluster=self._api.get(api.RAY_CLUSTER, cluster) if cluster else None,
            pods=pods,
            events=events,
            nodes=self._readable(api.NODE),
            workloads=workloads,
            lease_renewed_at=_lease_renewed_at(ray_job),
            last_lines=self._last_lines(pods),
            unreadable=frozenset(self._unreadable),
            now=time.time(),
        )

    def _last_lines(self, pods: list[Manifest]) -> dict[tuple[str, str], str]:
        """The end of the log of each container that failed, where these credentials can read it."""
        lines = {}
        for pod in pods:
            name = pod["metadata"]["name"]
            for container in status_of(pod).get("containerStatuses") or []:
                ended = (container.get("state") or {}).get("terminated")
                last = ended or (container.get("lastState") or {}).get("terminated") or {}
                if last.get("exitCode") and not container.get("ready"):
                    log = self._api.pod_log(name, container["name"], lines=_LAST_LINES, previous=not ended)
                    lines[name, container["name"]] = log or ""
        return lines

    def _readable(self, kind: api.Kind, *, labels: str = "") -> list[Manifest]:
        """Objects of a kind; none if the cluster has no such kind or these credentials cannot list it."""
        try:
            return self._api.list(kind, labels=labels)
        except api.NotFound:
            if kind.api not in api.OLDER:
                return []
            return self._readable(dataclasses.replace(kind, api=api.OLDER[kind.api]), labels=labels)
        except api.Refusal as refusal:
            if refusal.status == 403:
                self._unreadable.add(kind.resource)
            return []

    def _knows(self, kind: api.Kind) -> bool:
        try:
            self._api.list(kind, fields="metadata.name=none")
        except api.NotFound:
            return False
        except api.Refusal:
            return True
        return True

    def _missing_permissions(self) -> list[str]:
        needed = [
            *((verb, api.RAY_JOB) for verb in ("create", "get", "list", "watch", "delete")),
            ("create", api.CONFIG_MAP),
            ("get", api.RAY_CLUSTER),
            ("list", api.POD),
            ("list", api.EVENT),
        ]
        return [f"{verb} {kind.resource}" for verb, kind in needed if not self._api.may(verb, kind)]

    def _ray_job(self, job_id: str) -> Manifest:
        ray_job = self._api.get(api.RAY_JOB, job_id)
        if ray_job is None or not status.is_tandems(ray_job):
            raise InputError(
                f"namespace {self._api.namespace} of {self._api.context} has no job called {job_id!r}; "
                "see tandem list --on kuberay, or name another namespace with --namespace"
            )
        return ray_job

    def _pods(self, cluster: str) -> list[Manifest]:
        return self._readable(api.POD, labels=f"ray.io/cluster={cluster}")

    def _enter_namespace(self, bundle: JobBundle) -> None:
        """Use the namespace that the experiment names, if it names one."""
        settings = bundle.spec.experiment.kubernetes
        named = None if settings is None else settings.namespace
        if named is None:
            return
        if self._requested_namespace not in (None, named):
            raise InputError(
                f"--namespace {self._requested_namespace} contradicts kubernetes.namespace {named!r} of the "
                "experiment; leave one of them out"
            )
        self._api.namespace = self._named_namespace = named

    def _create_files(self, bundle: JobBundle, ray_job: Manifest) -> None:
        """Create the ConfigMap that a RayJob's pods mount; it is deleted with the RayJob."""
        if bundle.spec.submitted_at is None:
            bundle = submitted(bundle, seconds_of(ray_job["metadata"]["creationTimestamp"]))
        attempt = status.attempt(ray_job)
        for manifest in manifests.render(bundle, namespace=self._api.namespace, attempt=attempt):
            if manifest["kind"] != "ConfigMap":
                continue
            owner = {
                "apiVersion": api.RAY_JOB.api,
                "kind": api.RAY_JOB.name,
                "name": ray_job["metadata"]["name"],
                "uid": ray_job["metadata"]["uid"],
            }
            manifest["metadata"]["ownerReferences"] = [owner]
            with contextlib.suppress(api.AlreadyExists):
                self._api.create(api.CONFIG_MAP, manifest)


@contextlib.contextmanager
def _recognised_deletion_rules() -> Iterator[None]:
    """Recognise the refusal of definitions that are older than deletion rules.

    Raises:
        _NoDeletionRules: it was refused for them.
    """
    try:
        yield
    except api.Refusal as refusal:
        if refusal.status == 400 and "deletion" in str(refusal):
            raise _NoDeletionRules from None
        raise


def _require(findings: list[Finding]) -> None:
    if findings:
        raise ClusterError(str(findings[0]))


def _lease_renewed_at(ray_job: Manifest) -> float | None:
    results = status.results_of(ray_job)
    if "://" not in results:
        return None
    try:
        return lease.renewed_at(Storage(results))
    except StorageError:
        return None
