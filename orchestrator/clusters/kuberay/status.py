"""The status of a job, read from its RayJob, its RayCluster and their pods."""

from __future__ import annotations

from datetime import UTC, datetime

from orchestrator.clusters.job_bundle import attempt_of
from orchestrator.clusters.job_cluster import Job, JobState, StatusNode, message_in_one_line
from orchestrator.clusters.kuberay.manifests import EXPERIMENT, JOB, KEEP_SECONDS, METADATA, NIGHTLY, RESULTS
from orchestrator.clusters.kuberay.objects import (
    Manifest,
    annotations_of,
    is_terminating,
    seconds_of,
    spec_of,
    state_of,
    status_of,
)
from orchestrator.planning.job import ENTRYPOINT

_ENDED = {
    "SUCCEEDED": JobState.SUCCEEDED,
    "FAILED": JobState.FAILED,
    "STOPPED": JobState.STOPPED,
}


def job_state(ray_job: Manifest) -> JobState:
    """The state of a job.

    Both of KubeRay's statuses matter: a stopped job is Complete, and a job past its deadline is still RUNNING.
    """
    deployment = _deployment(ray_job)
    ray = str(status_of(ray_job).get("jobStatus") or "")
    if deployment in ("Failed", "ValidationFailed"):
        return JobState.FAILED
    if deployment == "Complete":
        return _ENDED.get(ray, JobState.FAILED)
    if deployment == "Running" and ray in ("RUNNING", *_ENDED):
        return JobState.RUNNING
    return JobState.PENDING


def job_of(ray_job: Manifest, *, state: JobState | None = None) -> Job:
    """The job that a RayJob runs; its state is read from the RayJob unless it is given."""
    status, metadata = status_of(ray_job), ray_job["metadata"]
    parts = [status.get("reason"), message_in_one_line(str(status.get("message") or ""))]
    return Job(
        id=metadata["name"],
        experiment=experiment_of(ray_job),
        results=results_of(ray_job),
        state=state or job_state(ray_job),
        message=": ".join(part for part in parts if part) or _deployment(ray_job),
        started_at=seconds_of(status.get("startTime") or metadata.get("creationTimestamp")),
        ended_at=seconds_of(status.get("endTime")),
    )


def is_tandems(ray_job: Manifest) -> bool:
    """Whether tandem's own driver runs in a RayJob."""
    return METADATA[EXPERIMENT] in _metadata(ray_job) or JOB in _labels(ray_job)


def experiment_of(ray_job: Manifest) -> str:
    """The experiment's name; for a nightly job without its day."""
    return str(_labels(ray_job).get(EXPERIMENT) or _metadata(ray_job).get(METADATA[EXPERIMENT], ""))


def results_of(ray_job: Manifest) -> str:
    """URL or directory of the records and the report."""
    results = str(annotations_of(ray_job).get(RESULTS) or _metadata(ray_job).get(METADATA[RESULTS], ""))
    created_at = seconds_of(ray_job["metadata"].get("creationTimestamp"))
    if NIGHTLY not in _labels(ray_job) or created_at is None:
        return results
    base, mark, options = results.partition("?")
    return f"{base}-{datetime.fromtimestamp(created_at, UTC):%Y%m%d}{mark}{options}"


def driver_id(ray_job: Manifest) -> str:
    """The job's id as its driver knows it, under which the storage keeps the log."""
    words = str(spec_of(ray_job).get("entrypoint", "")).removeprefix(ENTRYPOINT).split()
    return words[0] if words else str(ray_job["metadata"]["name"])


def _labels(ray_job: Manifest) -> dict[str, str]:
    return ray_job["metadata"].get("labels") or {}


def _metadata(ray_job: Manifest) -> dict[str, str]:
    return spec_of(ray_job).get("metadata") or {}


def is_left_over(ray_job: Manifest, *, now: float) -> bool:
    """Whether a finished job's object has been kept for long enough, and no operator deletes it."""
    ended_at, state = seconds_of(status_of(ray_job).get("endTime")), job_state(ray_job)
    keep_seconds = annotations_of(ray_job).get(KEEP_SECONDS)
    if not state.is_terminal or ended_at is None or keep_seconds is None:
        return False
    # No deletion rule is for a job that was stopped at Ray's dashboard, and its cluster would stay.
    return state is JobState.STOPPED or now - ended_at > float(keep_seconds)


def attempt(ray_job: Manifest) -> int:
    """Which attempt at the same work a RayJob is, counted from 1."""
    name = ray_job["metadata"]["name"]
    return attempt_of(name, _labels(ray_job).get(JOB, name)) or 1


def tree(ray_job: Manifest, cluster: Manifest | None, pods: list[Manifest]) -> StatusNode:
    """The RayJob; below it its RayCluster with each pod, and the Ray job."""
    status = status_of(ray_job)
    children = []
    if status.get("rayClusterName"):
        children.append(
            StatusNode(
                kind="RayCluster",
                name=status["rayClusterName"],
                state=_cluster_state(cluster),
                children=tuple(_pod(pod) for pod in pods),
            )
        )
    if status.get("jobId"):
        state = status.get("jobStatus") or "not yet submitted"
        children.append(StatusNode(kind="Ray job", name=status["jobId"], state=state))
    return StatusNode(
        kind="RayJob",
        name=ray_job["metadata"]["name"],
        state=_deployment(ray_job),
        detail=job_of(ray_job).message,
        children=tuple(children),
    )


def _deployment(ray_job: Manifest) -> str:
    return status_of(ray_job).get("jobDeploymentStatus") or "not yet seen by the operator"


def _cluster_state(cluster: Manifest | None) -> str:
    if cluster is None:
        return "gone"
    status = status_of(cluster)
    ready, desired = status.get("readyWorkerReplicas", 0), status.get("desiredWorkerReplicas", 0)
    return f"{status.get('state') or 'starting'}, {ready} of {desired} workers ready"


def _pod(pod: Manifest) -> StatusNode:
    node = spec_of(pod).get("nodeName")
    details = [f"on {node}"] if node else []
    for container in status_of(pod).get("containerStatuses") or []:
        for kind in ("waiting", "terminated"):
            reason, _ = state_of(container, kind)
            if reason:
                details.append(f"{container['name']}: {reason}")
        if container.get("restartCount"):
            details.append(f"{container['name']}: {container['restartCount']} restarts")
    return StatusNode(
        kind="Pod",
        name=pod["metadata"]["name"],
        state="Terminating" if is_terminating(pod) else str(status_of(pod).get("phase", "Unknown")),
        detail=", ".join(details),
    )
