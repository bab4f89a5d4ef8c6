"""Rules about the pods of a job: images, containers, lost pods and volumes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from orchestrator.clusters.interface import Finding, shortened
from orchestrator.clusters.kuberay.objects import (
    Manifest,
    group_of,
    is_terminating,
    ready_since,
    spec_of,
    state_of,
    status_of,
)
from orchestrator.clusters.kuberay.snapshot import Snapshot


def images(snapshot: Snapshot) -> Iterator[Finding]:
    """Images that cannot be pulled."""
    for pod, container in snapshot.containers():
        reason, message = state_of(container, "waiting")
        if reason not in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"):
            continue
        image = container.get("image") or ""
        events = snapshot.events_of("Failed", "Pulling", name=pod["metadata"]["name"])
        text = " ".join([message, *(event.message for event in events)])
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
            why = re.search(r"((?:tls:|dial|lookup|x509|network|timeout|connection)[^\"]*)$", message or text)
            yield Finding(
                "image-unreachable",
                f"{where} cannot be pulled: {shortened(why[1] if why else text)}",
                "check the registry's name, and that the nodes can reach it",
            )


def containers(snapshot: Snapshot) -> Iterator[Finding]:
    """Containers that do not start, or that ended with an error."""
    for pod, container in snapshot.containers():
        if (finding := _failed_container(snapshot, pod, container)) is not None:
            yield finding


def memory(snapshot: Snapshot) -> Iterator[Finding]:
    """Containers that were killed for their memory."""
    for finding in containers(snapshot):
        if finding.cause == "out-of-memory":
            yield finding


def _failed_container(snapshot: Snapshot, pod: Manifest, container: Manifest) -> Finding | None:
    name, group, pod_name = container["name"], group_of(pod), pod["metadata"]["name"]
    waiting, message = state_of(container, "waiting")
    if waiting == "CreateContainerConfigError":
        return Finding(
            "missing-secret",
            f"group {group} lacks a Secret or ConfigMap: {shortened(message)}",
            f"kubectl get secret -n {snapshot.namespace}, and correct kubernetes.secrets",
        )
    ended = (container.get("state") or {}).get("terminated") or {}
    if not ended and container.get("ready"):
        return None  # it runs; an earlier end is past
    last = ended or (container.get("lastState") or {}).get("terminated") or {}
    reason, code = last.get("reason"), last.get("exitCode", 0)
    text = " ".join([message, str(last.get("message") or "")])
    if "exec format error" in text:
        return Finding(
            "architecture",
            f"container {name} of group {group} is built for another processor than its node has",
            "build the image for it: docker buildx build --platform …, or set node_selector kubernetes.io/arch",
        )
    if reason == "OOMKilled" or code == 137:
        return _out_of_memory(snapshot, pod, name, certain=reason == "OOMKilled")
    if waiting in ("RunContainerError", "CreateContainerError") or reason == "StartError":
        return Finding(
            "cannot-start",
            f"container {name} of group {group} cannot be started: {_tail(text)}",
            "use an image made from the project's Dockerfile, which has a shell, Ray and tandem",
        )
    if not last or code == 0:
        return None
    what = f"container {name} of group {group} ended with exit code {code}"
    if restarts := container.get("restartCount"):
        what += f" and was restarted {restarts} times"
    said = snapshot.last_lines.get((pod_name, name)) or text
    previous = "" if ended else " --previous"
    return Finding(
        "crash-loop" if waiting == "CrashLoopBackOff" else "container-failed",
        what + (f": {shortened(said)}" if said.strip() else ""),
        f"kubectl logs {pod_name} -c {name}{previous} -n {snapshot.namespace}",
    )


def _out_of_memory(snapshot: Snapshot, pod: Manifest, container: str, *, certain: bool) -> Finding:
    limit = snapshot.limits(pod, container).get("memory", "its limit")
    if container == "autoscaler":
        remedy = "see kubectl describe pod for its limit, and use fewer groups of workers"
    elif group_of(pod) == "headgroup":
        remedy = "raise kubernetes.head.memory_gib"
    else:
        remedy = (
            "raise kubernetes memory_gib of the group, or lower batch_size: half needs about half as much"
        )
    why = f"for using more memory than {limit}"
    if not certain:
        why = f"(exit code 137), most likely {why}"
    name = pod["metadata"]["name"]
    return Finding("out-of-memory", f"container {container} of {name} was killed {why}", remedy)


def losses(snapshot: Snapshot) -> Iterator[Finding]:
    """Pods that were evicted, preempted, or lost with their node, and are not replaced yet."""
    for pod in [] if snapshot.has_all_pods else snapshot.pods:
        status, name = status_of(pod), pod["metadata"]["name"]
        if ready_since(pod) is not None and not is_terminating(pod):
            continue
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
        events = snapshot.events_of("NodeNotReady", "TaintManagerEvict", name=name)
        if status.get("reason") == "NodeLost" or (events and not snapshot.node_is_ready(pod)):
            yield Finding(
                "node-lost",
                f"the node of {name} is lost",
                "no action is needed: training goes on from the last checkpoint when there is room",
            )


def mounts(snapshot: Snapshot) -> Iterator[Finding]:
    """Volumes that cannot be mounted into pods that wait for them."""
    for pod in snapshot.pods_in_use():
        if status_of(pod).get("phase") != "Pending":
            continue
        name = pod["metadata"]["name"]
        events = snapshot.events_of("FailedMount", "FailedAttachVolume", name=name)
        for event in [event for event in events if event.is_since(pod)][-1:]:
            if "configmap" in event.message:
                yield Finding(
                    "files-missing",
                    "the ConfigMap with the experiment does not exist",
                    "submit the experiment again, which creates it",
                )
            else:
                yield Finding(
                    "volume",
                    f"a volume cannot be mounted: {shortened(event.message)}",
                    f"kubectl get pvc -n {snapshot.namespace}, and correct kubernetes.claims",
                )


def unready(snapshot: Snapshot) -> Iterator[Finding]:
    """Pods that are not ready, for no known reason."""
    for pod in snapshot.pods:
        if ready_since(pod) is not None and not is_terminating(pod):
            continue
        if status_of(pod).get("phase") == "Succeeded":
            continue
        name = pod["metadata"]["name"]
        yield Finding(
            "pod-not-ready",
            f"pod {name} of group {group_of(pod)} is {_state(pod)}",
            f"this is usual while pods start or end; if it lasts: kubectl describe pod {name} -n {snapshot.namespace}",
        )


def _state(pod: Manifest) -> str:
    if is_terminating(pod):
        return "being deleted"
    node = spec_of(pod).get("nodeName")
    states = []
    for container in status_of(pod).get("containerStatuses") or []:
        if not container.get("ready"):
            reason = state_of(container, "waiting")[0] or state_of(container, "terminated")[0]
            states.append(f"{container['name']}: {reason or 'started, not ready'}")
    where = f" on {node}" if node else ""
    return f"not ready{where}" + (f" ({', '.join(states)})" if states else "")


def _tail(message: str) -> str:
    return " ".join(message.split())[-160:]
