"""A job's objects at one moment: what a diagnosis is made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from orchestrator.clusters.kuberay.objects import Manifest, group_of, spec_of, status_of


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
    missing_permissions: list[str] = dataclasses.field(default_factory=list)
    """Such as `create rayjobs.ray.io`."""
    kuberay_installed: bool = True
    driver_silent_seconds: float | None = None
    """Time since the driver last renewed its lease in storage."""
    now: float = 0.0
    """Seconds since the epoch."""

    def containers(self) -> Iterator[tuple[Manifest, Manifest]]:
        """Each pod with the status of each of its containers, init containers first."""
        for pod in self.pods:
            status = status_of(pod)
            for kind in ("initContainerStatuses", "containerStatuses"):
                for container in status.get(kind) or []:
                    yield pod, container

    def messages(self, *reasons: str) -> list[str]:
        """Messages of the events whose reason begins with one of these, without repetitions."""
        found = (_event(event) for event in self.events)
        return list(dict.fromkeys(message for reason, _, message in found if reason.startswith(reasons)))

    def messages_of(self, name: str, *reasons: str) -> list[str]:
        """Messages of the events about one object whose reason begins with one of these."""
        found = (_event(event) for event in self.events)
        return [message for reason, about, message in found if about == name and reason.startswith(reasons)]

    def requests(self, pod: Manifest) -> dict[str, str]:
        """The resources that a pod's first container requests, such as `{"cpu": "2"}`; of devices, its limits."""
        devices = {name: amount for name, amount in self.limits(pod).items() if "/" in name}
        return self._resources(pod, "requests") | devices

    def limits(self, pod: Manifest) -> dict[str, str]:
        """The limits of a pod's first container."""
        return self._resources(pod, "limits")

    def node_selector(self, group: str) -> str:
        """The node labels that a group's pods need, in one line."""
        selector = spec_of(self._templates().get(group)).get("nodeSelector") or {}
        return ", ".join(f"{key}={value}" for key, value in selector.items()) or "none"

    def _resources(self, pod: Manifest, kind: str) -> dict[str, str]:
        spec = spec_of(pod) or spec_of(self._templates().get(group_of(pod)))
        first = (spec.get("containers") or [{}])[0]
        return {
            name: str(amount) for name, amount in ((first.get("resources") or {}).get(kind) or {}).items()
        }

    def _templates(self) -> dict[str, Manifest]:
        """Each group's pod template, which says what its pods requested even after they are deleted."""
        cluster = spec_of(self.cluster) or spec_of(self.job).get("rayClusterSpec") or {}
        groups = {"headgroup": (cluster.get("headGroupSpec") or {}).get("template") or {}}
        for group in cluster.get("workerGroupSpecs") or []:
            groups[group["groupName"]] = group["template"]
        return groups


def _event(event: Manifest) -> tuple[str, str, str]:
    """An event's reason, object's name and message, in either of the two versions of the events API."""
    about = event.get("involvedObject") or event.get("regarding") or {}
    return (
        str(event.get("reason", "")),
        str(about.get("name", "")),
        str(event.get("message") or event.get("note") or ""),
    )
