"""A few training steps written down, so that the same steps of two frameworks can be compared.

Every step starts from weights and optimizer state that both frameworks have: in lockstep those of the leading
framework, else drawn from one numpy generator. So a difference is one step's own, never the sum of those before.

An update is compared with the framework's own rule (`trainers.parity.update_rules`) for the gradient of that very step.
Gradients, and the updates of moving statistics, are compared between the frameworks. They are kept as sketches
of 64 numbers for each weight (Charikar et al., 2002: random signs, random buckets): the difference of two sketches
has, on average, the norm of the difference of what they stand for.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import ArrayLike

from trainers.contract import Engine, Task
from trainers.data import Dataset
from trainers.data.batches import Steps, epoch_steps
from trainers.initial import Weights, initial_weights
from trainers.parity import update_rules
from trainers.parity.correspondence import SAME_NAMES, Correspondence
from trainers.parity.update_rules import Moment, state_names
from trainers.recipes import Optimizer, Recipe, TestTimeAugmentation
from trainers.schedules import learning_rates

SKETCH = 64
TOLERANCE = 1e-4
"""Of losses and updates, relative."""
_STEPS_BEFORE = (0, 1, 9, 99)
"""What an optimizer has counted before each step of a trace, since Adam's bias correction depends on it."""
_ROUNDING = 1e-6
_RESOLUTION = 2.0**-22
"""Of a weight in two updates by float32: half a unit in the last place at each of up to three roundings, times two."""


def parity_recipe(recipe: Recipe, *, batch_size: int) -> Recipe:
    """What is traced of a recipe: its work in float32 at a batch size that is quick."""
    return recipe.model_copy(
        update={
            "precision": "float32",
            "deterministic": False,
            "compile": False,
            "batch_size": min(recipe.batch_size, batch_size),
            "epochs": 1,
            "early_stopping": None,
            "ema_decay": 0.0,
            "test_time_augmentation": TestTimeAugmentation(),
        }
    )


def trace(task: Task, dataset: Dataset, engine: Engine, *, steps: int) -> dict[str, np.ndarray]:
    """Take a few steps in one framework, the last on a partial batch, and write them down.

    The first step starts from the engine's initial weights, each other step from a state drawn for it. Each is taken
    once more from weights moved by a rounding error, which tells how far rounding moves a gradient.

    Args:
        task: of this worker.
        dataset: whose training images are used.
        engine: fresh.
        steps: to take, at most 4.

    Returns:
        As `Tracer.arrays`.
    """
    tracer = Tracer(task, engine)
    for number, step in enumerate(single_steps(task, dataset, steps)):
        state = _state_before(number, engine, task.recipe)
        engine.load_neutral_state(state)
        tracer.take(step, state)
        engine.load_neutral_state(rounded_otherwise(state))
        tracer.take_control(step)
    return tracer.arrays()


def rounded_otherwise(state: Weights) -> Weights:
    """The state with each weight moved by a rounding error."""
    rng = np.random.default_rng(0)
    return {
        name: value
        if "#" in name
        else value * (1 + np.float32(_ROUNDING) * rng.choice([-1, 1], value.shape).astype(np.float32))
        for name, value in sorted(state.items())
    }


def _state_before(number: int, engine: Engine, recipe: Recipe) -> Weights:
    """A state that is the same in both frameworks, of a size that training might have led to."""
    weights = engine.weights()
    shapes = {name: weights[name].shape for name in sorted(weights)}
    rng = np.random.default_rng(number)
    is_initial = number == 0 and has_common_weights(recipe)
    if not is_initial:
        init = recipe.init if has_common_weights(recipe) else "glorot_uniform"
        weights = initial_weights(shapes, init=init, seed=number)
        for name, shape in shapes.items():
            if len(shape) < 2:
                weights[name] += rng.uniform(-0.3, 0.3, shape).astype(np.float32)
    optimizer_state = {}
    for name, shape in shapes.items():
        for kind in state_names(recipe.optimizer):
            drawn = 0.01 * rng.standard_normal(shape, np.float32) * (number > 0)
            optimizer_state[f"{name}#{kind}"] = drawn**2 if kind == "square" else drawn
    return weights | optimizer_state | {"#steps": np.array(_STEPS_BEFORE[number])}


def has_common_weights(recipe: Recipe) -> bool:
    """Whether both frameworks start a run of the recipe with the same weights."""
    return recipe.init != "framework" and ":" not in recipe.model


def single_steps(task: Task, dataset: Dataset, steps: int) -> Iterator[Steps]:
    """The first steps of a run, one by one; the last on a partial batch."""
    size = task.recipe.batch_size
    images = min((steps - 1) * size + (size + 1) // 2, len(dataset.train_labels))
    count = -(-images // size)
    blocks = epoch_steps(
        dataset.train_images[:images],
        dataset.train_labels[:images],
        augmentation=task.recipe.augmentation,
        batch_size=size,
        learning_rates=learning_rates(task.recipe, count),
        seed=task.seed,
        epoch=1,
        rank=task.rank,
        world_size=task.world_size,
    )
    return (block.part(place, place + 1) for block in blocks for place in range(len(block)))


class Tracer:
    """Writes down the steps that one engine takes."""

    def __init__(self, task: Task, engine: Engine, correspondence: Correspondence = SAME_NAMES) -> None:
        """Prepare to write steps down.

        Args:
            task: of the engine.
            engine: before its first step.
            correspondence: from the engine's weights to those of the other framework's engine.
        """
        self._task = task
        self._engine = engine
        self._to_common = correspondence.to_keras
        self._initial = engine.weights() if has_common_weights(task.recipe) else None
        self._unbiased = correspondence.renamed(engine.unbiased_variances())
        self._last_rate: float | None = None
        self._taken: list[_TakenStep] = []
        self._controls: list[float] = []

    def take(self, step: Steps, before: Weights) -> Weights:
        """Take one step; called by all workers at once.

        Args:
            step: a single one.
            before: the common state that the engine has.

        Returns:
            The common state after it.
        """
        loss, gradients = self._engine.take_step(step)
        after = self._to_common(self._engine.neutral_state())
        loss = self._engine.all_reduce(np.array([loss * step.loss_scale]))[0]
        share = float(step.labels.size)
        if self._task.recipe.sync_batch_norm:
            share = self._engine.all_reduce(np.array([share]))[0]
        rate = float(step.learning_rates[0])
        last_rate, self._last_rate = self._last_rate or rate, rate
        if self._task.rank > 0:
            return after
        optimizer = self._task.recipe.optimizer
        moments = {
            name: Moment(
                weight=before[name],
                gradient=gradient,
                optimizer_state={kind: before[f"{name}#{kind}"] for kind in state_names(optimizer)},
                steps=int(before["#steps"]),
                rate=rate,
                last_rate=last_rate,
            )
            for name, gradient in self._to_common(gradients).items()
        }
        statistics = {
            name: value - before[name]
            for name, value in after.items()
            if "#" not in name and name not in moments
        }
        excess = {
            name: (statistics[name] + kept.rate * before[name]) / (kept.values * share)
            for name, kept in self._unbiased.items()
        }
        self._taken.append(
            _TakenStep(
                loss=float(loss),
                gradients={name: sketch(name, moment.gradient) for name, moment in moments.items()},
                updates=compare_updates(self._engine.framework, optimizer, moments, after),
                held={name: norm(before[name]) for name in [*moments, *statistics]},
                statistics={
                    name: sketch(name, change - excess.get(name, 0.0)) for name, change in statistics.items()
                },
                excess={name: norm(excess.get(name, np.zeros(1))) for name in statistics},
            )
        )
        return after

    def take_control(self, step: Steps) -> None:
        """Take the last step again, from weights moved by a rounding error."""
        _, gradients = self._engine.take_step(step)
        if self._task.rank > 0:
            return
        before = self._taken[-1].gradients
        moved = {name: sketch(name, value) for name, value in self._to_common(gradients).items()}
        difference = norm(np.array([moved[name] - before[name] for name in before]))
        self._controls.append(difference / max(norm(np.array(list(before.values()))), 1e-12))

    def arrays(self) -> dict[str, np.ndarray]:
        """What was written down by the first worker; empty on the others.

        Returns:
            names: JSON list of the trained weights; statistic_names of the moving statistics.
            initial: float64 [weights, 64], sketches of both before the first step, by name; left out where the
                frameworks draw different ones.
            losses: float64 [steps], mean over the batch.
            gradients: float64 [steps, trained, 64], sketches.
            update_names: JSON list of the trained weights and of their optimizer state, as `<weight>#<name>`.
            moved, off: float64 [steps, updates], as in `Updates`.
            held: float64 [steps, updates], norms of the weights before each step; zero for optimizer state.
            factor: float64 [steps], as in `Updates`.
            mistakes/<name>: float64 [steps], likewise; NaN in steps that follow the rule.
            differences/<name>: float64 [steps, updates], likewise; zero for optimizer state.
            statistics, statistics_held: the same of the moving statistics, as if each variance was the biased one.
            differences/variance: float64 [steps, statistics], norm of what that took away.
            controls: float64 [controls], how far rounding moved the gradients of a step, relative.
            workers: number of workers.
        """
        taken = self._taken
        if not taken:
            return {}
        arrays = {
            "names": np.array(json.dumps(names := sorted(taken[0].gradients))),
            "statistic_names": np.array(json.dumps(statistics := sorted(taken[0].statistics))),
            "losses": np.array([step.loss for step in taken]),
            "gradients": _sketches(names, [step.gradients for step in taken]),
            "update_names": np.array(json.dumps(updates := sorted(taken[0].updates.moved))),
            "moved": _stacked(updates, [step.updates.moved for step in taken]),
            "off": _stacked(updates, [step.updates.off for step in taken]),
            "held": _stacked(updates, [step.held for step in taken]),
            "factor": np.array([step.updates.factor for step in taken]),
            "statistics": _sketches(statistics, [step.statistics for step in taken]),
            "statistics_held": _stacked(statistics, [step.held for step in taken]),
            "differences/variance": _stacked(statistics, [step.excess for step in taken]),
            "controls": np.array(self._controls),
            "workers": np.array(self._task.world_size),
        }
        if self._initial is not None:
            initial = {name: sketch(name, value) for name, value in self._initial.items()}
            arrays["initial"] = _sketches(sorted(initial), [initial])[0]
        for mistake in sorted({name for step in taken for name in step.updates.mistakes}):
            arrays[f"mistakes/{mistake}"] = np.array(
                [step.updates.mistakes.get(mistake, np.nan) for step in taken]
            )
        for difference in sorted({name for step in taken for name in step.updates.differences}):
            arrays[f"differences/{difference}"] = _stacked(
                updates, [step.updates.differences.get(difference, {}) for step in taken]
            )
        return arrays


def _stacked(names: list[str], steps: list[Mapping[str, float]]) -> np.ndarray:
    return np.array([[step.get(name, 0.0) for name in names] for step in steps], np.float64)


def _sketches(names: list[str], steps: list[Mapping[str, np.ndarray]]) -> np.ndarray:
    stacked = np.array([[step[name] for name in names] for step in steps], np.float64)
    return stacked.reshape(len(steps), len(names), SKETCH)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Updates:
    """Norms of what one step did to the trained weights and the optimizer state, compared with the framework's rule."""

    moved: dict[str, float]
    """Of what was added to each weight, and of each entry of the optimizer state after the step."""
    off: dict[str, float]
    """Of the difference from the rule."""
    factor: float
    """The multiple of the rule's updates that is nearest to the updates."""
    mistakes: dict[str, float]
    """Of the difference of everything from the rule with each usual mistake made; empty if nothing is off."""
    differences: dict[str, dict[str, float]]
    """Of each named difference between the frameworks, for each weight."""


def compare_updates(
    framework: str, optimizer: Optimizer, moments: Mapping[str, Moment], after: Weights
) -> Updates:
    """Hold a step against the framework's own rule.

    Args:
        framework: whose optimizer took the step.
        optimizer: as the recipe describes it.
        moments: each trained weight before the step.
        after: the common state after it.
    """

    def difference(name: str, rule: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        optimizer_state = {
            f"{name}#{kind}": after[f"{name}#{kind}"] - rule[kind] for kind in state_names(optimizer)
        }
        return {name: after[name] - moments[name].weight - rule["update"]} | optimizer_state

    moved, off = {}, {}
    held = {name: norm(moment.weight) for name, moment in moments.items()}
    differences: dict[str, dict[str, float]] = {}
    along = rule_squared = 0.0
    for name, moment in moments.items():
        rule = update_rules.step(framework, optimizer, moment)
        off |= {each: norm(value) for each, value in difference(name, rule).items()}
        change = after[name] - moment.weight
        moved[name] = norm(change)
        moved |= {f"{name}#{kind}": norm(after[f"{name}#{kind}"]) for kind in state_names(optimizer)}
        along += float(np.vdot(change, rule["update"]))
        rule_squared += norm(rule["update"]) ** 2
        if framework == "torch":  # the same in both, so one trace keeps them
            for known, value in update_rules.differences(optimizer, moment).items():
                differences.setdefault(known, {})[name] = norm(value)
    mistakes: dict[str, float] = {}
    if any(beyond(off[each], moved[each], held.get(each, 0.0)) > TOLERANCE for each in off):
        for name, moment in moments.items():
            for mistake, rule in update_rules.mistakes(framework, optimizer, moment).items():
                left = [
                    norm(value) / max(moved[each], 1e-12) for each, value in difference(name, rule).items()
                ]
                mistakes[mistake] = float(np.linalg.norm([mistakes.get(mistake, 0.0), *left]))
    return Updates(
        moved=moved,
        off=off,
        factor=along / rule_squared if rule_squared else 1.0,
        mistakes=mistakes,
        differences=differences,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _TakenStep:
    """What one step did; see `Tracer.arrays`."""

    loss: float
    gradients: dict[str, np.ndarray]
    updates: Updates
    held: dict[str, float]
    statistics: dict[str, np.ndarray]
    excess: dict[str, float]


def beyond(difference: ArrayLike, moved: ArrayLike, held: ArrayLike) -> np.ndarray:
    """A difference of two updates relative to them, less what float32 does not hold of the weight.

    Args:
        difference: its norm.
        moved: that of the updates.
        held: that of the weight.
    """
    left = np.maximum(difference - _RESOLUTION * np.asarray(held), 0)
    return np.asarray(np.nan_to_num(left / np.maximum(moved, 1e-12), nan=1.0))


def norm(values: np.ndarray) -> float:
    """The Euclidean norm of all values."""
    return float(np.linalg.norm(values.ravel()))


def sketch(name: str, value: np.ndarray) -> np.ndarray:
    """The sketch of a weight, float64 [64]; of at most 64 values, the values themselves."""
    flat = value.astype(np.float64, order="C").ravel()
    if flat.size <= SKETCH:
        return np.pad(flat, (0, SKETCH - flat.size))
    buckets, signs = _hashes(name, flat.size)
    return np.bincount(buckets, weights=signs * flat, minlength=SKETCH)


@functools.cache
def _hashes(name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.integers(0, SKETCH, size, np.uint8), rng.choice(np.array([-1, 1], np.int8), size)
