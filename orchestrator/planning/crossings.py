"""The recipes between two arms that an attribution trains. Pure.

Two arms that differ in k factors span 2^k recipes. All are trained if they are few. Otherwise a fraction of them is
trained that keeps single factors and pairs of factors apart (resolution V; Box and Hunter, 1961), or the recipes along
sampled orders of changing the factors, each order with its reverse, whichever are fewer.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Iterable
from typing import Any

from orchestrator.experiment.spec import Arm, Experiment
from trainers.errors import InputError
from trainers.recipes import Block

FACTORS: dict[str, tuple[str, ...]] = {
    "framework": ("framework", "find_unused_parameters"),
    "network": ("model", "whitening"),
    "initial weights": ("init",),
    "batch normalization": ("batch_norm", "sync_batch_norm"),
    "optimizer": ("optimizer", "schedule", "ema_decay"),
    "batch size": ("batch_size",),
    "epochs": ("epochs", "early_stopping"),
    "preprocessing": ("inputs", "augmentation", "test_time_augmentation"),
    "loss": ("loss",),
    "precision": ("precision",),
    "execution": ("deterministic", "compile"),
}
"""The fields that each factor takes along."""

Choice = frozenset[str]
"""The factors that are as in the second arm; the others are as in the first."""

LEAST_PAIRS = 3
"""Of sampled orders with their reverses, for an interval."""


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
    is_fraction: bool = False
    """Whether the recipes are a fraction of resolution V with both arms."""

    @property
    def pairs_of_orders(self) -> list[tuple[list[str], list[str]]]:
        """Each sampled order with its reverse."""
        return list(zip(self.orders[::2], self.orders[1::2], strict=False))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, for the records."""
        return dataclasses.asdict(self) | {"choices": {arm: sorted(of) for arm, of in self.choices.items()}}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Plan:
        """From the records."""
        choices = {arm: frozenset(of) for arm, of in document["choices"].items()}
        return cls(**document | {"choices": choices})


def differing(first: Arm, second: Arm) -> dict[str, tuple[str, ...]]:
    """The factors in which two arms differ, with the fields that each takes along.

    A user's own model, optimizer or loss is of one framework, so it goes with the framework.
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
    if experiment.train_loop_arms:
        raise InputError(
            f"attribution: arms.{next(iter(experiment.train_loop_arms))} has a training function of its own, of which "
            "tandem knows no parts; it takes apart the gap between built-in arms"
        )
    (first, one), (second, two) = experiment.recipe_arms.items()
    if one.seeds != two.seeds or len(one.seeds) < 2:
        raise InputError(
            f"attribution pairs its arms by seed: give {first} and {second} the same two seeds or more"
        )
    fields = differing(one, two)
    if not fields:
        raise InputError(f"{first} and {second} differ in nothing, so there is no gap to take apart")
    factors = list(fields)
    chosen, orders = _design(factors, most_recipes, seed)
    ordered = sorted(chosen, key=lambda choice: (len(choice), sorted(choice)))
    named = {_name(choice, first, second, factors): choice for choice in ordered}
    arms = {
        name: _crossed(one, two, [name for factor in choice for name in fields[factor]])
        for name, choice in named.items()
    }
    plan = Plan(
        first=first,
        second=second,
        factors=factors,
        orders=orders,
        choices=named,
        is_fraction=not orders and len(chosen) < 2 ** len(factors),
    )
    return experiment.model_copy(update={"arms": arms}), plan


def _design(factors: list[str], most_recipes: int, seed: int) -> tuple[set[Choice], list[list[str]]]:
    """The recipes to train, and the orders that they are along; no orders for all recipes or a fraction."""
    if 2 ** len(factors) <= most_recipes:
        return all_choices(factors), []
    part = fraction(factors)
    enough = along(sampled_orders(factors, most_recipes=0, seed=seed, least=LEAST_PAIRS))
    fits = 0 < len(part) <= most_recipes
    if fits and (len(part) <= len(enough) or len(enough) > most_recipes):
        return part, []
    orders = sampled_orders(factors, most_recipes, seed)
    return along(orders), orders


def fraction(factors: list[str]) -> set[Choice]:
    """Half of the recipes of five factors, of resolution V, and the two arms; empty for other numbers of factors.

    The last factor is as in the second arm where an even number of the others is (Box, Hunter and Hunter, 2005, table
    6.22). Fractions of more factors need more recipes than three pairs of orders.
    """
    if len(factors) != 5:
        return set()
    *others, last = factors
    half = {choice | {last} if len(choice) % 2 == 0 else choice for choice in all_choices(others)}
    return half | {frozenset(), frozenset(factors)}


def all_choices(factors: list[str]) -> set[Choice]:
    """Every set of factors."""
    return {
        frozenset(choice)
        for size in range(len(factors) + 1)
        for choice in itertools.combinations(factors, size)
    }


def along(orders: Iterable[list[str]]) -> set[Choice]:
    """The recipes that some orders pass through."""
    return {frozenset(order[:size]) for order in orders for size in range(len(order) + 1)}


def sampled_orders(factors: list[str], most_recipes: int, seed: int, *, least: int = 1) -> list[list[str]]:
    """Orders with their reverses, as many as the number of recipes allows and so many pairs at least."""
    generator = random.Random(seed)
    orders: list[list[str]] = []
    while True:
        order = generator.sample(factors, len(factors))
        more = [*orders, order, order[::-1]]
        if len(orders) >= 2 * least and len(along(more)) > most_recipes:
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
