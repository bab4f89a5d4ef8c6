"""What parity found, as rows of text."""

from __future__ import annotations

from orchestrator.analysis.compare import Comparison
from orchestrator.analysis.parity import NamedDifference


def parities(comparison: Comparison) -> dict[str, list[str]]:
    """What parity found, and of which arms."""
    sentences: dict[str, list[str]] = {}
    for arm in comparison.arms:
        if arm.parity is not None:
            sentences.setdefault(arm.parity.sentence(), []).append(arm.name)
    return sentences


def named_differences(comparison: Comparison) -> list[dict[str, str]]:
    """The differences between the frameworks that parity named, a table's row each."""
    largest: dict[str, tuple[NamedDifference, list[str]]] = {}
    for arm in comparison.arms:
        for found in arm.parity.named if arm.parity is not None else []:
            most, arms = largest.get(found.name, (found, []))
            largest[found.name] = max(most, found, key=lambda each: each.share), [*arms, arm.name]
    return [
        {
            "difference": found.sentence,
            "formula": found.formula,
            "classes": found.source,
            "at most": f"{found.share * 100:.2g} % of an update ({found.weight}, step {found.step})",
            "arms": ", ".join(arms),
        }
        for found, arms in largest.values()
    ]
