"""Rules about the job itself: access to the cluster, the operator, the driver, and how the job ended."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.clusters.driver_diagnosis import diagnose_log, driver_failed
from orchestrator.clusters.interface import Finding, shortened
from orchestrator.clusters.kuberay.objects import (
    Manifest,
    group_of,
    is_terminating,
    ready_since,
    seconds_of,
    spec_of,
    status_of,
)
from orchestrator.clusters.kuberay.snapshot import Snapshot

_OPERATOR_SECONDS = 30.0
_SILENT_SECONDS = 60.0
"""For so long a driver that holds the lease may fail to renew it."""
_START_SECONDS = 300.0
"""Within this time a new driver reads the data and takes the lease, which a lost driver's lease delays."""
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
    if snapshot.deployment == "Running":
        return
    for event in snapshot.events_of("RayClusterNotFound")[-1:]:
        yield Finding(
            "cluster-not-found",
            f"the RayCluster to run on does not exist: {shortened(event.message)}",
            f"kubectl get raycluster -n {snapshot.namespace}, and correct kubernetes.cluster",
        )


def operator(snapshot: Snapshot) -> Iterator[Finding]:
    """A job that no operator has started."""
    job = snapshot.job
    if job is None or snapshot.deployment or spec_of(job).get("suspend"):
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
    job: Manifest, pods: list[Manifest], *, lease_renewed_at: float | None, now: float
) -> str | None:
    """Why a job that KubeRay reports as Running has no driver any more; None if it may have one.

    With Ray's state in Redis, a new head node still has the old one's job, whose status will never change.

    Args:
        job: a RayJob that is Running.
        pods: of its cluster; empty if the credentials cannot list them.
        lease_renewed_at: when a driver last renewed its lease, if that can be read. It may be an earlier driver's.
        now: seconds since the epoch.
    """
    heads = [pod for pod in pods if group_of(pod) == "headgroup"]
    ready = [since for pod in heads if not is_terminating(pod) and (since := ready_since(pod)) is not None]
    if pods and not ready:
        return None  # KubeRay creates a new head and submits the driver to it
    started_at = seconds_of((status_of(job).get("rayJobInfo") or {}).get("startTime"))
    if lease_renewed_at is not None:
        begun_at = started_at or seconds_of(status_of(job).get("startTime")) or 0.0
        silent = now - max(lease_renewed_at, begun_at, *ready)
        if silent <= (_SILENT_SECONDS if lease_renewed_at > begun_at else _START_SECONDS):
            return None
        return f"the driver has not renewed its lease for {silent:.0f} s although KubeRay reports Running"
    for pod in heads:
        created_at = seconds_of(pod["metadata"].get("creationTimestamp")) or 0.0
        if started_at and created_at > started_at and now - max(created_at, *ready) > _SILENT_SECONDS:
            return (
                f"the head pod was replaced after the driver had started there, and {now - created_at:.0f} s later "
                "no driver has started although KubeRay reports Running"
            )
    return None


def driver_loss(snapshot: Snapshot) -> Iterator[Finding]:
    """A job whose driver is lost although KubeRay reports it as Running."""
    if snapshot.job is None or snapshot.deployment != "Running":
        return
    name = snapshot.job["metadata"]["name"]
    again = f"tandem cancel {name} --on kuberay, then submit again: it resumes from its records"
    renewed_at = snapshot.lease_renewed_at
    lost = lost_driver(snapshot.job, snapshot.pods, lease_renewed_at=renewed_at, now=snapshot.now)
    if lost is not None:
        yield Finding("driver-lost", lost, again)
    if lost is not None or renewed_at is not None:
        return
    cluster_created_at = seconds_of((snapshot.cluster or {}).get("metadata", {}).get("creationTimestamp"))
    started_at = seconds_of((status_of(snapshot.job).get("rayJobInfo") or {}).get("startTime"))
    for pod in snapshot.pods_in_use():
        created_at = seconds_of(pod["metadata"].get("creationTimestamp")) or 0.0
        resubmits = spec_of(snapshot.job).get("submissionMode") == "HTTPMode"
        if resubmits and started_at is not None and started_at >= created_at:
            continue  # the driver has started on this head
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


def never_started(snapshot: Snapshot) -> bool:
    """Whether a failed job's driver never ran, so that its pods' state explains the failure."""
    return status_of(snapshot.job).get("reason") in ("PreRunningDeadlineExceeded", "SubmissionFailed")


def failure(snapshot: Snapshot) -> Iterator[Finding]:
    """Why the job failed: the operator's reason, or the driver's exit."""
    status = status_of(snapshot.job)
    reason, message = str(status.get("reason") or ""), str(status.get("message") or "")
    if reason in _REASONS:
        cause, sentence, remedy = _REASONS[reason]
        detail = message
        if reason == "PreRunningDeadlineExceeded":
            last = snapshot.events_of(
                "FailedScheduling", "FailedToCreate", "FailedCreate", "FailedMount", "Failed"
            )
            detail = last[-1].message if last else message
        yield Finding(cause, f"{sentence} ({shortened(detail)})", remedy)
        return
    if diagnose_log(message) is not None:
        return  # `driver_error` has named the cause
    job = snapshot.job["metadata"]["name"] if snapshot.job else "JOB"
    yield driver_failed(message, log=message, remedy=f"tandem logs {job} --on kuberay")
