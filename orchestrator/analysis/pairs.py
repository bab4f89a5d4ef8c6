"""Two arms against each other."""

from __future__ import annotations

import dataclasses
import math

from orchestrator.analysis import inference
from orchestrator.analysis.arms import ArmSummary
from orchestrator.analysis.inference import Evidence, Interval, McNemar
from orchestrator.experiment.spec import describe_value
from orchestrator.planning.run_plan import stated

_FACTOR_NAMES = {"inputs": "preprocessing", "init": "initial distribution", "loss": "loss"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairComparison:
    """Two arms against each other."""

    first: str
    second: str
    differences: list[str]
    """Every factor besides the framework in which the arms differ, with both values."""
    same_framework: bool
    evidence: Evidence | None
    """Of the gap in test accuracy, the first minus the second; None where an arm has no result."""
    adjusted_p: float | None
    """The p-value, corrected for the number of pairs (Holm)."""
    mcnemar: McNemar | None
    """On the test images; None where predictions are missing."""
    margin: float
    log_speed: Interval | None
    """Of the natural logarithm of the ratio of images per second, the first over the second; Welch's over runs.
    None where an arm has no speed, or trained too shortly to be timed."""
    speed_doubt: str | None
    """Why the speeds are not compared, or why that says little, where either is known."""
    parity_failures: list[str]
    """For arms of two frameworks, where the frameworks do not do the same work on either arm's recipe."""

    @property
    def gap(self) -> Interval | None:
        """Of the evidence."""
        return None if self.evidence is None else self.evidence.gap

    @property
    def paired_seeds(self) -> list[int]:
        """Of the evidence."""
        return [] if self.evidence is None else self.evidence.paired_seeds

    @property
    def speed_ratio(self) -> float | None:
        """Images per second of the first over the second."""
        return None if self.log_speed is None else math.exp(self.log_speed.mean)

    @property
    def conclusive(self) -> bool:
        """Whether there is a gap, at 5 % over all pairs; without any spread, whether it is not zero."""
        gap = self.gap
        if gap is None or gap.low is None or gap.high is None:
            return False
        if self.adjusted_p is not None:
            return self.adjusted_p < inference.ALPHA
        return gap.low > 0 or gap.high < 0

    @property
    def equivalent(self) -> bool:
        """Whether the gap is proven to be smaller than the margin."""
        return (
            self.evidence is not None
            and self.evidence.equivalence_p is not None
            and self.evidence.equivalence_p < inference.ALPHA
        )


def times(log_ratio: float) -> str:
    """A ratio, as `1.20`, from its natural logarithm."""
    return f"{math.exp(log_ratio):.2f}"


def compare_pair(
    first: ArmSummary, second: ArmSummary, *, margin: float, mcnemar: McNemar | None = None
) -> PairComparison:
    """The gap between two arms, paired by seed where they share at least two."""
    weighed = inference.weigh(first.accuracies, second.accuracies, margin=margin)
    return PairComparison(
        first=first.name,
        second=second.name,
        differences=differing_factors(first, second),
        same_framework=first.framework == second.framework,
        evidence=weighed,
        adjusted_p=weighed.p_value if weighed else None,
        mcnemar=mcnemar,
        margin=margin,
        log_speed=inference.log_ratio(
            [*first.comparable_speeds.values()], [*second.comparable_speeds.values()]
        ),
        speed_doubt=_speed_doubt(first, second),
        parity_failures=[]
        if first.framework == second.framework
        else [
            f"{arm.name}: {arm.parity.differs_at}"
            for arm in (first, second)
            if arm.parity is not None and not arm.parity.agrees
        ],
    )


def _speed_doubt(*arms: ArmSummary) -> str | None:
    if any(arm.is_too_short_to_time for arm in arms):
        return "less than half a second of training is too little to time"
    if any(arm.is_crowded for arm in arms):
        return "other programs took CPU time of the machine, which does not slow all alike"
    return None


def differing_factors(first: ArmSummary, second: ArmSummary) -> list[str]:
    """Each factor besides the framework in which two arms differ, as `name (a / b)`."""
    one, two = stated(first.recipe), stated(second.recipe)
    factors = [
        f"{_FACTOR_NAMES.get(key, key.replace('_', ' '))} "
        f"({describe_value(first.recipe.get(key))} / {describe_value(second.recipe.get(key))})"
        for key in first.recipe | second.recipe
        if one.get(key) != two.get(key)
    ]
    if first.seeds != second.seeds:
        factors.append(f"seeds ({', '.join(map(str, first.seeds))} / {', '.join(map(str, second.seeds))})")
    return factors
