"""What Kubernetes and Ray say of a job: objects as the API gives them, and what is read out of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from orchestrator.clusters.kubernetes_objects import Manifest, spec_of, status_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a job. What may not be seen is empty."""

    namespace: str
    job: Manifest | None = None
    """The RayJob."""
    cluster: Manifest | None = None
    """Its RayCluster."""
    pods: list[Manifest] = dataclasses.field(default_factory=list)
    """Of the cluster, and of the submitter."""
    events: list[Manifest] = dataclasses.field(default_factory=list)
    """About any of these."""
    nodes: list[Manifest] = dataclasses.field(default_factory=list)
    workloads: list[Manifest] = dataclasses.field(default_factory=list)
    """Kueue's, for this job."""
    missing_rights: list[str] = dataclasses.field(default_factory=list)
    """Such as `create rayjobs.ray.io`."""
    knows_ray_jobs: bool = True
    driver_silent_seconds: float | None = None
    """Since the driver last renewed its lease in storage."""
    log: str = ""
    """The end of what the driver printed."""
    now: float = 0.0
    """Seconds since the epoch."""

    def containers(self) -> Iterator[tuple[Manifest, Manifest]]:
        """Each container's status after its pod, those that initialise it first."""
        for pod in self.pods:
            status = status_of(pod)
            for kind in ("initContainerStatuses", "containerStatuses"):
                for container in status.get(kind) or []:
                    yield pod, container

    def messages(self, *reasons: str) -> list[str]:
        """Messages of the events whose reason begins with one of these, each once."""
        found = (_event(event) for event in self.events)
        return list(dict.fromkeys(message for reason, _, message in found if reason.startswith(reasons)))

    def messages_of(self, name: str, *reasons: str) -> list[str]:
        """Likewise, of the events about an object of this name, as often as they were sent."""
        found = (_event(event) for event in self.events)
        return [message for reason, about, message in found if about == name and reason.startswith(reasons)]

    def requests(self, pod: Manifest) -> dict[str, str]:
        """What a pod's first container asks for, such as `{"cpu": "2"}`; of a device, its limit."""
        devices = {name: amount for name, amount in self.limits(pod).items() if "/" in name}
        return self._resources(pod, "requests") | devices

    def limits(self, pod: Manifest) -> dict[str, str]:
        """What a pod's first container may use."""
        return self._resources(pod, "limits")

    def node_selector(self, group: str) -> str:
        """The labels that a group's pods ask of a node, in one line."""
        selector = spec_of(self._templates().get(group)).get("nodeSelector") or {}
        return ", ".join(f"{key}={value}" for key, value in selector.items()) or "none"

    def _resources(self, pod: Manifest, kind: str) -> dict[str, str]:
        spec = spec_of(pod) or spec_of(self._templates().get(group_of(pod)))
        first = (spec.get("containers") or [{}])[0]
        return {
            name: str(amount) for name, amount in ((first.get("resources") or {}).get(kind) or {}).items()
        }

    def _templates(self) -> dict[str, Manifest]:
        """Each group's pod template, which says what its pods asked for even when they are gone."""
        cluster = spec_of(self.cluster) or spec_of(self.job).get("rayClusterSpec") or {}
        groups = {"headgroup": (cluster.get("headGroupSpec") or {}).get("template") or {}}
        for group in cluster.get("workerGroupSpecs") or []:
            groups[group["groupName"]] = group["template"]
        return groups


def group_of(pod: Manifest) -> str:
    """The group of Ray's nodes that a pod is in."""
    return str((pod["metadata"].get("labels") or {}).get("ray.io/group", "submitter"))


def state_of(container: Manifest, kind: str) -> tuple[str, str]:
    """The reason and message of a container that is `waiting` or `terminated`; both empty where it is not."""
    state = (container.get("state") or {}).get(kind) or {}
    return str(state.get("reason") or ""), str(state.get("message") or "")


def _event(event: Manifest) -> tuple[str, str, str]:
    """An event's reason, object's name and message, of either API that has events."""
    about = event.get("involvedObject") or event.get("regarding") or {}
    return (
        str(event.get("reason", "")),
        str(about.get("name", "")),
        str(event.get("message") or event.get("note") or ""),
    )
