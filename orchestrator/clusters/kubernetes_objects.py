"""Kubernetes' objects as its API gives them: plain dictionaries."""

from __future__ import annotations

from datetime import datetime
from typing import Any

Manifest = dict[str, Any]


def spec_of(manifest: Manifest | None) -> Manifest:
    """What an object is to be; empty where it does not say, or there is no object."""
    return (manifest or {}).get("spec") or {}


def status_of(manifest: Manifest | None) -> Manifest:
    """An object's status; empty where it has none yet, or there is no object."""
    return (manifest or {}).get("status") or {}


def seconds_of(timestamp: str | None) -> float | None:
    """A timestamp of the API as seconds since the epoch."""
    return datetime.fromisoformat(timestamp).timestamp() if timestamp else None


def amount(quantity: str) -> float:
    """A Kubernetes quantity as a number, such as 0.5 of `500m`."""
    from kubernetes.utils.quantity import parse_quantity

    return float(parse_quantity(quantity))
