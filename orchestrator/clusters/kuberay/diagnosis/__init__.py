"""Why a job on Kubernetes does not run or failed: rules over a snapshot of its objects, grouped by subject.

A rule is a function from a `Snapshot` to findings, without side effects; it belongs into the module of its subject
and into the list below. What needs a request to the API does not belong here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from orchestrator.clusters.interface import Finding
from orchestrator.clusters.kuberay.diagnosis import job, placement, pods
from orchestrator.clusters.kuberay.snapshot import Snapshot

Rule = Callable[[Snapshot], Iterator[Finding]]

_WAITING: tuple[Rule, ...] = (
    job.access,
    job.validation,
    placement.queues,
    placement.suspension,
    placement.creation,
    placement.scheduling,
    job.driver_loss,
    pods.images,
    pods.containers,
    pods.losses,
    pods.mounts,
    job.operator,
)
_NEVER_STARTED: tuple[Rule, ...] = (
    placement.creation,
    placement.scheduling,
    pods.images,
    pods.containers,
    pods.mounts,
    job.failure,
)
_FAILED: tuple[Rule, ...] = (job.driver_error, pods.memory, job.failure)
"""Each list is sorted from the most specific rule to the most general."""


def diagnose(snapshot: Snapshot) -> list[Finding]:
    """All present causes, the most specific first; none if nothing is wrong.

    A job that has failed is explained by its own error; what its pods once waited for is not a cause any more.
    """
    found = [finding for rule in _rules(snapshot) for finding in rule(snapshot)]
    if not found and not _has_ended(snapshot):
        found = [*pods.unready(snapshot)]
    return _each_once(found)


def _rules(snapshot: Snapshot) -> tuple[Rule, ...]:
    if snapshot.deployment == "Complete":
        return ()
    if snapshot.deployment == "ValidationFailed":
        return (job.validation,)
    if snapshot.deployment == "Failed":
        return _NEVER_STARTED if job.never_started(snapshot) else _FAILED
    return _WAITING


def _has_ended(snapshot: Snapshot) -> bool:
    return snapshot.deployment in ("Complete", "ValidationFailed", "Failed")


def _each_once(findings: list[Finding]) -> list[Finding]:
    """Equal findings as one, with their number."""
    found: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        key = finding.cause, finding.sentence
        earlier = found.get(key)
        found[key] = finding if earlier is None else dataclasses.replace(earlier, count=earlier.count + 1)
    return list(found.values())
