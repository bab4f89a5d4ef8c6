"""Which nodes of a Ray cluster the workers of a scale may run on. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchestrator.experiment.spec import Scale

_LISTED = re.compile(r"(!?)in\((.*)\)")


def suits(scale: Scale, *, resources: Mapping[str, float], labels: Mapping[str, str]) -> bool:
    """Whether a node has the accelerator and the labels that a scale asks for."""
    wanted = scale.accelerator_type
    if wanted is not None and accelerator_resource(wanted) not in resources:
        return False
    return all(_matches(labels.get(key), value) for key, value in (scale.label_selector or {}).items())


def accelerator_resource(accelerator_type: str) -> str:
    """The resource by which Ray marks the nodes with a type of accelerator."""
    return f"accelerator_type:{accelerator_type}"


def restriction(scale: Scale) -> str:
    """` on nodes with H100 and ray.io/market-type: on-demand`; empty if any node suits."""
    parts = [scale.accelerator_type] if scale.accelerator_type else []
    parts += [f"{key}: {value}" for key, value in (scale.label_selector or {}).items()]
    return f" on nodes with {' and '.join(parts)}" if parts else ""


def _matches(label: str | None, wanted: str) -> bool:
    """Whether a node's label, None where it has none, has a value that a selector of Ray's asks for."""
    if listed := _LISTED.fullmatch(wanted):
        negated, values = listed.groups()
        return (label in [value.strip() for value in values.split(",")]) != bool(negated)
    if wanted.startswith("!"):
        return label != wanted[1:]
    return label == wanted
