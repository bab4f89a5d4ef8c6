"""Whether an experiment's pods fit on the nodes and into the quotas, before it is submitted."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.clusters.interface import Finding
from orchestrator.clusters.kuberay.objects import Manifest, amount, spec_of, status_of
from orchestrator.experiment.kubernetes import Kubernetes, Pod, resources

_QUOTA_PREFIXES = ("requests.", "limits.", "")


def shortfalls(settings: Kubernetes, *, nodes: list[Manifest], quotas: list[Manifest]) -> list[Finding]:
    """Why the pods would not be scheduled. Nodes that an autoscaler might still add are not considered.

    Args:
        settings: the experiment's `kubernetes:` block.
        nodes: empty if the credentials cannot list them.
        quotas: of the namespace.
    """
    if settings.cluster is not None:
        return []
    return [*_on_nodes(settings, nodes), *_in_quotas(settings, quotas)]


def _on_nodes(settings: Kubernetes, nodes: list[Manifest]) -> Iterator[Finding]:
    pods: list[tuple[str, Pod]] = [("head", settings.head)]
    pods += [(group.name, group) for group in settings.workers if group.min > 0]
    for name, pod in pods if nodes else []:
        for resource, requested in resources(pod)["requests"].items():
            largest = max((_allocatable(node, resource) for node in nodes), key=amount)
            if amount(requested) > amount(largest):
                yield Finding(
                    "unschedulable-resources",
                    f"no node has room for a pod of {name}: {resource} {requested} requested, "
                    f"the largest node has {largest}",
                    f"lower it in kubernetes for {name}, or add nodes",
                )


def _allocatable(node: Manifest, resource: str) -> str:
    return str(status_of(node).get("allocatable", {}).get(resource, "0"))


def _in_quotas(settings: Kubernetes, quotas: list[Manifest]) -> Iterator[Finding]:
    needed: dict[str, float] = {}
    for count, pod in [(1, settings.head), *((group.min * group.hosts, group) for group in settings.workers)]:
        for resource, requested in resources(pod)["requests"].items():
            needed[resource] = needed.get(resource, 0) + count * amount(requested)
    for quota in quotas:
        spec = spec_of(quota)
        if spec.get("scopes") or spec.get("scopeSelector"):
            continue  # it counts some pods only; the API server decides which
        hard = status_of(quota).get("hard") or spec.get("hard", {})
        used = status_of(quota).get("used", {})
        for resource, required in needed.items():
            for limit in (prefix + resource for prefix in _QUOTA_PREFIXES):
                left = (
                    amount(str(hard[limit])) - amount(str(used.get(limit, "0")))
                    if limit in hard
                    else required
                )
                if required > left:
                    yield Finding(
                        "quota",
                        f"quota {quota['metadata']['name']} leaves {left:g} of {limit}, but the pods need {required:g}",
                        "lower kubernetes.workers, wait for other jobs, or ask for more",
                    )
                    break
