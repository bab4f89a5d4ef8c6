"""Rules about the pods of a job: images, containers, lost pods and volumes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from orchestrator.clusters.interface import Finding, shortened
from orchestrator.clusters.kuberay.objects import Manifest, group_of, state_of, status_of
from orchestrator.clusters.kuberay.snapshot import Snapshot


def images(snapshot: Snapshot) -> Iterator[Finding]:
    """Images that cannot be pulled."""
    for pod, container in snapshot.containers():
        reason, message = state_of(container, "waiting")
        if reason not in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"):
            continue
        image = container.get("image") or ""
        text = " ".join([message, *snapshot.messages_of(pod["metadata"]["name"], "Failed", "Pulling")])
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
                f"{where} cannot be pulled without credentials",
                f"kubectl create secret docker-registry NAME -n {snapshot.namespace} …, and name it in "
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
                f"{where} cannot be pulled: {shortened(why[1] if why else text)}",
                "check the registry's name, and that the nodes can reach it",
            )


def start_failures(snapshot: Snapshot) -> Iterator[Finding]:
    """Containers that do not start, or end at once."""
    for pod, container in snapshot.containers():
        name, group = container["name"], group_of(pod)
        waiting, message = state_of(container, "waiting")
        if waiting == "CreateContainerConfigError":
            yield Finding(
                "missing-secret",
                f"group {group} lacks a Secret or ConfigMap: {shortened(message)}",
                f"kubectl get secret -n {snapshot.namespace}, and correct kubernetes.secrets",
            )
            continue
        terminated, end_message = state_of(container, "terminated")
        last = (container.get("lastState") or {}).get("terminated") or {}
        text = " ".join([message, end_message, str(last.get("message", ""))])
        if "exec format error" in text:
            yield Finding(
                "architecture",
                f"container {name} of group {group} is built for another processor than its node has",
                "build the image for it: docker buildx build --platform …, or set node_selector kubernetes.io/arch",
            )
        elif "OOMKilled" in (terminated, last.get("reason")):
            yield _out_of_memory(snapshot, pod, name)
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
                f"container {name} of group {group} crashes repeatedly, last with exit code "
                f"{last.get('exitCode', '?')}",
                f"kubectl logs {pod['metadata']['name']} -c {name} --previous -n {snapshot.namespace}",
            )


def _out_of_memory(snapshot: Snapshot, pod: Manifest, container: str) -> Finding:
    limit = snapshot.limits(pod).get("memory", "its limit")
    place = "head.memory_gib" if group_of(pod) == "headgroup" else "memory_gib of the group"
    return Finding(
        "out-of-memory",
        f"container {container} of {pod['metadata']['name']} was killed for using more memory than {limit}",
        f"raise kubernetes {place}, or lower batch_size",
    )


def losses(snapshot: Snapshot) -> Iterator[Finding]:
    """Pods that were evicted, preempted, or lost with their node."""
    for pod in snapshot.pods:
        status, name = status_of(pod), pod["metadata"]["name"]
        if status.get("reason") == "Evicted":
            yield Finding(
                "evicted",
                f"{name} was evicted: {shortened(status.get('message'))}",
                "give the pods more memory_gib, or a node with more disk; training goes on from the records",
            )
        for condition in status.get("conditions") or []:
            if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
                yield Finding(
                    "preempted",
                    f"{name} was preempted: {shortened(condition.get('message') or condition.get('reason'))}",
                    "no action is needed: the remaining workers, or new ones, go on from the last checkpoint",
                )
        if status.get("reason") == "NodeLost" or snapshot.messages_of(
            name, "NodeNotReady", "TaintManagerEvict"
        ):
            yield Finding(
                "node-lost",
                f"the node of {name} is lost",
                "no action is needed: training goes on from the last checkpoint when there is room",
            )


def mounts(snapshot: Snapshot) -> Iterator[Finding]:
    """Volumes that cannot be mounted."""
    for message in snapshot.messages("FailedMount", "FailedAttachVolume"):
        if "configmap" in message:
            yield Finding(
                "files-missing",
                "the ConfigMap with the experiment does not exist",
                "submit the experiment again, which creates it",
            )
        else:
            yield Finding(
                "volume",
                f"a volume cannot be mounted: {shortened(message)}",
                f"kubectl get pvc -n {snapshot.namespace}, and correct kubernetes.claims",
            )


def _tail(message: str) -> str:
    return " ".join(message.split())[-160:]
