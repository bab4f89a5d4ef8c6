"""From what Kubernetes says of a job to one sentence of cause and one command or edit that mends it.

Pure: rules over objects as the API gives them, from the most particular to the most general. The first finding is
the one to show; the others stand behind it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from orchestrator.clusters.kubernetes_objects import Manifest, amount, seconds_of, spec_of, status_of
from orchestrator.clusters.snapshot import Facts, group_of, state_of

_OPERATOR_SECONDS = 30.0
_SILENT_SECONDS = 60.0
_HEAD_SECONDS = 10.0
"""Within which a new cluster's own head pod is made."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that keeps a job from running, or ended it."""

    cause: str
    """A short name, for scripts."""
    sentence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.sentence}; {self.remedy}"


def diagnose(facts: Facts) -> list[Finding]:
    """All findings, the most particular first; none where nothing is wrong."""
    return [finding for rule in _RULES for finding in rule(facts)]


def _access(facts: Facts) -> Iterator[Finding]:
    if not facts.knows_ray_jobs:
        yield Finding(
            "no-kuberay",
            "the cluster does not know RayJobs, so KubeRay is not installed",
            "helm install kuberay-operator kuberay/kuberay-operator",
        )
    if facts.missing_rights:
        yield Finding(
            "no-permission",
            f"in namespace {facts.namespace} you may not {', '.join(facts.missing_rights)}",
            f"ask for the Role tandem-submitter: kubectl create rolebinding tandem --role=tandem-submitter "
            f"--user=YOU -n {facts.namespace}",
        )


def _operator(facts: Facts) -> Iterator[Finding]:
    job = facts.job
    if job is None or status_of(job) or spec_of(job).get("suspend"):
        return
    if facts.now - (seconds_of(job["metadata"].get("creationTimestamp")) or 0.0) > _OPERATOR_SECONDS:
        yield Finding(
            "operator-missing",
            f"no KubeRay operator has taken {job['metadata']['name']} up",
            "kubectl get deployment -A -l app.kubernetes.io/name=kuberay-operator, and see whether it watches "
            f"namespace {facts.namespace}",
        )


def _validation(facts: Facts) -> Iterator[Finding]:
    status = status_of(facts.job)
    if status.get("jobDeploymentStatus") == "ValidationFailed":
        yield Finding(
            "invalid",
            f"KubeRay refuses the job: {_line(status.get('message'))}",
            "upgrade KubeRay to 1.6 or later, or correct the kubernetes: block",
        )
    for message in facts.messages("RayClusterNotFound"):
        yield Finding(
            "cluster-not-found",
            f"the RayCluster to run on is not there: {_line(message)}",
            f"kubectl get raycluster -n {facts.namespace}, and correct kubernetes.cluster",
        )


def _queues(facts: Facts) -> Iterator[Finding]:
    for workload in facts.workloads:
        for condition in status_of(workload).get("conditions", []):
            message = _line(condition.get("message"))
            if condition["type"] == "Evicted" and condition["status"] == "True":
                yield Finding(
                    "queue-evicted",
                    f"Kueue took the job's place away: {message}",
                    "it waits for its turn again and goes on from its records; raise kubernetes.priority",
                )
            if condition["type"] != "QuotaReserved" or condition["status"] == "True":
                continue
            if "doesn't exist" in message or "not found" in message:
                yield Finding(
                    "queue-missing",
                    f"Kueue has no such queue: {message}",
                    f"kubectl get localqueue -n {facts.namespace}, and correct kubernetes.queue",
                )
            elif condition.get("reason") == "Inadmissible" or "insufficient quota" in message:
                yield Finding(
                    "queue-inadmissible",
                    f"Kueue cannot admit the job: {message}",
                    "lower max or the pods' cpus, memory_gib and gpus, or ask for more quota",
                )
            else:
                yield Finding(
                    "queue-waiting",
                    f"the job waits in Kueue's queue: {message}",
                    f"kubectl describe workload {workload['metadata']['name']} -n {facts.namespace}",
                )


def _suspension(facts: Facts) -> Iterator[Finding]:
    job = facts.job
    if job is None or facts.workloads:
        return
    if not spec_of(job).get("suspend") and status_of(job).get("jobDeploymentStatus") != "Suspended":
        return
    name, labels = job["metadata"]["name"], job["metadata"].get("labels") or {}
    queue = labels.get("kueue.x-k8s.io/queue-name")
    if queue:
        yield Finding(
            "queue-silent",
            f"the job waits for Kueue's queue {queue}, but Kueue has made no workload of it",
            "install Kueue and enable its integration ray.io/rayjob, or leave kubernetes.queue out",
        )
    else:
        patch = '{"spec":{"suspend":false}}'
        yield Finding(
            "suspended",
            f"{name} is suspended",
            f"kubectl patch rayjob {name} -n {facts.namespace} --type=merge -p '{patch}'",
        )


def _creation(facts: Facts) -> Iterator[Finding]:
    """What the API refuses of the operator when it makes the cluster or its pods."""
    for message in facts.messages("FailedToCreate", "FailedCreate"):
        if "exceeded quota" in message:
            yield Finding(
                "quota",
                f"the namespace's quota is used up: {_after(message, 'exceeded quota')}",
                f"lower kubernetes.workers or ask for more: kubectl describe quota -n {facts.namespace}",
            )
        elif "PodSecurity" in message:
            yield Finding(
                "pod-security",
                f"the namespace's pod security refuses the pods: {_after(message, 'violates')}",
                f"kubectl label namespace {facts.namespace} pod-security.kubernetes.io/enforce=baseline "
                "--overwrite, or leave hostPath and the like out",
            )
        elif re.search(r'serviceaccount "[^"]+" not found|looking up service account', message):
            yield _missing_account(facts, message)
        elif "forbidden" in message:
            yield Finding(
                "operator-forbidden",
                f"KubeRay's operator may not make the pods: {_line(message)}",
                "mend the operator's Role; its Helm chart's singleNamespaceInstall and watchNamespace tell where",
            )
        elif "admission webhook" in message:
            yield Finding(
                "admission",
                f"an admission webhook refuses the pods: {_line(message)}",
                "change what it objects to in the kubernetes: block, or ask who keeps the webhook",
            )
        else:
            yield Finding(
                "creation",
                f"the operator cannot make the pods: {_line(message)}",
                f"kubectl get events -n {facts.namespace} --sort-by=.lastTimestamp",
            )
    for message in facts.messages("AutoscalerServiceAccountNotFound"):
        yield _missing_account(facts, message)


def _missing_account(facts: Facts, message: str) -> Finding:
    return Finding(
        "service-account",
        f"the service account is not there: {_line(message)}",
        f"kubectl create serviceaccount NAME -n {facts.namespace}, or leave kubernetes.service_account out",
    )


def _scheduling(facts: Facts) -> Iterator[Finding]:
    for pod in facts.pods:
        for condition in status_of(pod).get("conditions") or []:
            if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
                yield _unschedulable(facts, pod, str(condition.get("message", "")))
                break


def _unschedulable(facts: Facts, pod: Manifest, message: str) -> Finding:
    group = group_of(pod)
    lacking = dict.fromkeys(re.findall(r"Insufficient ([\w./-]+?)(?=[,.;]?(?:\s|$))", message))
    if lacking:
        asked = facts.requests(pod)
        listed = ", ".join(_short_of(facts, resource, asked) for resource in lacking)
        return Finding(
            "unschedulable-resources",
            f"no node has room for a pod of group {group}: {listed}",
            f"lower it in kubernetes.workers for {group}, or add nodes",
        )
    if "untolerated taint" in message:
        taint = re.search(r"untolerated taint\(?s?\)? ?\{?([^}:,]*)", message)
        return Finding(
            "unschedulable-taint",
            f"the nodes for group {group} have a taint it does not tolerate: {taint[1] if taint else message}",
            f"add a tolerations entry to group {group}",
        )
    if "node affinity/selector" in message or "node selector" in message:
        return Finding(
            "unschedulable-selector",
            f"no node has the labels that group {group} asks for",
            f"correct its node_selector; kubectl get nodes --show-labels (now: {facts.node_selector(group)})",
        )
    if "persistentvolumeclaim" in message or "volume" in message:
        return Finding(
            "volume",
            f"a volume of group {group} is not there or cannot be reached from any node: {_line(message)}",
            f"kubectl get pvc -n {facts.namespace}, and correct kubernetes.claims",
        )
    return Finding(
        "unschedulable",
        f"no node takes a pod of group {group}: {_line(message)}",
        f"kubectl describe pod {pod['metadata']['name']} -n {facts.namespace}",
    )


def _short_of(facts: Facts, resource: str, asked: dict[str, str]) -> str:
    wanted = f" {asked[resource]} asked" if resource in asked else ""
    amounts = [str(status_of(node).get("allocatable", {}).get(resource, "0")) for node in facts.nodes]
    largest = max(amounts, key=amount, default=None)
    has = "" if largest is None else f", the largest node has {largest}"
    return (
        f"too little {resource} ({(wanted + has).strip(' ,')})" if wanted or has else f"too little {resource}"
    )


def _images(facts: Facts) -> Iterator[Finding]:
    for pod, container in facts.containers():
        reason, message = state_of(container, "waiting")
        if reason not in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"):
            continue
        image = container.get("image") or ""
        told = [message, *facts.messages_of(pod["metadata"]["name"], "Failed", "Pulling")]
        text = " ".join(told)
        image = image or (m[1] if (m := re.search(r'image "([^"]+)"', text)) else "the image")
        where = f"image {image} of group {group_of(pod)}"
        if "no match for platform" in text or "no matching manifest" in text:
            yield Finding(
                "architecture",
                f"{where} is not built for the node's processor",
                "build it for both: docker buildx build --platform linux/amd64,linux/arm64, or set node_selector "
                "kubernetes.io/arch",
            )
        elif re.search(r"unauthorized|authentication required|denied|403 Forbidden|401", text):
            yield Finding(
                "image-denied",
                f"{where} may not be pulled without signing in",
                f"kubectl create secret docker-registry NAME -n {facts.namespace} …, and name it in "
                "kubernetes.pull_secrets",
            )
        elif re.search(r"not found|manifest unknown|does not exist", text) or reason == "InvalidImageName":
            yield Finding(
                "image-missing", f"{where} does not exist", "correct kubernetes.image, or push the image"
            )
        else:
            why = re.search(r"((?:dial|lookup|x509|network|timeout|connection)[^\"]*)$", message or text)
            yield Finding(
                "image-unreachable",
                f"{where} cannot be pulled: {_line(why[1] if why else text)}",
                "check the registry's name and the nodes' way to it",
            )


def _containers_that_do_not_start(facts: Facts) -> Iterator[Finding]:
    for pod, container in facts.containers():
        name, group = container["name"], group_of(pod)
        waiting, message = state_of(container, "waiting")
        if waiting == "CreateContainerConfigError":
            yield Finding(
                "missing-secret",
                f"group {group} lacks a Secret or ConfigMap: {_line(message)}",
                f"kubectl get secret -n {facts.namespace}, and correct kubernetes.secrets",
            )
            continue
        terminated, words = state_of(container, "terminated")
        last = (container.get("lastState") or {}).get("terminated") or {}
        text = " ".join([message, words, str(last.get("message", ""))])
        if "exec format error" in text or "exec format error" in facts.log:
            yield Finding(
                "architecture",
                f"container {name} of group {group} is built for another processor than its node has",
                "build the image for it: docker buildx build --platform …, or set node_selector kubernetes.io/arch",
            )
        elif "OOMKilled" in (terminated, last.get("reason")):
            yield _out_of_memory(facts, pod, name)
        elif waiting in ("RunContainerError", "CreateContainerError") or "StartError" in (
            terminated,
            last.get("reason"),
        ):
            yield Finding(
                "cannot-start",
                f"container {name} of {pod['metadata']['name']} cannot be started: {_tail(text)}",
                "use an image made from the project's Dockerfile, which has a shell, Ray and tandem",
            )
        elif waiting == "CrashLoopBackOff":
            yield Finding(
                "crash-loop",
                f"container {name} of group {group} ends again and again, last with exit code "
                f"{last.get('exitCode', '?')}",
                f"kubectl logs {pod['metadata']['name']} -c {name} --previous -n {facts.namespace}",
            )


def _out_of_memory(facts: Facts, pod: Manifest, container: str) -> Finding:
    limit = facts.limits(pod).get("memory", "its limit")
    place = "head.memory_gib" if group_of(pod) == "headgroup" else "memory_gib of the group"
    return Finding(
        "out-of-memory",
        f"container {container} of {pod['metadata']['name']} was killed for using more memory than {limit}",
        f"raise kubernetes {place}, or lower batch_size",
    )


def _pods_that_went(facts: Facts) -> Iterator[Finding]:
    for pod in facts.pods:
        status, name = status_of(pod), pod["metadata"]["name"]
        if status.get("reason") == "Evicted":
            yield Finding(
                "evicted",
                f"{name} was evicted: {_line(status.get('message'))}",
                "give the pods more memory_gib, or a node with more disk; training goes on from the records",
            )
        for condition in status.get("conditions") or []:
            if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
                yield Finding(
                    "preempted",
                    f"{name} was taken away: {_line(condition.get('message') or condition.get('reason'))}",
                    "nothing need be done: the workers that are left, or new ones, go on from the last checkpoint",
                )
        if status.get("reason") == "NodeLost" or facts.messages_of(name, "NodeNotReady", "TaintManagerEvict"):
            yield Finding(
                "node-lost",
                f"the node of {name} is gone",
                "nothing need be done: training goes on from the last checkpoint when there is room",
            )


def _mounts(facts: Facts) -> Iterator[Finding]:
    for message in facts.messages("FailedMount", "FailedAttachVolume"):
        if "configmap" in message:
            yield Finding(
                "files-missing",
                "the ConfigMap with the experiment is not there",
                "submit the experiment again, which makes it",
            )
        else:
            yield Finding(
                "volume",
                f"a volume cannot be mounted: {_line(message)}",
                f"kubectl get pvc -n {facts.namespace}, and correct kubernetes.claims",
            )


def _driver(facts: Facts) -> Iterator[Finding]:
    """What the driver itself printed on a Ray cluster of either kind; a RayJob's message ends with it."""
    status = status_of(facts.job)
    text = f"{status.get('message') or ''}\n{facts.log}"
    told = re.findall(r"^tandem: (.*)$", text, re.MULTILINE)
    ours = told[-1] if told else ""
    if "GPUs" in ours and "but there are 0" in ours:
        yield Finding(
            "gpu-not-visible",
            f"Ray sees no GPU there: {ours}",
            "see that nvidia-smi works there; on Kubernetes set gpus of the group and install the GPU operator",
        )
    elif ours.startswith("storage ") or "AccessDenied" in text or "NoSuchBucket" in text:
        yield Finding(
            "storage",
            f"the cluster cannot use the storage: {ours or _line(text)}",
            "check storage and its credentials there; on Kubernetes name a Secret with them in kubernetes.secrets",
        )
    elif ours.startswith("data"):
        yield Finding(
            "data", f"the cluster cannot read the data: {ours}", "data.path is a path there, not here"
        )
    elif "ModuleNotFoundError: No module named 'orchestrator'" in text:
        yield Finding(
            "image-without-tandem",
            "the image has no tandem in it",
            "use an image made from the project's Dockerfile as kubernetes.image",
        )
    elif re.search(r"[Vv]ersion mismatch", text):
        yield Finding(
            "version-mismatch",
            f"Ray's or Python's version differs between the nodes: {_matching(text, '[Vv]ersion mismatch')}",
            "use one version on all nodes; on Kubernetes one image, with kubernetes.ray_version set to its Ray",
        )
    elif re.search(r"exit code 137|exit code -9|\nKilled\n", text):
        yield Finding(
            "driver-out-of-memory",
            "the driver on the head was killed, most likely for its memory",
            "give the head more memory; on Kubernetes kubernetes.head.memory_gib",
        )
    elif "another driver" in ours:
        yield Finding("held", ours, "wait for the other, or cancel it")


def lost_driver(
    job: Manifest, pods: list[Manifest], *, silent_seconds: float | None, now: float
) -> str | None:
    """Why a job that KubeRay calls Running has no driver any more; None where it may have one.

    With Ray's state in Redis, a new head knows the job of the old one, whose status nobody will ever change again.

    Args:
        job: a RayJob that is Running.
        pods: of its cluster.
        silent_seconds: since the driver renewed its lease, where that can be read.
        now: in seconds since the epoch.
    """
    if silent_seconds is not None:
        if silent_seconds <= _SILENT_SECONDS:
            return None
        return f"the driver has not been heard from for {silent_seconds:.0f} s although KubeRay says Running"
    began = seconds_of((status_of(job).get("rayJobInfo") or {}).get("startTime"))
    for pod in pods:
        made = seconds_of(pod["metadata"].get("creationTimestamp")) or 0.0
        if began and group_of(pod) == "headgroup" and made > began and now - made > _SILENT_SECONDS:
            return (
                f"the head pod was replaced after the driver had begun there, and for {now - made:.0f} s nothing has "
                "begun it again although KubeRay says Running"
            )
    return None


def _silence(facts: Facts) -> Iterator[Finding]:
    if facts.job is None or status_of(facts.job).get("jobDeploymentStatus") != "Running":
        return
    name = facts.job["metadata"]["name"]
    again = f"tandem cancel {name} --on kuberay, then submit again: it goes on from its records"
    silent = facts.driver_silent_seconds
    if (lost := lost_driver(facts.job, facts.pods, silent_seconds=silent, now=facts.now)) is not None:
        yield Finding("driver-lost", lost, again)
    if lost is not None or silent is not None:
        return
    began = seconds_of((facts.cluster or {}).get("metadata", {}).get("creationTimestamp"))
    for pod in facts.pods:
        made = seconds_of(pod["metadata"].get("creationTimestamp")) or 0.0
        if began and group_of(pod) == "headgroup" and made - began > _HEAD_SECONDS:
            yield Finding(
                "head-replaced",
                f"the head pod was replaced {made - began:.0f} s after the cluster was made, and what ran on it is "
                "gone; that KubeRay says Running proves nothing",
                f"see whether tandem status moves; if not, {again}",
            )


_REASONS = {
    "SubmissionFailed": (
        "submission",
        "the job could not be handed to Ray's head",
        "kubectl logs of the submitter pod tells why; a NetworkPolicy must let the operator reach port 8265",
    ),
    "DeadlineExceeded": (
        "deadline",
        "the job ran into its deadline",
        "raise kubernetes.deadline_seconds and submit again: it goes on from its records",
    ),
    "PreRunningDeadlineExceeded": (
        "start-deadline",
        "the pods were not all there in time",
        "raise kubernetes.start_seconds, or lower min of the groups",
    ),
    "JobStatusCheckTimeoutExceeded": (
        "head-silent",
        "Ray's head did not answer the operator for five minutes",
        "raise kubernetes.head.cpus and memory_gib and submit again",
    ),
    "JobDeploymentStatusTransitionGracePeriodExceeded": (
        "submitter-ended",
        "the operator took the end of a log stream for the end of the job",
        "submit again: it goes on from its records",
    ),
}


def _outcome(facts: Facts) -> Iterator[Finding]:
    status = status_of(facts.job)
    if status.get("jobDeploymentStatus") != "Failed":
        return
    reason = str(status.get("reason") or "")
    if reason in _REASONS:
        cause, sentence, remedy = _REASONS[reason]
        yield Finding(cause, f"{sentence} ({_line(status.get('message'))})", remedy)
        return
    message = str(status.get("message") or "")
    job = facts.job["metadata"]["name"] if facts.job else "JOB"
    yield driver_failed(message, log=message, remedy=f"tandem logs {job} --on kuberay")


def driver_failed(message: str, *, log: str, remedy: str) -> Finding:
    """A driver that failed for no known cause: by the runs that it gave up, or with its exit code and last word."""
    failed = re.findall(r"^(\S+ seed \d+ failed: .*); failed permanently$", log, re.MULTILINE)
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return Finding(
            "runs-failed", f"{failed[0]}{more}", "mend that and submit again: what is finished is kept"
        )
    code = re.search(r"exit code (-?\d+)", message)
    sentence = f"the driver failed{f' with exit code {code[1]}' if code else ''}: {_told_last(log)}"
    return Finding("driver-failed", sentence, remedy)


_RULES = (
    _access,
    _validation,
    _queues,
    _suspension,
    _creation,
    _scheduling,
    _images,
    _containers_that_do_not_start,
    _pods_that_went,
    _mounts,
    _driver,
    _silence,
    _outcome,
    _operator,
)


def _line(message: Any) -> str:
    """One line, not too long."""
    return " ".join(str(message or "").split())[:300]


def _tail(message: str) -> str:
    return " ".join(message.split())[-160:]


def _after(message: str, mark: str) -> str:
    return _line(message.partition(mark)[2].lstrip(": ") or message)


def _matching(text: str, pattern: str) -> str:
    return next((_line(line) for line in text.splitlines() if re.search(pattern, line)), "")


def _told_last(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()]
    return _line(lines[-1]) if lines else "it left no word"
