"""From a space to the recipes of trials: drawing parameters, conditions, constraints, checks. Pure."""

from __future__ import annotations

import json
import typing
import warnings
from collections.abc import Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from orchestrator.experiment.expressions import Expression
from orchestrator.experiment.sweep import FIXED_IN_PBT, Parameter, Params, Space, Sweep
from trainers.recipes import RECIPE_TAGS, Recipe

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

_DRAWS = 200


def propose(trial: BaseTrial, recipe: Recipe, space: Space) -> Params:
    """Let a sampler choose a value for every parameter whose condition holds, in the file's order.

    Args:
        trial: of Optuna, whose sampler chooses.
        recipe: of the arm; conditions see its fields as well.
        space: of the arm.
    """
    params: Params = {}
    document = recipe.model_dump(mode="json")
    for name, parameter in space.items():
        if parameter.when is None or Expression(parameter.when)(flatten(document)):
            params[name] = _suggest(trial, name, parameter)
            assign(document, name, params[name])
    return params


def _suggest(trial: BaseTrial, name: str, parameter: Parameter) -> Any:
    if parameter.choice is not None:
        labels = [label(value) for value in parameter.choice]
        return parameter.choice[labels.index(trial.suggest_categorical(name, labels))]
    low, high = parameter.bounds
    if parameter.integer is not None:
        step = int(parameter.step or 1)
        return trial.suggest_int(name, int(low), int(high), step=step, log=parameter.log)
    return trial.suggest_float(name, low, high, step=parameter.step, log=parameter.loguniform is not None)


def grid(recipe: Recipe, space: Space) -> Iterator[Params]:
    """Every combination of a finite space, conditions respected, the last parameter moving fastest."""

    def below(names: list[str], params: Params) -> Iterator[Params]:
        if not names:
            yield params
            return
        name, *rest = names
        parameter = space[name]
        document = recipe.model_dump(mode="json")
        for chosen, value in params.items():
            assign(document, chosen, value)
        if parameter.when is not None and not Expression(parameter.when)(flatten(document)):
            yield from below(rest, params)
            return
        for value in parameter.values:
            yield from below(rest, params | {name: value})

    return below(list(space), {})


def label(value: Any) -> Any:
    """A choice as Optuna's storages hold it: mappings and lists as JSON."""
    return json.dumps(value) if isinstance(value, dict | list) else value


def assign(document: dict[str, Any], name: str, value: Any) -> None:
    """Set a field of a recipe's document by its dotted name.

    Another optimizer or schedule starts from its own defaults.
    """
    *blocks, field = name.split(".")
    for block in blocks:
        if not isinstance(document.get(block), dict):
            document[block] = {}
        document = document[block]
    if field == "name" and document.get("name") != value:
        document.clear()
    document[field] = value


def flatten(document: dict[str, Any]) -> dict[str, Any]:
    """Every field of a recipe's document by its dotted name."""
    flat: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{below}": entry for below, entry in flatten(value).items()}
        else:
            flat[name] = value
    return flat


def recipe_with(recipe: Recipe, params: Params) -> Recipe:
    """A recipe with some fields replaced.

    Raises:
        ValueError: a sentence about what does not fit together.
    """
    document = recipe.model_dump(mode="json")
    for name, value in params.items():
        assign(document, name, value)
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        problem = error.errors()[0]
        given = ", ".join(f"{name}={value}" for name, value in params.items())
        field = ".".join(str(step) for step in problem["loc"] if step not in RECIPE_TAGS)
        what = "does not exist there" if problem["type"] == "extra_forbidden" else problem["msg"]
        raise ValueError(f"{field} with {given}: {what.removeprefix('Value error, ')}") from error


def allows(constraints: list[str], recipe: Recipe) -> bool:
    """Whether a recipe meets every constraint that speaks of fields it has."""
    values = flatten(recipe.model_dump(mode="json"))
    parsed = [Expression(constraint) for constraint in constraints]
    return all(constraint(values) for constraint in parsed if constraint.names <= values.keys())


def check(arm: str, recipe: Recipe, sweep: Sweep) -> list[Recipe]:
    """Find out before anything starts whether an arm's space makes sense; returns recipes drawn from it.

    Raises:
        ValueError: one sentence: an unknown parameter, values that do not fit, a constraint that
            cannot be met, a condition on something unknown or chosen later.
    """
    space = sweep.space_of(arm)
    if not space:
        raise ValueError(
            f"sweep.space: arm {arm} has nothing to search; give a parameter such as "
            "optimizer.learning_rate: {loguniform: [1e-4, 1e-1]}"
        )
    known = set(_fields(Recipe))
    names = list(space)
    for place, (name, parameter) in enumerate(space.items()):
        if name not in known:
            close = get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f", did you mean {close[0]!r}?" if close else "; name a recipe's field"
            raise ValueError(f"sweep.space.{name}: no recipe has such a field{hint}")
        if name.startswith("early_stopping"):
            raise ValueError(f"sweep.space.{name}: trials are ended by the scheduler; leave it out")
        if name == "deterministic":
            raise ValueError(
                "sweep.space.deterministic: it is the same for all trials of an arm; set it there"
            )
        mentioned = Expression(parameter.when).names if parameter.when else set()
        for other in sorted(mentioned):
            if other not in known:
                raise ValueError(f"sweep.space.{name}: when mentions {other!r}, which no recipe has")
            if other in names[place:]:
                raise ValueError(
                    f"sweep.space.{name}: when mentions {other}, which is chosen later; put {other} before it"
                )
        if sweep.scheduler.name == "pbt":
            if any(name == field or name.startswith(f"{field}.") for field in FIXED_IN_PBT):
                raise ValueError(f"sweep.space.{name}: cannot change within a run; leave it out under pbt")
            if parameter.when:
                raise ValueError(f"sweep.space.{name}: conditions do not go with scheduler pbt")
        if sweep.search == "grid" and not parameter.is_finite:
            raise ValueError(
                f"sweep.space.{name}: a grid needs values to list; give choice, or a step for uniform"
            )
        if sweep.search == "cmaes" and parameter.choice is not None:
            raise ValueError(f"sweep.space.{name}: search cmaes takes numbers only; use tpe for a choice")
    for constraint in sweep.constraints:
        for other in sorted(Expression(constraint).names - known):
            raise ValueError(f"sweep.constraints: {constraint!r} mentions {other!r}, which no recipe has")
    for point in sweep.points:
        for name in point:
            if name not in {*sweep.space, *space}:
                raise ValueError(f"sweep.points: {name!r} is not in the space")
        recipe_with(recipe, {name: value for name, value in point.items() if name in space})
    drawn = _draw(recipe, space)
    allowed = [candidate for candidate in drawn if allows(sweep.constraints, candidate)]
    if not allowed:
        raise ValueError(
            f"sweep.constraints: none of {len(drawn)} random trials of arm {arm} meets "
            f"{' and '.join(sweep.constraints)}; widen the space or drop a constraint"
        )
    return allowed


def _draw(recipe: Recipe, space: Space) -> list[Recipe]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        recipes = []
        for _ in range(_DRAWS):
            try:
                recipes.append(recipe_with(recipe, propose(study.ask(), recipe, space)))
            except ValueError as error:
                raise ValueError(f"sweep.space: {error}; limit the parameter with when:") from error
    return recipes


def _fields(block: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted names of all fields that a block, or any block that may stand in its place, can have."""
    names = []
    for name, field in block.model_fields.items():
        names.append(prefix + name)
        for kind in _blocks(field.annotation):
            names += _fields(kind, f"{prefix}{name}.")
    return names


def _blocks(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [kind for part in typing.get_args(annotation) for kind in _blocks(part)]
