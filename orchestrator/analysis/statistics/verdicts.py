"""Four verdicts on the gap between two arms, from one interval and the margin.

Of several comparisons, all intervals hold together with the stated confidence (Bonferroni; Dunn, 1961), so that an
interval, its p-value and its verdict never disagree. Equality is proven by two one-sided tests (Schuirmann, 1987): the
interval of 1 - 2 * alpha lies inside the margin.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Collection, Iterable, Sequence

from orchestrator.analysis.statistics.inference import ALPHA, LEAST_SEEDS, Estimate, Interval
from orchestrator.analysis.statistics.metrics import Metric


class Verdict(enum.StrEnum):
    """What is proven of two arms; which of them is ahead is the gap's sign."""

    BETTER_BY_MORE = "better_by_more_than_margin"
    """The whole interval lies beyond the margin."""
    BETTER = "better"
    """The interval leaves zero out, but not the margin."""
    EQUAL = "equal_within_margin"
    """The 90 % interval lies inside the margin."""
    UNDECIDED = "undecided"


class Obstacle(enum.StrEnum):
    """Why there is no interval, and with it no verdict."""

    FEW_SEEDS = "fewer than 3 seeds"
    NO_SPREAD = "no spread over seeds"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdict on a gap, with all that it rests on."""

    verdict: Verdict
    gap: Interval
    """The first arm minus the second; 95 %, together with all other comparisons."""
    equality: Interval
    """Likewise of 90 %: two arms are equal within the margin if it lies inside."""
    p_value: float | None
    """That there is no gap, two-sided, corrected for the number of comparisons."""
    comparisons: int
    detectable: float | None
    """The smallest true gap that would be told from zero with a power of 80 %."""
    obstacle: Obstacle | None
    is_below_margin: bool
    """Whether the 90 % interval lies inside the margin, so that the gap is proven to be smaller."""

    @property
    def is_decided(self) -> bool:
        """Whether anything is proven."""
        return self.verdict is not Verdict.UNDECIDED

    @property
    def tells_apart(self) -> bool:
        """Whether one of the two is proven to be ahead."""
        return self.verdict in (Verdict.BETTER, Verdict.BETTER_BY_MORE)


def judge(estimate: Estimate, *, seeds: tuple[int, int], metric: Metric, comparisons: int) -> Judgement:
    """The verdict on a gap between two arms.

    Args:
        estimate: of the gap.
        seeds: finished ones of either arm.
        metric: that the gap is in. Without a margin the size of a gap is not judged, and equality is never proven.
        comparisons: that are made together.
    """
    obstacle = None
    if min(seeds) < LEAST_SEEDS:
        obstacle = Obstacle.FEW_SEEDS
    elif not estimate.is_known:
        obstacle = Obstacle.NO_SPREAD
    if obstacle is not None:
        nothing = Interval(estimate.mean)
        return Judgement(
            verdict=Verdict.UNDECIDED,
            gap=nothing,
            equality=nothing,
            p_value=None,
            comparisons=comparisons,
            detectable=None,
            obstacle=obstacle,
            is_below_margin=False,
        )
    alpha = ALPHA / comparisons
    gap, equality = (
        estimate.interval(level).within(-metric.span, metric.span) for level in (alpha, 2 * alpha)
    )
    p_value, margin = estimate.p_value(), metric.margin
    is_below = margin is not None and _inside(equality, margin)
    if margin is not None and _beyond(gap, margin):
        verdict = Verdict.BETTER_BY_MORE
    elif _beyond(gap, 0):
        verdict = Verdict.BETTER
    else:
        verdict = Verdict.EQUAL if is_below else Verdict.UNDECIDED
    return Judgement(
        verdict=verdict,
        gap=gap,
        equality=equality,
        p_value=None if p_value is None else min(1.0, comparisons * p_value),
        comparisons=comparisons,
        detectable=estimate.detectable(alpha),
        obstacle=None,
        is_below_margin=is_below,
    )


def _beyond(interval: Interval, bound: float) -> bool:
    assert interval.low is not None and interval.high is not None
    return interval.low > bound or interval.high < -bound


def _inside(interval: Interval, margin: float) -> bool:
    assert interval.low is not None and interval.high is not None
    return -margin < interval.low and interval.high < margin


def groups(names: Sequence[str], told_apart: Iterable[Collection[str]]) -> list[list[str]]:
    """Groups of which no two members are told apart; an arm may be in several (Piepho, 2004: insert and absorb).

    Args:
        names: in the order in which groups and their members are listed.
        told_apart: pairs of names.
    """
    found: list[frozenset[str]] = [frozenset(names)]
    for pair in told_apart:
        split = [part for group in found for part in _without(group, pair)]
        found = [group for group in dict.fromkeys(split) if not any(group < other for other in split)]
    place = {name: number for number, name in enumerate(names)}
    listed = [sorted(group, key=place.__getitem__) for group in found]
    return sorted(listed, key=lambda group: [place[name] for name in group])


def _without(group: frozenset[str], pair: Collection[str]) -> list[frozenset[str]]:
    """The group, or its parts without either of a pair that it holds both of."""
    return [group - {name} for name in pair] if group >= set(pair) else [group]
