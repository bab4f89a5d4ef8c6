"""What parity traces of an experiment: each distinct work of its arms, as either framework trains it. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from orchestrator.experiment import spec
from orchestrator.experiment.spec import Arm, Experiment
from orchestrator.planning.run_plan import short_hash
from trainers.contract import FRAMEWORKS
from trainers.parity import parity_recipe
from trainers.recipes import BUILT_IN_MODELS, Recipe

_VERSION = 2
"""Of what traces hold; others have other keys."""
_BATCH_SIZE = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """One recipe to be compared, as each framework trains it."""

    recipes: tuple[Recipe, Recipe]
    """Keras' and PyTorch's; they are the same for a built-in model."""
    arms: tuple[str, ...]
    """Those of the experiment that do this work."""
    names: spec.Parity
    """How the weights of the user's own models correspond."""

    @property
    def is_own(self) -> bool:
        """Whether the models are the user's own."""
        return self.recipes[0] != self.recipes[1]

    def key(self, data_fingerprint: str) -> str:
        """Names the traces: the same work has the same key."""
        if not self.is_own:
            return recipe_key(self.recipes[0], data_fingerprint)
        parts = [recipe.model_dump(mode="json") for recipe in self.recipes]
        return short_hash([_VERSION, data_fingerprint, *parts, self.names.model_dump(mode="json")])


def traced_recipe(arm: Arm) -> Recipe | None:
    """What is traced of an arm in either framework; None for a user's own model, which has no twin."""
    if arm.model not in BUILT_IN_MODELS:
        return None
    return parity_recipe(arm.recipe(), batch_size=_BATCH_SIZE)


def traced_recipes(experiment: Experiment) -> list[Recipe]:
    """The distinct recipes of built-in models to trace in both frameworks; none where all arms are of one."""
    return [work.recipes[0] for work in works(experiment)[0] if not work.is_own]


def works(experiment: Experiment) -> tuple[list[Work], list[str]]:
    """The distinct works of an experiment, and for arms that have none a sentence that says what is missing."""
    found: dict[str, Work] = {}
    missing = []
    if len({arm.framework for arm in experiment.arms.values()}) < len(FRAMEWORKS):
        return [], ["parity needs an arm of each framework, keras and torch"]
    for name, arm in experiment.arms.items():
        recipes = _recipes(name, arm, experiment.arms)
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
    recipe = traced_recipe(arm)
    if recipe is not None:
        return recipe, recipe
    recipe = parity_recipe(arm.recipe(), batch_size=_BATCH_SIZE)
    own = [other for other in arms.values() if other.framework != arm.framework and ":" in other.model]
    alike = [other for other in own if other.recipe().model_copy(update={"model": arm.model}) == arm.recipe()]
    models = {other.model for other in alike or own}
    if len(models) != 1:
        return (
            f"arms.{name}: parity compares your own model with one of the other framework, and there "
            f"{'is none' if not models else f'are {len(models)}, of which no single one has the same recipe'}"
        )
    other = recipe.model_copy(update={"model": models.pop()})
    return (recipe, other) if arm.framework == FRAMEWORKS[0] else (other, recipe)


def recipe_key(recipe: Recipe, data_fingerprint: str) -> str:
    """Names the traces of a built-in model's recipe: the same work has the same key."""
    return short_hash([_VERSION, data_fingerprint, recipe.model_dump(mode="json")])
