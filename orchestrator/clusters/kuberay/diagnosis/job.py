"""Rules about the job itself: access to the cluster, the operator, the driver, and how the job ended."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.clusters.driver_diagnosis import diagnose_log, driver_failed
from orchestrator.clusters.interface import Finding, shortened
from orchestrator.clusters.kuberay.objects import Manifest, group_of, seconds_of, spec_of, status_of
from orchestrator.clusters.kuberay.snapshot import Snapshot

_OPERATOR_SECONDS = 30.0
_SILENT_SECONDS = 60.0
_HEAD_SECONDS = 10.0
"""A new cluster's first head pod is created within this time."""


def access(snapshot: Snapshot) -> Iterator[Finding]:
    """What is missing before any job can run: KubeRay, or permissions."""
    if not snapshot.kuberay_installed:
        yield Finding(
            "no-kuberay",
            "the cluster has no RayJobs, so KubeRay is not installed",
            "helm install kuberay-operator kuberay/kuberay-operator",
        )
    if snapshot.missing_permissions:
        yield Finding(
            "no-permission",
            f"in namespace {snapshot.namespace} you may not {', '.join(snapshot.missing_permissions)}",
            f"ask for the Role tandem-submitter: kubectl create rolebinding tandem --role=tandem-submitter "
            f"--user=YOU -n {snapshot.namespace}",
        )


def validation(snapshot: Snapshot) -> Iterator[Finding]:
    """Objects that the operator refuses."""
    status = status_of(snapshot.job)
    if status.get("jobDeploymentStatus") == "ValidationFailed":
        yield Finding(
            "invalid",
            f"KubeRay refuses the job: {shortened(status.get('message'))}",
            "upgrade KubeRay to 1.6 or later, or correct the kubernetes: block",
        )
    for message in snapshot.messages("RayClusterNotFound"):
        yield Finding(
            "cluster-not-found",
            f"the RayCluster to run on does not exist: {shortened(message)}",
            f"kubectl get raycluster -n {snapshot.namespace}, and correct kubernetes.cluster",
        )


def operator(snapshot: Snapshot) -> Iterator[Finding]:
    """A job that no operator has started."""
    job = snapshot.job
    if job is None or status_of(job) or spec_of(job).get("suspend"):
        return
    if snapshot.now - (seconds_of(job["metadata"].get("creationTimestamp")) or 0.0) > _OPERATOR_SECONDS:
        yield Finding(
            "operator-missing",
            f"no KubeRay operator has started {job['metadata']['name']}",
            "kubectl get deployment -A -l app.kubernetes.io/name=kuberay-operator, and check that it watches "
            f"namespace {snapshot.namespace}",
        )


def driver_error(snapshot: Snapshot) -> Iterator[Finding]:
    """What the driver printed before it failed; the RayJob's message ends with it."""
    known = diagnose_log(str(status_of(snapshot.job).get("message") or ""))
    if known is not None:
        yield known


def lost_driver(
    job: Manifest, pods: list[Manifest], *, silent_seconds: float | None, now: float
) -> str | None:
    """Why a job that KubeRay reports as Running has no driver any more; None if it may have one.

    With Ray's state in Redis, a new head node still has the old one's job, whose status will never change.

    Args:
        job: a RayJob that is Running.
        pods: of its cluster.
        silent_seconds: time since the driver renewed its lease, if it can be read.
        now: seconds since the epoch.
    """
    if silent_seconds is not None:
        if silent_seconds <= _SILENT_SECONDS:
            return None
        return f"the driver has not renewed its lease for {silent_seconds:.0f} s although KubeRay reports Running"
    started_at = seconds_of((status_of(job).get("rayJobInfo") or {}).get("startTime"))
    for pod in pods:
        created_at = seconds_of(pod["metadata"].get("creationTimestamp")) or 0.0
        if (
            started_at
            and group_of(pod) == "headgroup"
            and created_at > started_at
            and now - created_at > _SILENT_SECONDS
        ):
            return (
                f"the head pod was replaced after the driver had started there, and {now - created_at:.0f} s later "
                "no driver has started although KubeRay reports Running"
            )
    return None


def driver_loss(snapshot: Snapshot) -> Iterator[Finding]:
    """A job whose driver is lost although KubeRay reports it as Running."""
    if snapshot.job is None or status_of(snapshot.job).get("jobDeploymentStatus") != "Running":
        return
    name = snapshot.job["metadata"]["name"]
    again = f"tandem cancel {name} --on kuberay, then submit again: it resumes from its records"
    silent = snapshot.driver_silent_seconds
    if (
        lost := lost_driver(snapshot.job, snapshot.pods, silent_seconds=silent, now=snapshot.now)
    ) is not None:
        yield Finding("driver-lost", lost, again)
    if lost is not None or silent is not None:
        return
    cluster_created_at = seconds_of((snapshot.cluster or {}).get("metadata", {}).get("creationTimestamp"))
    for pod in snapshot.pods:
        created_at = seconds_of(pod["metadata"].get("creationTimestamp")) or 0.0
        if (
            cluster_created_at
            and group_of(pod) == "headgroup"
            and created_at - cluster_created_at > _HEAD_SECONDS
        ):
            yield Finding(
                "head-replaced",
                f"the head pod was replaced {created_at - cluster_created_at:.0f} s after the cluster was created, "
                "and what ran on it is lost, even if KubeRay reports Running",
                f"check whether tandem status shows progress; if not, {again}",
            )


_REASONS = {
    "SubmissionFailed": (
        "submission",
        "the job could not be submitted to Ray's head node",
        "kubectl logs of the submitter pod shows why; a NetworkPolicy must let the operator reach port 8265",
    ),
    "DeadlineExceeded": (
        "deadline",
        "the job reached its deadline",
        "raise kubernetes.deadline_seconds and submit again: it resumes from its records",
    ),
    "PreRunningDeadlineExceeded": (
        "start-deadline",
        "not all pods started in time",
        "raise kubernetes.start_seconds, or lower min of the groups",
    ),
    "JobStatusCheckTimeoutExceeded": (
        "head-silent",
        "Ray's head node did not answer the operator for five minutes",
        "raise kubernetes.head.cpus and memory_gib and submit again",
    ),
    "JobDeploymentStatusTransitionGracePeriodExceeded": (
        "submitter-ended",
        "the operator mistook the end of a log stream for the end of the job",
        "submit again: it resumes from its records",
    ),
}


def failure(snapshot: Snapshot) -> Iterator[Finding]:
    """Why the job failed: the operator's reason, or the driver's exit."""
    status = status_of(snapshot.job)
    if status.get("jobDeploymentStatus") != "Failed":
        return
    reason = str(status.get("reason") or "")
    if reason in _REASONS:
        cause, sentence, remedy = _REASONS[reason]
        yield Finding(cause, f"{sentence} ({shortened(status.get('message'))})", remedy)
        return
    message = str(status.get("message") or "")
    job = snapshot.job["metadata"]["name"] if snapshot.job else "JOB"
    yield driver_failed(message, log=message, remedy=f"tandem logs {job} --on kuberay")
