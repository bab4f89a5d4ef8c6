"""Each cause is named from objects as Kubernetes gives them, with the command or edit that mends it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.clusters.interface import Finding
from orchestrator.clusters.kuberay.diagnosis import diagnose
from orchestrator.clusters.kuberay.snapshot import Snapshot

TRANSCRIPTS = Path(__file__).with_name("transcripts")
JOB: dict[str, Any] = {
    "metadata": {"name": "job", "creationTimestamp": "2026-11-24T06:00:00Z", "labels": {}},
    "spec": {"rayClusterSpec": {"headGroupSpec": {"template": {}}, "workerGroupSpecs": []}},
    "status": {"jobDeploymentStatus": "Initializing", "startTime": "2026-11-24T06:00:01Z"},
}


def job(**status: Any) -> dict[str, Any]:
    return JOB | {"status": status}


def pod(group: str = "workers", *, resources: Any = None, **status: Any) -> dict[str, Any]:
    container = {"name": "ray-worker", "resources": resources or {}}
    return {
        "metadata": {"name": f"job-{group}-x", "labels": {"ray.io/group": group}},
        "spec": {"containers": [container]},
        "status": status,
    }


REPLACED = pod("headgroup")
REPLACED["metadata"]["creationTimestamp"] = "2026-11-24T06:05:00Z"


def unscheduled(message: str, **resources: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return pod(
        phase="Pending", conditions=[condition], resources={"requests": resources, "limits": resources}
    )


def container(**state: Any) -> dict[str, Any]:
    return pod(
        containerStatuses=[{"name": "ray-worker", "image": "example/tandem:1", "restartCount": 0} | state]
    )


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    return container(state={"waiting": {"reason": reason, "message": message}}, **more)


def event(reason: str, message: str, name: str = "job") -> dict[str, Any]:
    return {"involvedObject": {"name": name}, "reason": reason, "message": message, "type": "Warning"}


def workload(
    reason: str, message: str, type_: str = "QuotaReserved", status: str = "False"
) -> dict[str, Any]:
    condition = {"type": type_, "status": status, "reason": reason, "message": message}
    return {"metadata": {"name": "rayjob-job-1"}, "status": {"conditions": [condition]}}


def failed(message: str, reason: str = "AppFailed") -> dict[str, Any]:
    return job(jobDeploymentStatus="Failed", jobStatus="FAILED", reason=reason, message=message)


NODE = {
    "metadata": {"name": "n"},
    "status": {"allocatable": {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"}},
}
PULL = 'Failed to pull image "example/tandem:1": failed to resolve reference "example/tandem:1": '
EXIT = "Job entrypoint command failed with exit code {}, last available logs (truncated to 20,000 chars):\n"

CASES: list[tuple[str, dict[str, Any], str]] = [
    ("no-kuberay", {"kuberay_installed": False}, "helm install kuberay-operator"),
    ("no-permission", {"missing_permissions": ["create rayjobs.ray.io"]}, "may not create rayjobs.ray.io; ask for the Role"),
    ("operator-missing", {"job": JOB | {"status": {}}, "now": 2e9}, "no KubeRay operator has started job"),
    (
        "invalid",
        {"job": job(jobDeploymentStatus="ValidationFailed", message="The RayJob spec is invalid: a b")},
        "refuses the job: The RayJob spec is invalid: a b",
    ),
    (
        "cluster-not-found",
        {"job": JOB, "events": [event("RayClusterNotFound", "RayCluster default/team set in the clusterSelector is not found")]},
        "correct kubernetes.cluster",
    ),
    (
        "queue-missing",
        {"workloads": [workload("Inadmissible", "LocalQueue experiments doesn't exist")]},
        "correct kubernetes.queue",
    ),
    (
        "queue-inadmissible",
        {"workloads": [workload("Inadmissible", "couldn't assign flavors to pod set workers: insufficient quota for cpu")]},
        "insufficient quota for cpu",
    ),
    (
        "queue-waiting",
        {"workloads": [workload("Pending", "couldn't assign flavors: insufficient unused quota for cpu, 4 more needed")]},
        "waits in Kueue's queue",
    ),
    (
        "queue-evicted",
        {"workloads": [workload("Preempted", "Preempted to accommodate a workload", "Evicted", "True")]},
        "Kueue evicted the job",
    ),
    (
        "queue-silent",
        {"job": JOB | {"metadata": JOB["metadata"] | {"labels": {"kueue.x-k8s.io/queue-name": "q"}}, "spec": {"suspend": True}}},
        "integration ray.io/rayjob",
    ),
    ("suspended", {"job": JOB | {"spec": {"suspend": True}}}, "kubectl patch rayjob job"),
    (
        "quota",
        {"events": [event("FailedToCreateWorkerPod", 'pods "w" is forbidden: exceeded quota: tandem, requested: cpu=8, used: cpu=60, limited: cpu=64')]},
        "requested: cpu=8, used: cpu=60, limited: cpu=64",
    ),
    (
        "pod-security",
        {"events": [event("FailedToCreateHeadPod", 'pods "h" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true')]},
        "runAsNonRoot",
    ),
    (
        "service-account",
        {"events": [event("FailedToCreateHeadPod", 'pods "h" is forbidden: error looking up service account default/x: serviceaccount "x" not found')]},
        "kubectl create serviceaccount",
    ),
    (
        "operator-forbidden",
        {"events": [event("FailedToCreateHeadPod", 'pods is forbidden: User "system:serviceaccount:k:op" cannot create resource')]},
        "correct the operator's Role",
    ),
    (
        "admission",
        {"events": [event("FailedToCreateHeadPod", 'admission webhook "policy.example" denied the request: no team label')]},
        "no team label",
    ),
    (
        "unschedulable-resources",
        {
            "pods": [unscheduled("0/3 nodes are available: 2 Insufficient cpu, 3 Insufficient nvidia.com/gpu. preemption: x", **{"cpu": "64", "nvidia.com/gpu": "8"})],
            "nodes": [NODE],
        },
        "too little cpu (64 requested, the largest node has 8), too little nvidia.com/gpu (8 requested, the largest node has 1)",
    ),
    (
        "unschedulable-taint",
        {"pods": [unscheduled("0/1 nodes are available: 1 node(s) had untolerated taint {nvidia.com/gpu: present}. x")]},
        "nvidia.com/gpu; add a tolerations entry",
    ),
    (
        "unschedulable-selector",
        {"pods": [unscheduled("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. x")]},
        "correct its node_selector",
    ),
    (
        "volume",
        {"pods": [unscheduled('0/1 nodes are available: persistentvolumeclaim "data" not found. x')]},
        "correct kubernetes.claims",
    ),
    ("image-missing", {"pods": [waiting("ErrImagePull", PULL + "example/tandem:1: not found")]}, "image example/tandem:1 of group workers does not exist"),
    ("image-denied", {"pods": [waiting("ImagePullBackOff", PULL + "pull access denied, authorization failed")]}, "kubernetes.pull_secrets"),
    ("image-unreachable", {"pods": [waiting("ErrImagePull", PULL + 'failed to do request: Head "https://r": dial tcp: lookup r: no such host')]}, "lookup r: no such host"),
    ("architecture", {"pods": [waiting("ErrImagePull", PULL + "no match for platform in manifest: not found")]}, "docker buildx build"),
    (
        "architecture",
        {"pods": [waiting("CrashLoopBackOff", lastState={"terminated": {"exitCode": 255, "message": "exec /bin/bash: exec format error"}})]},
        "another processor",
    ),
    (
        "out-of-memory",
        {
            "pods": [
                pod(
                    resources={"limits": {"memory": "8Gi"}},
                    containerStatuses=[{"name": "ray-worker", "state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}],
                )
            ]
        },
        "more memory than 8Gi",
    ),
    ("cannot-start", {"pods": [container(state={"terminated": {"reason": "StartError", "message": 'exec: "/bin/bash": no such file'}})]}, "no such file"),
    ("crash-loop", {"pods": [waiting("CrashLoopBackOff", lastState={"terminated": {"exitCode": 3}})]}, "--previous"),
    ("missing-secret", {"pods": [waiting("CreateContainerConfigError", 'secret "s3" not found')]}, 'secret "s3" not found'),
    ("evicted", {"pods": [pod(reason="Evicted", message="The node was low on resource: ephemeral-storage.")]}, "ephemeral-storage"),
    (
        "preempted",
        {"pods": [pod(conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "preempting"}])]},
        "go on from the last checkpoint",
    ),
    ("node-lost", {"pods": [pod(reason="NodeLost")]}, "the node of job-workers-x is lost"),
    ("files-missing", {"events": [event("FailedMount", 'MountVolume.SetUp failed for volume "job" : configmap "job" not found')]}, "submit the experiment again"),
    ("volume", {"events": [event("FailedAttachVolume", "Multi-Attach error for volume pvc-1")]}, "Multi-Attach"),
    (
        "gpu-not-visible",
        {"job": failed(EXIT.format(2) + "tandem: scale: 1 workers with 1 GPUs each need 1 GPUs, but there are 0; lower")},
        "install the GPU operator",
    ),
    ("storage", {"job": failed(EXIT.format(2) + "tandem: storage 's3://b' cannot be written: access denied; mend")}, "kubernetes.secrets"),
    ("image-without-tandem", {"job": failed(EXIT.format(1) + "ModuleNotFoundError: No module named 'orchestrator'")}, "Dockerfile"),
    (
        "version-mismatch",
        {"job": failed(EXIT.format(1) + "RuntimeError: Version mismatch: The cluster was started with: Ray: 2.59.0")},
        "Ray: 2.59.0",
    ),
    ("driver-out-of-memory", {"job": failed(EXIT.format(137) + "Running entrypoint\nKilled\n")}, "kubernetes.head.memory_gib"),
    ("held", {"job": failed(EXIT.format(1) + "tandem: s3://b/x is being trained by another driver (process 1 on h); wait")}, "another driver"),
    (
        "driver-lost",
        {"job": job(jobDeploymentStatus="Running", jobStatus="RUNNING"), "driver_silent_seconds": 300.0},
        "not renewed its lease for 300 s",
    ),
    (
        "driver-lost",
        {
            "job": job(jobDeploymentStatus="Running", jobStatus="RUNNING", rayJobInfo={"startTime": "2026-11-24T06:00:10Z"}),
            "pods": [REPLACED],
            "now": 1795500540.0,
        },
        "replaced after the driver had started there",
    ),
    ("submission", {"job": failed("Job submission has failed. Reason: BackoffLimitExceeded.", "SubmissionFailed")}, "port 8265"),
    ("deadline", {"job": failed("passed the activeDeadlineSeconds", "DeadlineExceeded")}, "kubernetes.deadline_seconds"),
    ("start-deadline", {"job": failed("passed the preRunningDeadlineSeconds", "PreRunningDeadlineExceeded")}, "kubernetes.start_seconds"),
    ("head-silent", {"job": failed("no answer", "JobStatusCheckTimeoutExceeded")}, "five minutes"),
    ("submitter-ended", {"job": failed("x", "JobDeploymentStatusTransitionGracePeriodExceeded")}, "end of a log stream"),
    (
        "runs-failed",
        {
            "job": failed(
                EXIT.format(1)
                + "a seed 0 failed: ValueError: 1; retried\na seed 0 failed: ValueError: 2; failed permanently\n"
                "b seed 1 failed: no; failed permanently\nNo run has finished.\nreport: s3://b/report.html"
            )
        },
        "a seed 0 failed: ValueError: 2 (and 1 more)",
    ),
    ("driver-failed", {"job": failed(EXIT.format(3) + "ValueError: 1")}, "exit code 3: ValueError: 1"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("cause", "objects", "words"), CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)]
)
def test_a_cause_is_named_with_its_remedy(cause: str, objects: dict[str, Any], words: str) -> None:
    first = diagnose(Snapshot(namespace="team", **objects))[0]
    assert first.cause == cause
    assert words in str(first)
    assert len(str(first).splitlines()) == 1
    assert first.remedy


def test_there_are_many_causes_and_none_where_nothing_is_wrong() -> None:
    assert len({case[0] for case in CASES}) >= 25
    running = pod(phase="Running", conditions=[{"type": "Ready", "status": "True"}])
    healthy = job(jobDeploymentStatus="Running", jobStatus="RUNNING", startTime="2026-11-24T06:00:01Z")
    assert diagnose(Snapshot(namespace="team", job=healthy, pods=[running], driver_silent_seconds=3.0)) == []
    assert diagnose(Snapshot(namespace="team", job=JOB, now=1e9)) == []


def replayed(case: str) -> list[Finding]:
    """The diagnosis at the end of what a real cluster did."""
    file = TRANSCRIPTS / f"{case}.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    submitted = lines[0]["submitted"]
    name = submitted["metadata"]["name"]
    latest: dict[tuple[str, str], dict[str, Any]] = {}
    events = []
    for line in lines:
        found = line.get("object")
        if line.get("kind") == "Event":
            events.append(found)
        elif found:
            before = latest.get((line["kind"], found["metadata"]["name"]), {})
            kept = {key: value for key, value in found.items() if value is not None}
            latest[line["kind"], found["metadata"]["name"]] = before | kept

    def of(kind: str) -> list[dict[str, Any]]:
        return [value for (found, _), value in latest.items() if found == kind]

    ray_job = next(found for found in of("RayJob") if found["metadata"]["name"] == name)
    cluster_name = ray_job["status"].get("rayClusterName")
    pods = [p for p in of("Pod") if p["metadata"]["name"].startswith(name)]
    names = {name, cluster_name, *(p["metadata"]["name"] for p in pods)}
    own = [e for e in events if (e.get("regarding") or e.get("involvedObject"))["name"] in names]
    clusters = [found for found in of("RayCluster") if found["metadata"]["name"] == cluster_name]
    return diagnose(
        Snapshot(
            namespace="default",
            job=submitted | ray_job,
            cluster=clusters[0] if clusters else None,
            pods=pods,
            events=own,
            now=2e9,
        )
    )


@pytest.mark.parametrize(
    ("case", "cause"),
    [
        ("app-fails", "driver-failed"),
        ("deadline", "deadline"),
        ("head-killed", "head-replaced"),
        ("image-pull", "image-unreachable"),
        ("invalid", "invalid"),
        ("oom", "driver-out-of-memory"),
        ("retries", "driver-failed"),
        ("submitter-fails", "cannot-start"),
        ("suspended", "suspended"),
        ("unschedulable", "unschedulable-resources"),
    ],
)
def test_what_a_real_cluster_did_is_explained(case: str, cause: str) -> None:
    findings = replayed(case)
    assert findings and findings[0].cause == cause, findings


@pytest.mark.parametrize("case", ["ok-http", "ok-k8sjob-token"])
def test_a_job_that_went_well_has_no_findings(case: str) -> None:
    assert replayed(case) == []
