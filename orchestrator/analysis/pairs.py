"""Arms against each other, two at a time."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from orchestrator.analysis.arms import ArmSummary
from orchestrator.analysis.performance import Performance
from orchestrator.analysis.statistics import inference, verdicts
from orchestrator.analysis.statistics.inference import ALPHA, Budget, Interval
from orchestrator.analysis.statistics.metrics import Metric
from orchestrator.analysis.statistics.verdicts import Judgement
from orchestrator.experiment.spec import describe_value
from orchestrator.planning.run_plan import stated
from orchestrator.store.storage import Record

_FACTOR_NAMES = {"inputs": "preprocessing", "init": "initial distribution", "loss": "loss"}
_LARGEST_LOG = 700.0
LEAST_GROUPS = 3
"""Of fresh processes on each side, for a verdict on speed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeedComparison:
    """How long two arms took: natural logarithms of ratios, the first arm over the second.

    An interval is over independent groups of processes; where runs share processes there is none.
    """

    end: Interval | None
    """Of the seconds from a cold start to the end of the test."""
    target: Interval | None
    """Of those to the target accuracy; None unless every run reached it."""
    rate: Interval | None
    """Of images per second once warm; None where an arm trained too shortly to be timed."""
    groups: tuple[int, int] | None
    """Fresh groups of processes on either side; None where runs shared them, so that there is no verdict."""
    doubt: str | None
    """Why the figures say little, where that is known."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairComparison:
    """Two arms against each other."""

    first: str
    second: str
    differences: list[str]
    """Every factor besides the framework in which the arms differ, with both values."""
    same_framework: bool
    same_code: bool
    """Whether the recipes say all that differs: not with a training function, unless both arms are the same one."""
    judgement: Judgement | None
    """On the gap in the metric, the first minus the second; None where an arm has no result."""
    budget: Budget | None
    """What the gap's variance is made of."""
    seeds: tuple[int, int]
    """Finished ones of either arm that have the metric."""
    is_paired: bool
    """Whether both have the same seeds, so that they are paired."""
    images: int | None
    """Test images that the interval is over as well; None where it is over seeds alone."""
    discordant: tuple[float, float] | None
    """Images that only the first and only the second arm classifies correctly, mean over seeds."""
    same_predictions: bool
    """Whether both gave the same prediction for every test image with every seed."""
    balanced_gap: float | None
    """The gap in balanced accuracy."""
    metric: Metric
    speed: SpeedComparison | None
    parity_failures: list[str]
    """For arms of two frameworks, where the frameworks do not do the same work on either arm's recipe."""
    is_same_work: bool
    """Whether parity found the same work without named differences, and the arms differ in nothing else."""

    @property
    def names(self) -> tuple[str, str]:
        """Of both arms."""
        return self.first, self.second

    @property
    def ahead(self) -> str | None:
        """The arm that is proven to be better, if one is."""
        if self.judgement is None or not self.judgement.tells_apart:
            return None
        return self.leader

    @property
    def leader(self) -> str:
        """The arm with the better mean; the first of two that are alike."""
        gap = 0.0 if self.judgement is None else self.judgement.gap.mean
        return self.first if self.metric.advantage(gap) >= 0 else self.second


def times(log_ratio: float) -> str:
    """A ratio, as `1.20`, from its natural logarithm."""
    ratio = math.exp(min(log_ratio, _LARGEST_LOG))
    return f"{ratio:.2f}" if 0.01 <= ratio < 1000 else f"{ratio:.2g}"


def compare(
    arms: Sequence[ArmSummary],
    *,
    predicted: dict[str, np.ndarray],
    performance: Performance | None,
    baseline: str | None = None,
) -> list[PairComparison]:
    """Every two arms, or each with the baseline; all verdicts hold together.

    Args:
        arms: in their order.
        predicted: of each arm with all of its predictions, int [finished seeds, n].
        performance: what the arms took, if that is compared.
        baseline: the arm that the others are compared with, and not with each other.
    """
    if baseline is None:
        chosen = list(itertools.combinations(arms, 2))
    else:
        base = next(arm for arm in arms if arm.name == baseline)
        chosen = [(arm, base) for arm in arms if arm is not base]
    return compare_pairs(chosen, predicted=predicted, performance=performance)


def compare_pairs(
    chosen: Sequence[tuple[ArmSummary, ArmSummary]],
    *,
    predicted: dict[str, np.ndarray],
    performance: Performance | None,
) -> list[PairComparison]:
    """Some pairs of arms; their verdicts hold together, those without enough seeds apart."""
    judged = [
        pair for pair in chosen if min(len(arm.scores.by_seed) for arm in pair) >= inference.LEAST_SEEDS
    ]
    return [
        _compare(
            first,
            second,
            predicted=predicted,
            performance=performance,
            comparisons=max(len(judged), 1),
        )
        for first, second in chosen
    ]


def _compare(
    first: ArmSummary,
    second: ArmSummary,
    *,
    predicted: dict[str, np.ndarray],
    performance: Performance | None,
    comparisons: int,
) -> PairComparison:
    estimate = inference.gap(first.scores, second.scores)
    seeds = len(first.scores.by_seed), len(second.scores.by_seed)
    differences = differing_factors(first, second)
    same_code = first.recipe.get("train_loop") == second.recipe.get("train_loop")
    both = [arm.parity for arm in (first, second) if arm.parity is not None]
    is_paired = first.scores.by_seed.keys() == second.scores.by_seed.keys()
    has_images = estimate is not None and estimate.budget.images is not None
    balanced = [arm.mean("balanced_accuracy") for arm in (first, second)]
    return PairComparison(
        first=first.name,
        second=second.name,
        differences=differences,
        same_framework=first.framework == second.framework and same_code,
        same_code=same_code,
        judgement=None
        if estimate is None
        else verdicts.judge(estimate, seeds=seeds, metric=first.metric, comparisons=comparisons),
        budget=None if estimate is None else estimate.budget,
        seeds=seeds,
        is_paired=is_paired,
        images=first.right.shape[1] if has_images and first.right is not None else None,
        discordant=_discordant(first, second),
        same_predictions=is_paired and _same_predictions(first, second, predicted),
        balanced_gap=None if balanced[0] is None or balanced[1] is None else balanced[0] - balanced[1],
        metric=first.metric,
        speed=None if performance is None else compare_speed(first, second, performance, comparisons),
        parity_failures=[]
        if first.framework == second.framework or not same_code
        else [
            f"{arm.name}: {arm.parity.differs_at}"
            for arm in (first, second)
            if arm.parity is not None and not arm.parity.agrees
        ],
        is_same_work=not differences
        and same_code
        and first.framework != second.framework
        and len(both) == 2
        and all(parity.verdict == "same work" for parity in both),
    )


def _discordant(first: ArmSummary, second: ArmSummary) -> tuple[float, float] | None:
    """Images that only one of two arms classifies correctly, mean over seeds; their difference is the gap."""
    one, two = first.right, second.right
    if one is None or two is None or one.shape[1] != two.shape[1] or first.examples != second.examples:
        return None
    order = _order(first, second)
    if order is not None:
        two = two[order]
        return float((one & ~two).sum() / len(one)), float((two & ~one).sum() / len(one))
    share, other = one.mean(axis=0), two.mean(axis=0)
    return float((share * (1 - other)).sum()), float((other * (1 - share)).sum())


def _same_predictions(first: ArmSummary, second: ArmSummary, predicted: dict[str, np.ndarray]) -> bool:
    one, two = predicted.get(first.name), predicted.get(second.name)
    order = _order(first, second)
    if one is None or two is None or order is None or first.examples != second.examples:
        return False
    return bool(np.array_equal(one, two[order]))


def _order(first: ArmSummary, second: ArmSummary) -> list[int] | None:
    """The places of the first arm's finished seeds among the second's; None where both do not have the same."""
    seeds, others = ([run.seed for run in arm.done] for arm in (first, second))
    return [others.index(seed) for seed in seeds] if {*seeds} == {*others} else None


def compare_speed(
    first: ArmSummary, second: ArmSummary, performance: Performance, comparisons: int
) -> SpeedComparison | None:
    """How long two arms took; None where one has no finished run."""
    one, two = performance.times[first.name], performance.times[second.name]
    if not one.end or not two.end:
        return None
    groups = (len(one.end), len(two.end)) if performance.is_apart else None
    alpha = None if groups is None or min(groups) < LEAST_GROUPS else ALPHA / comparisons
    return SpeedComparison(
        end=inference.log_ratio(one.end, two.end, alpha=alpha),
        target=inference.log_ratio(one.target, two.target, alpha=alpha),
        rate=inference.log_ratio(
            [*first.comparable_speeds.values()], [*second.comparable_speeds.values()], alpha=alpha
        ),
        groups=groups if alpha is not None else None,
        doubt=_speed_doubt(first, second),
    )


def _speed_doubt(*arms: ArmSummary) -> str | None:
    if any(arm.is_too_short_to_time for arm in arms):
        return "less than half a second of training is too little to time"
    if any(arm.is_crowded for arm in arms):
        return "other programs took CPU time of the machine, which does not slow all alike"
    return None


def differing_factors(first: ArmSummary, second: ArmSummary) -> list[str]:
    """Each factor besides the framework in which two arms differ, as `name (a / b)`; of a config each of its keys."""
    if first.is_own != second.is_own:
        return []
    recipes = [_flat(arm.recipe) for arm in (first, second)]
    one, two = recipes if first.is_own else [stated(recipe) for recipe in recipes]
    factors = [
        f"{_FACTOR_NAMES.get(key, key.replace('_', ' '))} "
        f"({describe_value(recipes[0].get(key))} / {describe_value(recipes[1].get(key))})"
        for key in recipes[0] | recipes[1]
        if one.get(key) != two.get(key)
    ]
    if first.seeds != second.seeds:
        factors.append(f"seeds ({', '.join(map(str, first.seeds))} / {', '.join(map(str, second.seeds))})")
    return factors


def _flat(recipe: Record) -> Record:
    """A recipe with the keys of a training function's config as fields of their own."""
    config = recipe.get("config")
    if not isinstance(config, dict):
        return recipe
    return {name: value for name, value in recipe.items() if name != "config"} | {
        f"config.{name}": value for name, value in config.items()
    }
