"""How much each factor contributes to the gap between two arms: Shapley values over the recipes in between. Pure.

Two arms that differ in k factors span 2^k recipes. A factor's share of the gap is its Shapley value (Shapley, 1953):
what changing it adds, averaged over all orders in which the factors may be changed. The shares sum to the gap exactly,
whatever the interactions. `crossings` chooses the recipes where 2^k are too many. Every share and interaction is a
contrast: a weighted sum over recipes.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping

import numpy as np

from orchestrator.analysis.statistics import inference
from orchestrator.analysis.statistics.inference import ALPHA, LEAST_SEEDS, Estimate, Interval, Scores
from orchestrator.analysis.statistics.metrics import Metric
from orchestrator.planning.crossings import LEAST_PAIRS, Choice, Plan, all_choices


@dataclasses.dataclass(frozen=True, kw_only=True)
class Share:
    """A factor's part of the gap."""

    factor: str
    score: Interval
    """Of the gap in the metric, first minus second; 95 % for all factors together."""
    log_speed: Interval | None
    """Of the natural logarithm of the ratio of images per second."""

    @property
    def speed_ratio(self) -> float | None:
        """The factor by which this makes the first arm faster than the second."""
        return None if self.log_speed is None else math.exp(self.log_speed.mean)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interaction:
    """What two factors do together beyond what each does by itself."""

    factors: tuple[str, str]
    score: Interval
    """By how much more one costs when the other is changed as well (Grabisch and Roubens, 1999); 95 % together."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attribution:
    """Where the gap between two arms comes from."""

    plan: Plan
    metric: Metric
    """That the gap is in."""
    shares: list[Share]
    interactions: list[Interaction]
    """Of every two factors, the largest first; empty for sampled orders."""
    remainder: float
    """What the shares do not sum to: interactions of three factors and more, in a fraction; else 0."""
    gap: Interval
    seeds: list[int]
    missing: list[str]
    """Arms that have no result yet, so that nothing can be said."""


def attribute(
    plan: Plan, metric: Metric, scores: Mapping[str, Scores], speeds: Mapping[str, Mapping[int, float]]
) -> Attribution:
    """Share the gap out among the factors.

    Args:
        plan: from `expand`.
        metric: that the gap is in.
        scores: of each arm, by that metric.
        speeds: for each arm, images per second by seed; what is missing leaves the speed's shares out.
    """
    known = {arm: scores[arm] for arm in plan.choices if arm in scores and scores[arm].by_seed}
    missing = [arm for arm in plan.choices if arm not in known]
    seeds = sorted(set.intersection(*({*found.by_seed} for found in known.values()))) if not missing else []
    if not seeds:
        return Attribution(
            plan=plan,
            metric=metric,
            shares=[],
            interactions=[],
            remainder=0.0,
            gap=Interval(math.nan),
            seeds=[],
            missing=missing,
        )
    recipes = _Recipes(plan, known, seeds)
    timed = all(speeds.get(arm, {}).get(seed, 0) > 0 for arm in plan.choices for seed in seeds)
    logs = (
        np.array([np.mean([math.log(speeds[arm][seed]) for seed in seeds]) for arm in plan.choices])
        if timed
        else None
    )
    weights = contrasts(plan)
    shares = [
        Share(
            factor=factor,
            score=recipes.share(factor, weights[factor]),
            log_speed=None if logs is None else Interval(float(weights[factor] @ logs)),
        )
        for factor in plan.factors
    ]
    between = _interactions(plan)
    interactions = [
        Interaction(factors=factors, score=recipes.interval(contrast, together=len(between)))
        for factors, contrast in between.items()
    ]
    ends = np.array([(not choice) - (len(choice) == len(plan.factors)) for choice in plan.choices.values()])
    gap = recipes.interval(ends, together=1)
    remainder = gap.mean - sum(share.score.mean for share in shares) if plan.is_fraction else 0.0
    return Attribution(
        plan=plan,
        metric=metric,
        shares=shares,
        interactions=sorted(interactions, key=lambda found: -abs(found.score.mean)),
        remainder=remainder,
        gap=gap,
        seeds=seeds,
        missing=missing,
    )


class _Recipes:
    """The results of a plan's recipes with the seeds that all of them have."""

    def __init__(self, plan: Plan, scores: Mapping[str, Scores], seeds: list[int]) -> None:
        self._plan = plan
        self._seeds = seeds
        self._by_seed = np.array([[scores[arm].by_seed[seed] for seed in seeds] for arm in plan.choices])
        self._overlap = max(scores[arm].overlap for arm in plan.choices)
        self._items = _stacked([_rows(scores[arm], seeds) for arm in plan.choices])

    def estimate(self, contrast: np.ndarray) -> Estimate:
        """A weighted sum over recipes, over seeds and images where the values of single images are known."""
        if self._items is not None:
            return inference.crossed(np.tensordot(contrast, self._items, axes=1))
        by_seed = contrast @ self._by_seed
        zero = dict.fromkeys(self._seeds, 0.0)
        sums = dict(zip(self._seeds, map(float, by_seed), strict=True))
        found = inference.gap(Scores(sums, overlap=self._overlap), Scores(zero))
        assert found is not None
        return found

    def interval(self, contrast: np.ndarray, *, together: int) -> Interval:
        """A weighted sum with its interval, which holds together with so many others; no ends with few seeds."""
        found = self.estimate(contrast)
        return self._bounded(found, together)

    def share(self, factor: str, contrast: np.ndarray) -> Interval:
        """A factor's share; with sampled orders, means of an order and its reverse vary as a further factor."""
        found = self.estimate(contrast)
        pairs = self._plan.pairs_of_orders
        if self._plan.orders:
            if len(pairs) < LEAST_PAIRS:
                return Interval(found.mean)
            by_recipe = self._by_seed.mean(axis=1)
            means = [_along_orders(self._plan, factor, pair) @ by_recipe for pair in pairs]
            found = inference.widened(found, means)
        return self._bounded(found, len(self._plan.factors))

    def _bounded(self, found: Estimate, together: int) -> Interval:
        return Interval(found.mean) if len(self._seeds) < LEAST_SEEDS else found.interval(ALPHA / together)


def _rows(scores: Scores, seeds: list[int]) -> np.ndarray | None:
    if scores.items is None:
        return None
    return scores.items[[list(scores.by_seed).index(seed) for seed in seeds]]


def _stacked(items: list[np.ndarray | None]) -> np.ndarray | None:
    known = [item for item in items if item is not None]
    if len(known) < len(items) or len({item.shape for item in known}) != 1 or known[0].shape[1] < 2:
        return None
    return np.stack(known)


def contrasts(plan: Plan) -> dict[str, np.ndarray]:
    """For each factor, the weights of the recipes in its share."""
    if plan.is_fraction:
        model = _fitted(plan)
        return {factor: -2 * model[1 + place] for place, factor in enumerate(plan.factors)}
    if plan.orders:
        return {factor: _along_orders(plan, factor, plan.orders) for factor in plan.factors}
    count = len(plan.factors)
    return {
        factor: _differences(
            plan,
            {
                before: math.factorial(len(before))
                * math.factorial(count - len(before) - 1)
                / math.factorial(count)
                for before in all_choices([other for other in plan.factors if other != factor])
            },
            [factor],
        )
        for factor in plan.factors
    }


def _interactions(plan: Plan) -> dict[tuple[str, str], np.ndarray]:
    """For every two factors, the weights of the recipes in their interaction."""
    pairs = list(itertools.combinations(plan.factors, 2))
    if plan.orders:
        return {}
    if plan.is_fraction:
        model = _fitted(plan)[1 + len(plan.factors) :]
        return {pair: -4 * weights for pair, weights in zip(pairs, model, strict=True)}
    count = len(plan.factors)
    return {
        pair: _differences(
            plan,
            {
                before: math.factorial(len(before))
                * math.factorial(count - len(before) - 2)
                / math.factorial(count - 1)
                for before in all_choices([other for other in plan.factors if other not in pair])
            },
            pair,
        )
        for pair in pairs
    }


def _differences(plan: Plan, befores: Mapping[Choice, float], changed: Iterable[str]) -> np.ndarray:
    """Weights of what changing some factors one after the other adds, after each of some choices."""
    place = {choice: number for number, choice in enumerate(plan.choices.values())}
    factors = list(changed)
    weights = np.zeros(len(place))
    for before, weight in befores.items():
        for size in range(len(factors) + 1):
            for taken in itertools.combinations(factors, size):
                # v(S) - v(S+f) for one factor; [v(S+g) - v(S+f+g)] - [v(S) - v(S+f)] for two.
                sign = (-1) ** (size + len(factors) - 1)
                weights[place[before | {*taken}]] += sign * weight
    return weights


def _along_orders(plan: Plan, factor: str, orders: Iterable[list[str]]) -> np.ndarray:
    """Weights of what changing a factor adds, averaged over some orders."""
    chosen = [*orders]
    befores: dict[Choice, float] = {}
    for order in chosen:
        before = frozenset(order[: order.index(factor)])
        befores[before] = befores.get(before, 0.0) + 1 / len(chosen)
    return _differences(plan, befores, [factor])


def _fitted(plan: Plan) -> np.ndarray:
    """Weights of the recipes in each coefficient of a model with single factors and pairs, by least squares.

    Factors are coded -1 as in the first arm and 1 as in the second. In such a model a factor's Shapley value is twice
    its coefficient, since each interaction adds in one half of the orders what it takes in the other.
    """
    codes = np.array([[1 if f in choice else -1 for f in plan.factors] for choice in plan.choices.values()])
    products = [codes[:, a] * codes[:, b] for a, b in itertools.combinations(range(codes.shape[1]), 2)]
    design = np.column_stack([np.ones(len(codes)), codes, *products])
    return np.asarray(np.linalg.pinv(design))


def sentence(found: Attribution) -> str:
    """What the attribution says, in plain words."""
    plan, metric = found.plan, found.metric
    if found.missing or not found.shares:
        open_recipes = f"{len(found.missing)} of {len(plan.choices)} recipes have no result"
        return f"The gap cannot be taken apart yet: {open_recipes}."
    parts = sorted(found.shares, key=lambda share: -abs(share.score.mean))
    listed = ", ".join(f"{share.factor} {_signed(metric, share.score.mean)}" for share in parts)
    rest = (
        f", interactions of three factors and more {_signed(metric, found.remainder)}"
        if plan.is_fraction
        else ""
    )
    text = (
        f"Of the {_signed(metric, found.gap.mean)}{metric.gap_unit} between {plan.first} and {plan.second}, "
        f"with {len(found.seeds)} seeds each: {listed}{rest}."
    )
    framework = next((share for share in found.shares if share.factor == "framework"), None)
    if framework is not None:
        own = framework.score
        if own.low is not None and own.high is not None:
            ends = f"{_signed(metric, own.low)} to {_signed(metric, own.high)}"
            part = f"{_signed(metric, own.mean)} (95 % interval for all factors together {ends})"
            if own.low <= 0 <= own.high:
                text += f" The framework's own share, {part}, cannot be told from zero"
            else:
                text += f" The framework's own share is {part}"
            text += "; the rest is the recipe's."
        else:
            text += f" There is no interval: it needs {LEAST_SEEDS} seeds and {LEAST_PAIRS} pairs of sampled orders."
    return text


def _signed(metric: Metric, difference: float) -> str:
    return metric.difference(difference, signed=True)
