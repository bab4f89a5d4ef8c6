"""How much of the gap between two arms is each factor's: Shapley values over the recipes in between. Pure.

Two arms that differ in k factors span 2^k recipes. A factor's share of the gap is its Shapley value (Shapley, 1953):
what changing it adds, averaged over all orders in which the factors may be changed. The shares sum to the gap exactly,
whatever the interactions. Where 2^k recipes are too many, orders are sampled, forwards and backwards in turn.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from orchestrator.analysis.inference import Interval, mean_interval
from orchestrator.experiment.spec import Arm, Experiment
from trainers.errors import InputError
from trainers.recipes import Block

FACTORS: dict[str, tuple[str, ...]] = {
    "framework": ("framework",),
    "network": ("model", "whitening"),
    "initial weights": ("init",),
    "batch normalization": ("batch_norm", "sync_batch_norm"),
    "optimizer": ("optimizer", "schedule", "weight_average"),
    "batch size": ("batch_size",),
    "epochs": ("epochs", "early_stopping"),
    "preprocessing": ("inputs", "augmentation", "flip_averaging", "shift_averaging"),
    "loss": ("loss",),
    "precision": ("precision",),
    "execution": ("deterministic", "compile"),
}
"""The fields that each factor takes along."""

Choice = frozenset[str]
"""The factors that are as in the second arm; the others are as in the first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Which recipes are trained to tell the factors apart."""

    first: str
    second: str
    factors: list[str]
    orders: list[list[str]]
    """In which factors are changed from the first arm's to the second's; empty for every recipe."""
    choices: dict[str, Choice]
    """Each arm's name and what of it is as in the second arm."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, for the records."""
        return dataclasses.asdict(self) | {"choices": {arm: sorted(of) for arm, of in self.choices.items()}}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Plan:
        """From the records."""
        choices = {arm: frozenset(of) for arm, of in document["choices"].items()}
        return cls(**document | {"choices": choices})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Share:
    """A factor's part of the gap."""

    factor: str
    accuracy: Interval
    """Of the gap in test accuracy, first minus second; over seeds."""
    log_speed: Interval | None
    """Of the natural logarithm of the ratio of images per second."""

    @property
    def speed_ratio(self) -> float | None:
        """The factor by which this makes the first arm faster than the second."""
        return None if self.log_speed is None else math.exp(self.log_speed.mean)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attribution:
    """Where the gap between two arms comes from."""

    plan: Plan
    shares: list[Share]
    gap: Interval
    seeds: list[int]
    missing: list[str]
    """Arms that have no result yet, so that nothing can be said."""


def differing(first: Arm, second: Arm) -> dict[str, tuple[str, ...]]:
    """The factors in which two arms differ, with the fields that each takes along.

    A user's own model, optimizer or loss is of one framework, so that it goes with the framework.
    """
    factors = FACTORS
    own = [
        name
        for name, part in (("network", "model"), ("optimizer", "optimizer"), ("loss", "loss"))
        if any(_is_own(getattr(arm, part)) for arm in (first, second))
    ]
    if first.framework != second.framework and own:
        bound = ["framework", *own]
        together = {" and ".join(bound): tuple(field for name in bound for field in FACTORS[name])}
        factors = together | {name: FACTORS[name] for name in FACTORS if name not in bound}
    return {
        name: fields
        for name, fields in factors.items()
        if any(getattr(first, field) != getattr(second, field) for field in fields)
    }


def _is_own(part: str | Block) -> bool:
    return ":" in (part if isinstance(part, str) else str(getattr(part, "name", "")))


def expand(experiment: Experiment, *, most_recipes: int, seed: int = 0) -> tuple[Experiment, Plan]:
    """An experiment with every arm that the attribution needs.

    Args:
        experiment: with two arms.
        most_recipes: above which orders are sampled instead of training every recipe.
        seed: of the sampling.

    Raises:
        InputError: there are not two arms, they share no two seeds, or they do not differ.
    """
    if len(experiment.arms) != 2:
        raise InputError(
            f"attribution takes apart the gap between two arms, but there are {len(experiment.arms)}"
        )
    (first, one), (second, two) = experiment.arms.items()
    if one.seeds != two.seeds or len(one.seeds) < 2:
        raise InputError(
            f"attribution pairs its arms by seed: give {first} and {second} the same two seeds or more"
        )
    fields = differing(one, two)
    if not fields:
        raise InputError(f"{first} and {second} differ in nothing, so there is no gap to take apart")
    factors = list(fields)
    orders = [] if 2 ** len(factors) <= most_recipes else _sampled(factors, most_recipes, seed)
    chosen = _all(factors) if not orders else _along(orders)
    ordered = sorted(chosen, key=lambda choice: (len(choice), sorted(choice)))
    named = {_name(choice, first, second, factors): choice for choice in ordered}
    arms = {
        name: _crossed(one, two, [name for factor in choice for name in fields[factor]])
        for name, choice in named.items()
    }
    plan = Plan(first=first, second=second, factors=factors, orders=orders, choices=named)
    return experiment.model_copy(update={"arms": arms}), plan


def _all(factors: list[str]) -> set[Choice]:
    return {
        frozenset(choice)
        for size in range(len(factors) + 1)
        for choice in itertools.combinations(factors, size)
    }


def _along(orders: Iterable[list[str]]) -> set[Choice]:
    return {frozenset(order[:size]) for order in orders for size in range(len(order) + 1)}


def _sampled(factors: list[str], most_recipes: int, seed: int) -> list[list[str]]:
    """Orders and their reverses, as many as the number of recipes allows, two at least."""
    generator = random.Random(seed)
    orders: list[list[str]] = []
    while True:
        order = generator.sample(factors, len(factors))
        more = [*orders, order, order[::-1]]
        if orders and len(_along(more)) > most_recipes:
            return orders
        orders = more
        if len(orders) >= 2 * math.factorial(len(factors)):
            return orders


def _name(choice: Choice, first: str, second: str, factors: list[str]) -> str:
    if not choice:
        return first
    if len(choice) == len(factors):
        return second
    return "mix-" + "".join("1" if factor in choice else "0" for factor in factors)


def describe(plan: Plan, arm: str) -> str:
    """What a recipe in between has of the second arm; empty for the two arms themselves."""
    if arm in (plan.first, plan.second):
        return ""
    taken = [factor for factor in plan.factors if factor in plan.choices[arm]]
    return f"{plan.first} with {plan.second}'s {', '.join(taken)}"


def _crossed(first: Arm, second: Arm, fields: list[str]) -> Arm:
    """The first arm with some of the second's fields."""
    taken = {field: getattr(second, field) for field in fields}
    return Arm.model_validate(first.model_dump() | {k: _plain(v) for k, v in taken.items()})


def _plain(value: Any) -> Any:
    return value.model_dump() if hasattr(value, "model_dump") else value


def attribute(
    plan: Plan,
    accuracies: dict[str, dict[int, float]],
    speeds: dict[str, dict[int, float]],
) -> Attribution:
    """Share the gap out among the factors.

    Args:
        plan: from `expand`.
        accuracies: for each arm, test accuracy by seed.
        speeds: likewise, images per second; what is missing leaves the speed's shares out.
    """
    shared = set.intersection(*(set(accuracies.get(arm, {})) for arm in plan.choices))
    missing = [arm for arm in plan.choices if not accuracies.get(arm)]
    seeds = sorted(shared)
    by_choice = {choice: arm for arm, choice in plan.choices.items()}
    full = frozenset(plan.factors)
    if not seeds:
        return Attribution(plan=plan, shares=[], gap=Interval(math.nan), seeds=[], missing=missing)
    timed = all(set(seeds) <= set(speeds.get(arm, {})) for arm in plan.choices)
    shares = [
        Share(
            factor=factor,
            accuracy=_over_seeds(
                plan, factor, seeds, lambda choice, seed: accuracies[by_choice[choice]][seed]
            ),
            log_speed=_over_seeds(
                plan, factor, seeds, lambda choice, seed: math.log(speeds[by_choice[choice]][seed])
            )
            if timed
            else None,
        )
        for factor in plan.factors
    ]
    gaps = [accuracies[by_choice[frozenset()]][seed] - accuracies[by_choice[full]][seed] for seed in seeds]
    gap = mean_interval(gaps)
    assert gap is not None
    return Attribution(plan=plan, shares=shares, gap=gap, seeds=seeds, missing=missing)


def _over_seeds(plan: Plan, factor: str, seeds: list[int], value: Callable[[Choice, int], float]) -> Interval:
    """A factor's share with its interval over seeds, widened by the error of sampled orders."""
    by_order = np.array([_contributions(plan, factor, functools.partial(_at, value, seed)) for seed in seeds])
    weights = _weights(plan, factor)
    by_seed = by_order @ weights
    interval = mean_interval([float(share) for share in by_seed])
    assert interval is not None
    if not plan.orders or interval.low is None or interval.high is None:
        return interval
    # Sampled orders: their own standard error adds to that over seeds.
    spread = (
        np.std(by_order.mean(axis=0), ddof=1) / math.sqrt(len(plan.orders)) if len(plan.orders) > 1 else 0
    )
    half = math.hypot((interval.high - interval.low) / 2, 1.96 * float(spread))
    return Interval(interval.mean, interval.mean - half, interval.mean + half)


def _at(value: Callable[[Choice, int], float], seed: int, choice: Choice) -> float:
    return value(choice, seed)


def _contributions(plan: Plan, factor: str, value: Callable[[Choice], float]) -> list[float]:
    """What changing the factor costs, after each set of others, or in each sampled order."""
    return [value(before) - value(before | {factor}) for before in _befores(plan, factor)]


def _befores(plan: Plan, factor: str) -> list[Choice]:
    if plan.orders:
        return [frozenset(order[: order.index(factor)]) for order in plan.orders]
    others = [other for other in plan.factors if other != factor]
    return sorted(_all(others), key=lambda choice: (len(choice), sorted(choice)))


def _weights(plan: Plan, factor: str) -> np.ndarray:
    befores = _befores(plan, factor)
    if plan.orders:
        return np.full(len(befores), 1 / len(befores))
    count = len(plan.factors)
    return np.array(
        [math.factorial(len(b)) * math.factorial(count - len(b) - 1) / math.factorial(count) for b in befores]
    )


def sentence(found: Attribution) -> str:
    """What the attribution says, in plain words."""
    plan = found.plan
    if found.missing or not found.shares:
        open_recipes = f"{len(found.missing)} of {len(plan.choices)} recipes have no result"
        return f"The gap cannot be taken apart yet: {open_recipes}."
    parts = sorted(found.shares, key=lambda share: -abs(share.accuracy.mean))
    listed = ", ".join(f"{share.factor} {share.accuracy.mean * 100:+.2f}" for share in parts)
    text = (
        f"Of the {found.gap.mean * 100:+.2f} points between {plan.first} and {plan.second}, "
        f"by {len(found.seeds)} seeds each: {listed}."
    )
    framework = next((share for share in found.shares if share.factor == "framework"), None)
    if framework is not None:
        own = framework.accuracy
        if own.low is not None and own.high is not None:
            part = f"{own.mean * 100:+.2f} (95 % interval {own.low * 100:+.2f} to {own.high * 100:+.2f})"
            if own.low <= 0 <= own.high:
                text += f" What the framework itself adds, {part}, cannot be told from nothing"
            else:
                text += f" The framework itself adds {part}"
            text += "; the rest is the recipe's."
    return text
