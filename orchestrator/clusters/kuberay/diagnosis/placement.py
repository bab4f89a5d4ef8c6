"""Rules about where pods run: queues, quotas, admission by the API server, and scheduling on nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from orchestrator.clusters.interface import Finding, shortened
from orchestrator.clusters.kuberay.objects import (
    Manifest,
    amount,
    condition_of,
    group_of,
    seconds_of,
    spec_of,
    status_of,
)
from orchestrator.clusters.kuberay.snapshot import Event, Snapshot

_WORKLOADS = "workloads.kueue.x-k8s.io"


def queues(snapshot: Snapshot) -> Iterator[Finding]:
    """What Kueue reports about the job's workloads."""
    for workload in snapshot.workloads:
        if condition_of(workload, "QuotaReserved").get("status") == "True":
            continue  # whatever happened before, the job is admitted now
        for condition in status_of(workload).get("conditions", []):
            message = shortened(condition.get("message"))
            if condition["type"] == "Evicted" and condition["status"] == "True":
                yield Finding(
                    "queue-evicted",
                    f"Kueue evicted the job: {message}",
                    "it waits in the queue again and then resumes from its records; raise kubernetes.priority",
                )
            if condition["type"] != "QuotaReserved":
                continue
            if "doesn't exist" in message or "not found" in message:
                yield Finding(
                    "queue-missing",
                    f"Kueue has no such queue: {message}",
                    f"kubectl get localqueue -n {snapshot.namespace}, and correct kubernetes.queue",
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
                    f"kubectl describe workload {workload['metadata']['name']} -n {snapshot.namespace}",
                )


def suspension(snapshot: Snapshot) -> Iterator[Finding]:
    """A suspended job that no queue knows."""
    job = snapshot.job
    if job is None or snapshot.workloads:
        return
    if not spec_of(job).get("suspend") and status_of(job).get("jobDeploymentStatus") != "Suspended":
        return
    name, labels = job["metadata"]["name"], job["metadata"].get("labels") or {}
    queue = labels.get("kueue.x-k8s.io/queue-name")
    if queue and _WORKLOADS in snapshot.unreadable:
        yield Finding(
            "queue-unreadable",
            f"the job waits for Kueue's queue {queue}; these credentials may not list {_WORKLOADS}, which say why",
            f"ask for the Role tandem-viewer: kubectl auth can-i list {_WORKLOADS} -n {snapshot.namespace}",
        )
    elif queue:
        yield Finding(
            "queue-silent",
            f"the job waits for Kueue's queue {queue}, but Kueue has created no workload for it",
            "install Kueue and enable its integration ray.io/rayjob, or leave kubernetes.queue out",
        )
    else:
        patch = '{"spec":{"suspend":false}}'
        yield Finding(
            "suspended",
            f"{name} is suspended",
            f"kubectl patch rayjob {name} -n {snapshot.namespace} --type=merge -p '{patch}'",
        )


def creation(snapshot: Snapshot) -> Iterator[Finding]:
    """Why the API server refuses the cluster or the pods that the operator creates."""
    for event in snapshot.events_of("FailedToCreate", "FailedCreate"):
        if not _is_present(snapshot, event):
            continue
        message = re.sub(r'pods "[^"]*"', "pods", event.message)
        if "exceeded quota" in message:
            yield Finding(
                "quota",
                f"the namespace's quota is used up: {_after(message, 'exceeded quota')}",
                f"lower kubernetes.workers or ask for more: kubectl describe quota -n {snapshot.namespace}",
            )
        elif "PodSecurity" in message:
            yield Finding(
                "pod-security",
                f"the namespace's pod security refuses the pods: {_after(message, 'violates')}",
                f"kubectl label namespace {snapshot.namespace} pod-security.kubernetes.io/enforce=baseline "
                "--overwrite, or leave hostPath and the like out",
            )
        elif re.search(r'serviceaccount "[^"]+" not found|looking up service account', message):
            yield _missing_account(snapshot, message)
        elif "forbidden" in message:
            yield Finding(
                "operator-forbidden",
                f"KubeRay's operator may not create the pods: {shortened(message)}",
                "correct the operator's Role; its Helm chart has singleNamespaceInstall and watchNamespace for that",
            )
        elif "admission webhook" in message:
            yield Finding(
                "admission",
                f"an admission webhook refuses the pods: {shortened(message)}",
                "change what it objects to in the kubernetes: block, or ask the webhook's maintainer",
            )
        else:
            yield Finding(
                "creation",
                f"the operator cannot create the pods: {shortened(message)}",
                f"kubectl get events -n {snapshot.namespace} --sort-by=.lastTimestamp",
            )
    if not any(group_of(pod) == "headgroup" for pod in snapshot.pods):
        for event in snapshot.events_of("AutoscalerServiceAccountNotFound")[-1:]:
            yield _missing_account(snapshot, event.message)


def _is_present(snapshot: Snapshot, event: Event) -> bool:
    """Whether pods are still missing, and none of the kind was created after the event."""
    if snapshot.has_all_pods:
        return False
    about_head = "Head" in event.reason
    created = [
        seconds_of(pod["metadata"].get("creationTimestamp")) or 0.0
        for pod in snapshot.pods
        if (group_of(pod) == "headgroup") == about_head
    ]
    if about_head and created:
        return False
    return event.at is None or event.at > max(created, default=0.0)


def _missing_account(snapshot: Snapshot, message: str) -> Finding:
    return Finding(
        "service-account",
        f"the service account does not exist: {shortened(message)}",
        f"kubectl create serviceaccount NAME -n {snapshot.namespace}, or leave kubernetes.service_account out",
    )


def scheduling(snapshot: Snapshot) -> Iterator[Finding]:
    """Pods that fit on no node."""
    for pod in snapshot.pods_in_use():
        condition = condition_of(pod, "PodScheduled")
        if condition.get("status") == "False" and condition.get("reason") == "Unschedulable":
            yield _unschedulable(snapshot, pod, str(condition.get("message", "")))


def _unschedulable(snapshot: Snapshot, pod: Manifest, message: str) -> Finding:
    group = group_of(pod)
    lacking = dict.fromkeys(re.findall(r"Insufficient ([\w./-]+?)(?=[,.;]?(?:\s|$))", message))
    if lacking:
        requested = snapshot.requests(pod)
        listed = ", ".join(_shortage(snapshot, resource, requested) for resource in lacking)
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
            f"no node has the labels that group {group} needs",
            f"correct its node_selector; kubectl get nodes --show-labels (now: {snapshot.node_selector(group)})",
        )
    if "persistentvolumeclaim" in message or "volume" in message:
        return Finding(
            "volume",
            f"a volume of group {group} does not exist or cannot be reached from any node: {shortened(message)}",
            f"kubectl get pvc -n {snapshot.namespace}, and correct kubernetes.claims",
        )
    return Finding(
        "unschedulable",
        f"no node can run a pod of group {group}: {shortened(message)}",
        f"kubectl describe pod {pod['metadata']['name']} -n {snapshot.namespace}",
    )


def _shortage(snapshot: Snapshot, resource: str, requested: dict[str, str]) -> str:
    wanted = f" {requested[resource]} requested" if resource in requested else ""
    amounts = [str(status_of(node).get("allocatable", {}).get(resource, "0")) for node in snapshot.nodes]
    largest = max(amounts, key=amount, default=None)
    has = "" if largest is None else f", the largest node has {largest}"
    return (
        f"too little {resource} ({(wanted + has).strip(' ,')})" if wanted or has else f"too little {resource}"
    )


def _after(message: str, mark: str) -> str:
    return shortened(message.partition(mark)[2].lstrip(": ") or message)
