"""Each cause is named from objects as Kubernetes gives them, with the command or edit that mends it."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.clusters.interface import Finding
from orchestrator.clusters.kuberay.diagnosis import diagnose
from orchestrator.clusters.kuberay.diagnosis.job import lost_driver
from orchestrator.clusters.kuberay.manifests import EXPERIMENT
from orchestrator.clusters.kuberay.snapshot import Snapshot
from orchestrator.clusters.kuberay.status import tree
from tests.cluster import fault_table

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


def head(*, ready_at: str, created_at: str = "2026-11-24T06:00:02Z") -> dict[str, Any]:
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": ready_at}
    made = pod("headgroup", phase="Running", conditions=[condition])
    made["metadata"]["creationTimestamp"] = created_at
    return made


REPLACED = head(created_at="2026-11-24T06:05:00Z", ready_at="2026-11-24T06:05:00Z")
STARTED = "2026-11-24T06:00:10Z"
RUNNING = job(jobDeploymentStatus="Running", jobStatus="RUNNING", rayJobInfo={"startTime": STARTED})


def seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


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


def event(reason: str, message: str, name: str = "job", at: str | None = None) -> dict[str, Any]:
    about = {"involvedObject": {"name": name}, "reason": reason, "message": message, "type": "Warning"}
    return about | {"lastTimestamp": at}


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
    (
        "queue-unreadable",
        {
            "job": JOB | {"metadata": JOB["metadata"] | {"labels": {"kueue.x-k8s.io/queue-name": "q"}}, "spec": {"suspend": True}},
            "unreadable": frozenset({"workloads.kueue.x-k8s.io"}),
        },
        "may not list workloads.kueue.x-k8s.io",
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
    (
        "files-missing",
        {
            "pods": [pod(phase="Pending")],
            "events": [event("FailedMount", 'MountVolume.SetUp failed for volume "job" : configmap "job" not found', "job-workers-x")],
        },
        "submit the experiment again",
    ),
    (
        "volume",
        {"pods": [pod(phase="Pending")], "events": [event("FailedAttachVolume", "Multi-Attach error for volume pvc-1", "job-workers-x")]},
        "Multi-Attach",
    ),
    (
        "container-failed",
        {
            "pods": [container(name="autoscaler", state={"terminated": {"exitCode": 1, "reason": "Error"}})],
            "last_lines": {("job-workers-x", "autoscaler"): "FileNotFoundError: /var/run/secrets/token\n"},
        },
        "container autoscaler of group workers ended with exit code 1: FileNotFoundError: /var/run/secrets/token",
    ),
    (
        "out-of-memory",
        {"pods": [container(state={"terminated": {"exitCode": 137, "reason": "Error"}})]},
        "(exit code 137), most likely for using more memory",
    ),
    (
        "pod-not-ready",
        {"pods": [waiting("ContainerCreating")]},
        "is not ready (ray-worker: ContainerCreating)",
    ),
    (
        "gpu-not-visible",
        {"job": failed(EXIT.format(2) + "tandem: scale: 1 workers with 1 GPUs each need 1 GPUs, but there are 0; lower")},
        "install the GPU operator",
    ),
    (
        "gpu-not-visible",
        {"job": failed(EXIT.format(1) + "a seed 0 failed: scale.gpus_per_worker asks for a GPU, but PyTorch 2.14.1 sees none on node n1: check")},
        "PyTorch 2.14.1 sees none on node n1",
    ),
    (
        "framework-without-cuda",
        {"job": failed(EXIT.format(1) + "a seed 0 failed: scale.gpus_per_worker asks for a GPU, but PyTorch 2.14.1+cpu sees none on node n1: this PyTorch is built without CUDA; install")},
        "target cuda",
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
        {"job": RUNNING, "lease_renewed_at": seconds(STARTED) + 100, "now": seconds(STARTED) + 400},
        "not renewed its lease for 300 s",
    ),
    (
        "driver-lost",
        {
            "job": RUNNING,
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
    pods, now = [head(ready_at=STARTED)], seconds(STARTED) + 500
    assert (
        diagnose(Snapshot(namespace="team", job=RUNNING, pods=pods, lease_renewed_at=now - 3, now=now)) == []
    )
    assert diagnose(Snapshot(namespace="team", job=JOB, now=1e9)) == []


def test_the_document_has_every_cause() -> None:
    assert fault_table.DOCUMENT.read_text() == fault_table.document(), "python -m tests.cluster.fault_table"


def is_lost(*, renewed: float, ready: float, now: float, started: float = 0.0) -> bool:
    """Whether a driver counts as lost; times are in seconds after `STARTED`."""
    begin = seconds(STARTED)

    def at(after: float) -> str:
        return datetime.fromtimestamp(begin + after, UTC).isoformat()

    running = job(jobDeploymentStatus="Running", jobStatus="RUNNING", rayJobInfo={"startTime": at(started)})
    pods = [head(ready_at=at(ready), created_at=at(min(ready, started)))]
    return lost_driver(running, pods, lease_renewed_at=begin + renewed, now=begin + now) is not None


def test_a_new_driver_is_not_lost_because_its_predecessor_was_silent() -> None:
    """The lease in storage is still the dead driver's, last renewed minutes before this job started."""
    assert not is_lost(renewed=-90, ready=-10, now=3)
    assert not is_lost(renewed=-90, ready=-10, now=100), "it reads the data, then waits for the old lease"
    assert is_lost(renewed=-90, ready=-10, now=400)
    assert not is_lost(renewed=200, ready=-10, now=259)
    assert is_lost(renewed=200, ready=-10, now=261), "it held the lease, and has stopped renewing it"


def test_a_driver_is_not_lost_while_its_head_is_replaced() -> None:
    """KubeRay submits the driver anew when the head is ready; with Redis it does not, and nothing renews the lease."""
    away = head(ready_at=STARTED)
    away["metadata"]["deletionTimestamp"] = STARTED
    now = seconds(STARTED) + 1000
    assert lost_driver(RUNNING, [away], lease_renewed_at=now - 500, now=now) is None
    assert not is_lost(renewed=100, ready=190, now=230)
    assert is_lost(renewed=100, ready=190, now=260), "the new head still has the old driver's job"


QUOTA = (
    'Failed to create worker Pod: pods "job-workers-{}" is forbidden: exceeded quota: team, requested: cpu=8'
)


def cluster(ready: int, desired: int) -> dict[str, Any]:
    conditions = [{"type": "HeadPodReady", "status": "True"}]
    counts = {"readyWorkerReplicas": ready, "desiredWorkerReplicas": desired}
    return {"metadata": {"name": "job-abcde"}, "status": counts | {"conditions": conditions}}


def created(manifest: dict[str, Any], at: str) -> dict[str, Any]:
    return manifest | {"metadata": manifest["metadata"] | {"creationTimestamp": at}}


def test_an_old_event_is_not_a_present_cause() -> None:
    early, later, latest = "2026-11-24T06:01:00Z", "2026-11-24T06:02:00Z", "2026-11-24T06:03:00Z"
    events = [event("FailedToCreateWorkerPod", QUOTA.format(name), at=early) for name in "ab"]
    short = Snapshot(namespace="team", job=JOB, cluster=cluster(0, 2), events=events)
    (finding,) = diagnose(short)
    assert finding.cause == "quota" and finding.count == 2 and "(2 times)" in str(finding)
    there = created(waiting("ContainerCreating"), later)
    assert [found.cause for found in diagnose(dataclasses.replace(short, pods=[there]))] == ["pod-not-ready"]
    again = [*events, event("FailedToCreateWorkerPod", QUOTA.format("c"), at=latest)]
    assert diagnose(dataclasses.replace(short, pods=[there], events=again))[0].cause == "quota"
    assert diagnose(dataclasses.replace(short, cluster=cluster(2, 2))) == []

    mount = event("FailedMount", "timed out waiting for the condition", "job-workers-x", at=early)
    mounted = created(
        pod(phase="Running", conditions=[{"type": "Ready", "status": "True"}]), "2026-11-24T06:00:00Z"
    )
    assert diagnose(Snapshot(namespace="team", job=JOB, pods=[mounted], events=[mount])) == []


def test_a_ready_node_is_not_lost() -> None:
    gone = pod(phase="Running", conditions=[{"type": "Ready", "status": "False"}])
    gone["spec"]["nodeName"] = "n"
    events = [event("NodeNotReady", "Node is not ready", "job-workers-x")]
    lost = Snapshot(namespace="team", job=JOB, pods=[gone], events=events, nodes=[NODE])
    assert diagnose(lost)[0].cause == "node-lost"
    node = NODE | {"status": NODE["status"] | {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert [found.cause for found in diagnose(dataclasses.replace(lost, nodes=[node]))] == ["pod-not-ready"]


def test_a_workload_that_is_admitted_again_was_not_evicted() -> None:
    evicted = workload("Preempted", "Preempted to accommodate a workload", "Evicted", "True")
    evicted["status"]["conditions"].append({"type": "QuotaReserved", "status": "True"})
    assert diagnose(Snapshot(namespace="team", workloads=[evicted])) == []


def test_the_users_own_error_comes_before_an_old_shortage() -> None:
    own = failed(EXIT.format(1) + "ValueError: no such column")
    short = unscheduled("0/3 nodes are available: 2 Insufficient cpu. x", cpu="64")
    events = [event("FailedToCreateWorkerPod", QUOTA.format("a"))]
    (finding,) = diagnose(Snapshot(namespace="team", job=own, pods=[short], events=events))
    assert finding.cause == "driver-failed" and "no such column" in finding.sentence
    done = job(jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    assert diagnose(Snapshot(namespace="team", job=done, pods=[short], events=events)) == []


def test_a_restart_that_is_over_is_not_a_cause_and_a_pod_that_ends_is_shown() -> None:
    ready = [{"type": "Ready", "status": "True"}]
    was = {"terminated": {"exitCode": 1, "reason": "Error"}}
    entry = {
        "name": "autoscaler",
        "ready": True,
        "restartCount": 1,
        "state": {"running": {}},
        "lastState": was,
    }
    restarted = pod(phase="Running", conditions=ready, containerStatuses=[entry])
    assert diagnose(Snapshot(namespace="team", job=JOB, pods=[restarted])) == []
    crashing = pod(phase="Running", containerStatuses=[entry | {"ready": False, "state": was}])
    (finding,) = diagnose(Snapshot(namespace="team", job=JOB, pods=[crashing]))
    assert finding.cause == "container-failed" and "restarted 1 times" in finding.sentence
    ending = pod(phase="Running", conditions=ready)
    ending["metadata"]["deletionTimestamp"] = STARTED
    (finding,) = diagnose(Snapshot(namespace="team", job=JOB, pods=[ending]))
    assert finding.cause == "pod-not-ready" and "is being deleted" in finding.sentence
    running = RUNNING | {"status": RUNNING["status"] | {"rayClusterName": "job-abcde"}}
    shown = tree(
        running | {"metadata": JOB["metadata"] | {"labels": {EXPERIMENT: "x"}}}, cluster(0, 1), [ending]
    )
    assert shown.children[0].children[0].state == "Terminating"


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
