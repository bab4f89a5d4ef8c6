"""Why a job on Kubernetes does not run or failed: rules over a snapshot of its objects, grouped by subject.

A rule is a function from a `Snapshot` to findings, without side effects; it belongs into the module of its subject
and into the list below. What needs a request to the API does not belong here.
"""

from __future__ import annotations

from orchestrator.clusters.interface import Finding
from orchestrator.clusters.kuberay.diagnosis import job, placement, pods
from orchestrator.clusters.kuberay.snapshot import Snapshot

_RULES = (
    job.access,
    job.validation,
    placement.queues,
    placement.suspension,
    placement.creation,
    placement.scheduling,
    pods.images,
    pods.start_failures,
    pods.losses,
    pods.mounts,
    job.driver_error,
    job.driver_loss,
    job.failure,
    job.operator,
)
"""From the most specific rule to the most general."""


def diagnose(snapshot: Snapshot) -> list[Finding]:
    """All findings, the most specific first; none if nothing is wrong."""
    return [finding for rule in _RULES for finding in rule(snapshot)]
