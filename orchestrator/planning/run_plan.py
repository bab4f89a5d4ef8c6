"""From an experiment to its runs, and from runs to a queue for each group of workers. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from orchestrator.experiment.spec import Experiment, Scale
from orchestrator.experiment.train_loop import TrainLoopArm
from trainers.recipes import Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One arm with one seed: the unit that is trained, retried and recorded."""

    id: str
    """Names the run's directory; the same work has the same id wherever it runs."""
    arm: str
    framework: str
    seed: int
    recipe: Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopRun:
    """One arm with a training function of the user's own, with one seed."""

    id: str
    arm: str
    seed: int
    loop: TrainLoopArm


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunQueue:
    """Runs of one framework that one group of workers trains one after another, kept warm."""

    framework: str
    runs: tuple[Run, ...]


def expand(experiment: Experiment, data_fingerprint: str) -> list[Run]:
    """Every arm that trains a recipe with every seed, in the order of the file.

    A run's id ends in a hash of what decides its result and its speed: the data's contents, the
    recipe, the seed and the workers. Changing an arm makes new runs and leaves the others done.
    """
    return [
        _run(experiment.scale, data_fingerprint, name, arm.framework, seed, arm.recipe())
        for name, arm in experiment.recipe_arms.items()
        for seed in arm.seeds
    ]


def expand_loops(experiment: Experiment, sources: Mapping[str, str]) -> list[LoopRun]:
    """Every arm with a training function, with every seed, in the order of the file.

    A run's id ends in a hash of what is known to decide its result: the functions and the text of their modules, the
    config with the seed in it, and the workers.

    Args:
        experiment: as it was read.
        sources: a hash of the text of each arm's modules.
    """
    return [
        LoopRun(
            id=f"{name}-seed{seed}-{short_hash(_loop_identity(experiment.scale, arm, seed, sources[name]))}",
            arm=name,
            seed=seed,
            loop=arm,
        )
        for name, arm in experiment.train_loop_arms.items()
        for seed in arm.seeds
    ]


def _loop_identity(scale: Scale, arm: TrainLoopArm, seed: int, source: str) -> dict[str, Any]:
    return {
        "train_loop": arm.train_loop,
        "trainer": arm.trainer,
        "datasets": arm.datasets,
        # As text, since a value of zero or false is not the same to a function as none.
        "config": json.dumps(arm.loop_config(seed), sort_keys=True),
        "source": source,
        "seed": seed,
        "scale": workers_identity(scale),
    }


def _run(scale: Scale, fingerprint: str, arm: str, framework: str, seed: int, recipe: Recipe) -> Run:
    identity = {
        "data": fingerprint,
        "framework": framework,
        "seed": seed,
        "recipe": recipe.model_dump(mode="json", exclude={"stop_on_divergence"})  # no result depends on it
        | {"deterministic": recipe.is_deterministic(on_gpu=scale.gpus_per_worker > 0)},
        "scale": workers_identity(scale),
    }
    return Run(
        id=f"{arm}-seed{seed}-{short_hash(identity)}", arm=arm, framework=framework, seed=seed, recipe=recipe
    )


def short_hash(identity: Any) -> str:
    """Eight hexadecimal digits that name some work by what decides it, given as plain JSON."""
    return hashlib.sha256(json.dumps(stated(identity), sort_keys=True).encode()).hexdigest()[:8]


def stated(value: Any) -> Any:
    """Plain JSON without the fields that are off.

    It stays the same when a later version adds a field that is off unless it is set, so that what was trained before
    is found again.
    """
    if isinstance(value, dict):
        return {key: kept for key, below in value.items() if (kept := stated(below))}
    return [stated(below) for below in value] if isinstance(value, list) else value


def workers_identity(scale: Scale) -> dict[str, Any]:
    """What of a scale decides a run's result and its speed."""
    return scale.model_dump(include={"workers", "cpus_per_worker", "gpus_per_worker", "accelerator_type"})


def concurrent_runs(scale: Scale, *, cpus: float, gpus: float) -> int:
    """How many runs a cluster holds at once; 0 if not even one fits."""

    def fit(workers: int) -> int:
        by_cpus = int(cpus // (workers * scale.cpus_per_worker))
        if not scale.gpus_per_worker:
            return by_cpus
        return min(by_cpus, int(gpus // (workers * scale.gpus_per_worker)))

    at_once = fit(scale.max_workers) or min(fit(scale.min_workers), 1)
    return min(at_once, scale.concurrent_runs or at_once)


def queues(runs: Iterable[Run], *, groups: int, apart: bool = False) -> list[RunQueue]:
    """Share the runs of each framework out over at most `groups` groups of workers.

    TensorFlow cannot switch determinism off again, so runs with and without it have different workers.

    Args:
        runs: in the order of the file.
        groups: that train at once.
        apart: a group for each run instead, arms in turn and in the other order every second time, so that what
            drifts with time falls on all arms alike.
    """
    if apart:
        return [RunQueue(framework=run.framework, runs=(run,)) for run in in_blocks(runs)]
    alike: dict[tuple[str, bool | str], list[Run]] = {}
    for run in runs:
        alike.setdefault((run.framework, run.recipe.deterministic), []).append(run)
    return [
        RunQueue(framework=framework, runs=tuple(same[place::groups]))
        for (framework, _), same in alike.items()
        for place in range(min(groups, len(same)))
    ]


_AnyRun = TypeVar("_AnyRun", Run, LoopRun)


def in_blocks(runs: Iterable[_AnyRun]) -> list[_AnyRun]:
    """The first run of every arm, then the second of every arm from the last arm on, and so forth."""
    by_arm: dict[str, list[_AnyRun]] = {}
    for run in runs:
        by_arm.setdefault(run.arm, []).append(run)
    ordered: list[_AnyRun] = []
    for block in range(max(map(len, by_arm.values()), default=0)):
        group = [own[block] for own in by_arm.values() if block < len(own)]
        ordered += group if block % 2 == 0 else group[::-1]
    return ordered
