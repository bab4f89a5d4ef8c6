"""Parts of sentences: scores, intervals and what a verdict is based on."""

from __future__ import annotations

from orchestrator.analysis.arms import ArmSummary
from orchestrator.analysis.pairs import PairComparison
from orchestrator.analysis.statistics.inference import Interval
from orchestrator.analysis.statistics.metrics import Metric
from orchestrator.analysis.statistics.verdicts import Judgement
from orchestrator.analysis.wording import listed

_LISTED = 6


def pair_of(pairs: list[PairComparison], first: ArmSummary, second: ArmSummary) -> PairComparison:
    """The comparison of two arms."""
    return next(pair for pair in pairs if {*pair.names} == {first.name, second.name})


def ranked(arms: list[ArmSummary]) -> list[ArmSummary]:
    """Arms with a result, the best mean first."""
    return sorted(arms, key=lambda arm: -arm.metric.advantage(arm.score.mean) if arm.score else 0.0)


def seeds_of(arm: ArmSummary) -> int:
    """Finished seeds that have the metric."""
    return len(arm.scores.by_seed)


def scored(arm: ArmSummary) -> str:
    """An arm with its score."""
    assert arm.score is not None
    metric = arm.metric
    seeds = f"mean of {seeds_of(arm)} seeds" if seeds_of(arm) > 1 else "one seed"
    return f"{arm.name} scored {metric.value(arm.score.mean)}{metric.where} ({seeds})"


def means(ahead: ArmSummary, behind: ArmSummary) -> list[str]:
    """The scores of two arms."""
    assert ahead.score is not None and behind.score is not None
    return ahead.metric.values([ahead.score.mean, behind.score.mean])


def basis(pair: PairComparison) -> str:
    """What a verdict is based on."""
    first, second = pair.seeds
    seeds = f"{first} paired seeds" if pair.is_paired else f"{first} and {second} seeds"
    return f"over {seeds} and {pair.images:,} test images" if pair.images else f"over {seeds} alone"


def interval_of(judgement: Judgement, pair: PairComparison) -> str:
    """The interval of a gap, in a sentence."""
    return f"{together('95 %', judgement)} {ends(judgement.gap, judgement.gap.mean, pair.metric)}"


def equality(judgement: Judgement, pair: PairComparison) -> str:
    """The interval that a verdict of equality rests on."""
    return f"{together('90 %', judgement)} {ends(judgement.equality, judgement.gap.mean, pair.metric)}"


def together(level: str, judgement: Judgement) -> str:
    """The level that holds for all pairs together."""
    several = f" for {judgement.comparisons} comparisons together" if judgement.comparisons > 1 else ""
    return f"{level} interval{several}"


def ends(interval: Interval, direction: float, metric: Metric) -> str:
    """Both ends, of a gap that is positive in this direction; with signs where zero lies between them."""
    assert interval.low is not None and interval.high is not None
    ends = (interval.low, interval.high) if direction >= 0 else (-interval.high, -interval.low)
    signed = ends[0] <= 0 <= ends[1]
    return " to ".join(metric.difference(end, signed=signed) for end in ends)


def detectable(judgement: Judgement, pair: PairComparison) -> str:
    """The smallest gap that the experiment can detect."""
    if judgement.detectable is None or judgement.detectable > pair.metric.span:
        return ""
    images, gap = " and images" if pair.images else "", pair.metric.gap(judgement.detectable)
    return f" With these seeds{images}, a true gap of {gap} would be found with a power of 80 %."


def no_margin(metric: Metric) -> str:
    """What is said where a metric has no margin."""
    return " No margin is set, so it is not judged whether they are equal." if metric.margin is None else ""


def in_unit(metric: Metric) -> str:
    """The unit of a metric, as it follows a number."""
    return f"in{metric.gap_unit} " if metric.gap_unit else ""


def shortened(items: list[str]) -> str:
    """A list of which only the first entries are named."""
    if len(items) <= _LISTED:
        return listed(items)
    return f"{', '.join(items[:_LISTED])} and {len(items) - _LISTED} more"
