"""A job's objects at one moment: what a diagnosis is made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from orchestrator.clusters.kuberay.objects import (
    Manifest,
    condition_of,
    group_of,
    is_terminating,
    ready_since,
    seconds_of,
    spec_of,
    status_of,
)


@dataclasses.dataclass(frozen=True)
class Event:
    """An event, in either of the two versions of the events API."""

    reason: str
    about: str
    """Name of the object."""
    message: str
    at: float | None
    """When it last happened, in seconds since the epoch."""

    def is_since(self, manifest: Manifest) -> bool:
        """Whether it happened after an object was created."""
        created_at = seconds_of(manifest["metadata"].get("creationTimestamp"))
        return self.at is None or created_at is None or self.at >= created_at


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A job's objects; empty where the credentials do not allow to read them."""

    namespace: str
    job: Manifest | None = None
    """The RayJob."""
    cluster: Manifest | None = None
    """The job's RayCluster."""
    pods: list[Manifest] = dataclasses.field(default_factory=list)
    """Pods of the cluster and of the submitter."""
    events: list[Manifest] = dataclasses.field(default_factory=list)
    """Events about any of these objects."""
    nodes: list[Manifest] = dataclasses.field(default_factory=list)
    workloads: list[Manifest] = dataclasses.field(default_factory=list)
    """Kueue's workloads for the job."""
    unreadable: frozenset[str] = frozenset()
    """Resources that the credentials may not list, such as `workloads.kueue.x-k8s.io`."""
    missing_permissions: list[str] = dataclasses.field(default_factory=list)
    """Such as `create rayjobs.ray.io`."""
    kuberay_installed: bool = True
    lease_renewed_at: float | None = None
    """When a driver last renewed its lease in storage, in seconds since the epoch; None if that cannot be read."""
    last_lines: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    """The end of the log of containers that failed, by pod and container."""
    now: float = 0.0
    """Seconds since the epoch."""

    @property
    def deployment(self) -> str:
        """The RayJob's deployment status."""
        return str(status_of(self.job).get("jobDeploymentStatus") or "")

    @property
    def has_all_pods(self) -> bool:
        """Whether every pod of the cluster is ready, so that nothing prevents their creation any more."""
        status = status_of(self.cluster)  # whose state stays `ready` when pods are lost
        ready, desired = status.get("readyWorkerReplicas") or 0, status.get("desiredWorkerReplicas") or 0
        return condition_of(self.cluster, "HeadPodReady").get("status") == "True" and ready >= desired

    def pods_in_use(self) -> list[Manifest]:
        """The pods that are not being deleted."""
        return [pod for pod in self.pods if not is_terminating(pod)]

    def containers(self) -> Iterator[tuple[Manifest, Manifest]]:
        """Each pod in use with the status of each of its containers, init containers first."""
        for pod in self.pods_in_use():
            status = status_of(pod)
            for kind in ("initContainerStatuses", "containerStatuses"):
                for container in status.get(kind) or []:
                    yield pod, container

    def events_of(self, *reasons: str, name: str | None = None) -> list[Event]:
        """The events whose reason begins with one of these, about one object if it is named."""
        found = [_event(event) for event in self.events]
        return [event for event in found if event.reason.startswith(reasons) and name in (None, event.about)]

    def node_is_ready(self, pod: Manifest) -> bool:
        """Whether the node that a pod was scheduled on is known to be ready."""
        name = spec_of(pod).get("nodeName")
        return any(node["metadata"]["name"] == name and ready_since(node) is not None for node in self.nodes)

    def requests(self, pod: Manifest) -> dict[str, str]:
        """The resources that a pod's first container requests, such as `{"cpu": "2"}`; of devices, its limits."""
        devices = {name: amount for name, amount in self.limits(pod).items() if "/" in name}
        return self._resources(pod, "requests") | devices

    def limits(self, pod: Manifest, container: str | None = None) -> dict[str, str]:
        """The limits of a container of a pod, by default its first."""
        return self._resources(pod, "limits", container)

    def node_selector(self, group: str) -> str:
        """The node labels that a group's pods need, in one line."""
        selector = spec_of(self._templates().get(group)).get("nodeSelector") or {}
        return ", ".join(f"{key}={value}" for key, value in selector.items()) or "none"

    def _resources(self, pod: Manifest, kind: str, container: str | None = None) -> dict[str, str]:
        spec = spec_of(pod) or spec_of(self._templates().get(group_of(pod)))
        containers = spec.get("containers") or [{}]
        chosen = next((entry for entry in containers if entry.get("name") == container), containers[0])
        if container is not None and chosen.get("name") != container:
            return {}
        resources = (chosen.get("resources") or {}).get(kind) or {}
        return {name: str(amount) for name, amount in resources.items()}

    def _templates(self) -> dict[str, Manifest]:
        """Each group's pod template, which says what its pods requested even after they are deleted."""
        cluster = spec_of(self.cluster) or spec_of(self.job).get("rayClusterSpec") or {}
        groups = {"headgroup": (cluster.get("headGroupSpec") or {}).get("template") or {}}
        for group in cluster.get("workerGroupSpecs") or []:
            groups[group["groupName"]] = group["template"]
        return groups


def _event(event: Manifest) -> Event:
    about = event.get("involvedObject") or event.get("regarding") or {}
    at = (
        (event.get("series") or {}).get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("deprecatedLastTimestamp")
        or event.get("eventTime")
    )
    return Event(
        reason=str(event.get("reason", "")),
        about=str(about.get("name", "")),
        message=str(event.get("message") or event.get("note") or ""),
        at=seconds_of(at),
    )
