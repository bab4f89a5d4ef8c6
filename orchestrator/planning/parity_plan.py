"""What parity traces of an experiment: each distinct work of its arms, as either framework trains it. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from orchestrator.experiment import spec
from orchestrator.experiment.spec import Arm, Experiment
from orchestrator.planning.run_plan import short_hash
from trainers.contract import FRAMEWORKS
from trainers.parity.trace import parity_recipe
from trainers.recipes import OwnLoss, OwnOptimizer, Recipe

_VERSION = 2
"""Of what traces hold; others have other keys."""
_BATCH_SIZE = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """One recipe to be compared, as each framework trains it."""

    recipes: tuple[Recipe, Recipe]
    """Keras' and PyTorch's; they are the same but for parts of the user's own."""
    arms: tuple[str, ...]
    """Those of the experiment that do this work."""
    names: spec.Parity
    """How the weights of the user's own models correspond."""

    @property
    def is_own(self) -> bool:
        """Whether the models or losses are the user's own."""
        return self.recipes[0] != self.recipes[1]

    def key(self, data_fingerprint: str) -> str:
        """Names the traces: the same work has the same key."""
        if not self.is_own:
            return recipe_key(self.recipes[0], data_fingerprint)
        parts = [recipe.model_dump(mode="json") for recipe in self.recipes]
        return short_hash([_VERSION, data_fingerprint, *parts, self.names.model_dump(mode="json")])


def traced_recipes(experiment: Experiment) -> list[Recipe]:
    """The distinct recipes without parts of the user's own; none where all arms are of one framework."""
    return [work.recipes[0] for work in works(experiment)[0] if not work.is_own]


def works(experiment: Experiment) -> tuple[list[Work], list[str]]:
    """The distinct works of an experiment, and for arms that have none a sentence that says what is missing."""
    found: dict[str, Work] = {}
    missing = []
    if len({arm.framework for arm in experiment.recipe_arms.values()}) < len(FRAMEWORKS):
        return [], ["parity needs an arm of each framework, keras and torch"]
    needs_gpus = experiment.scale.max_workers > 1 and not experiment.scale.gpus_per_worker
    for name, arm in experiment.recipe_arms.items():
        if arm.sync_batch_norm and needs_gpus:
            missing.append(
                f"arms.{name}.sync_batch_norm: parity on several workers needs GPUs, since PyTorch has it on GPUs only"
            )
            continue
        recipes = _recipes(name, arm, experiment.recipe_arms)
        if isinstance(recipes, str):
            missing.append(recipes)
            continue
        work = Work(recipes=recipes, arms=(name,), names=experiment.parity)
        key = work.key("")
        arms = (*found[key].arms, name) if key in found else (name,)
        found[key] = dataclasses.replace(work, arms=arms)
    return list(found.values()), missing


def _recipes(name: str, arm: Arm, arms: Mapping[str, Arm]) -> tuple[Recipe, Recipe] | str:
    """What each framework trains of an arm's recipe, or what is missing for it."""
    if isinstance(arm.optimizer, OwnOptimizer):
        return (
            f"arms.{name}.optimizer: parity knows no rule for an optimizer of your own; name a built-in one"
        )
    recipe = parity_recipe(arm.recipe(), batch_size=_BATCH_SIZE)
    parts = _own_parts(arm)
    if not parts:
        return recipe, recipe
    twins = [
        other
        for other in arms.values()
        if other.framework != arm.framework and _own_parts(other).keys() == parts.keys()
    ]
    alike = [other for other in twins if other.recipe().model_copy(update=parts) == arm.recipe()]
    found = {json.dumps(_own_parts(other), default=str): _own_parts(other) for other in alike or twins}
    if len(found) != 1:
        own = " and ".join(parts)
        return (
            f"arms.{name}: parity compares your own {own} with those of an arm of the other framework, and there "
            f"{'is none' if not found else f'are {len(found)} such arms, none of which has the same recipe alone'}"
        )
    other = recipe.model_copy(update=found.popitem()[1])
    return (recipe, other) if arm.framework == FRAMEWORKS[0] else (other, recipe)


def _own_parts(recipe: Recipe) -> dict[str, Any]:
    """What a recipe has of one framework only, by field."""
    parts: dict[str, Any] = {"model": recipe.model} if ":" in recipe.model else {}
    return parts | ({"loss": recipe.loss} if isinstance(recipe.loss, OwnLoss) else {})


def recipe_key(recipe: Recipe, data_fingerprint: str) -> str:
    """Names the traces of a recipe that both frameworks train: the same work has the same key."""
    return short_hash([_VERSION, data_fingerprint, recipe.model_dump(mode="json")])
