"""Objects of Kubernetes as its API gives them: plain dictionaries, read with a few functions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

Manifest = dict[str, Any]


def spec_of(manifest: Manifest | None) -> Manifest:
    """An object's specification; empty without one, or without an object."""
    return (manifest or {}).get("spec") or {}


def status_of(manifest: Manifest | None) -> Manifest:
    """An object's status; empty without one, or without an object."""
    return (manifest or {}).get("status") or {}


def annotations_of(manifest: Manifest) -> dict[str, str]:
    """An object's annotations."""
    return manifest["metadata"].get("annotations") or {}


def seconds_of(timestamp: str | None) -> float | None:
    """A timestamp of the API as seconds since the epoch."""
    return datetime.fromisoformat(timestamp).timestamp() if timestamp else None


def amount(quantity: str) -> float:
    """A quantity as a number: `500m` is 0.5."""
    from kubernetes.utils.quantity import parse_quantity

    return float(parse_quantity(quantity))


def group_of(pod: Manifest) -> str:
    """The group of Ray nodes that a pod belongs to."""
    return str((pod["metadata"].get("labels") or {}).get("ray.io/group", "submitter"))


def state_of(container: Manifest, kind: str) -> tuple[str, str]:
    """The reason and message of a container that is `waiting` or `terminated`; both empty if it is not."""
    state = (container.get("state") or {}).get(kind) or {}
    return str(state.get("reason") or ""), str(state.get("message") or "")


def condition_of(manifest: Manifest | None, type_: str) -> Manifest:
    """An object's condition of a type; empty without one."""
    conditions = status_of(manifest).get("conditions") or []
    return next((condition for condition in conditions if condition["type"] == type_), {})


def ready_since(manifest: Manifest) -> float | None:
    """Since when a pod or a node is ready, in seconds since the epoch; None if it is not."""
    condition = condition_of(manifest, "Ready")
    if condition.get("status") != "True":
        return None
    return seconds_of(condition.get("lastTransitionTime")) or 0.0


def is_terminating(manifest: Manifest) -> bool:
    """Whether an object is being deleted; its pod may still be reported as Running."""
    return "deletionTimestamp" in manifest["metadata"]
