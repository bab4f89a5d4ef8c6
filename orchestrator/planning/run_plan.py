"""From an experiment to its runs, and from runs to a queue for each group of workers. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from typing import Any

from orchestrator.experiment.spec import Experiment, Scale
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
class RunQueue:
    """Runs of one framework that one group of workers trains one after another, kept warm."""

    framework: str
    runs: tuple[Run, ...]


def expand(experiment: Experiment, data_fingerprint: str) -> list[Run]:
    """Every arm with every seed, in the order of the file.

    A run's id ends in a hash of what decides its result and its speed: the data's contents, the
    recipe, the seed and the workers. Changing an arm makes new runs and leaves the others done.
    """
    return [
        _run(experiment.scale, data_fingerprint, name, arm.framework, seed, arm.recipe())
        for name, arm in experiment.arms.items()
        for seed in arm.seeds
    ]


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
        return [RunQueue(framework=run.framework, runs=(run,)) for run in _in_blocks(runs)]
    alike: dict[tuple[str, bool | str], list[Run]] = {}
    for run in runs:
        alike.setdefault((run.framework, run.recipe.deterministic), []).append(run)
    return [
        RunQueue(framework=framework, runs=tuple(same[place::groups]))
        for (framework, _), same in alike.items()
        for place in range(min(groups, len(same)))
    ]


def _in_blocks(runs: Iterable[Run]) -> list[Run]:
    """The first run of every arm, then the second of every arm from the last arm on, and so forth."""
    by_arm: dict[str, list[Run]] = {}
    for run in runs:
        by_arm.setdefault(run.arm, []).append(run)
    ordered = []
    for block in range(max(map(len, by_arm.values()), default=0)):
        group = [own[block] for own in by_arm.values() if block < len(own)]
        ordered += group if block % 2 == 0 else group[::-1]
    return ordered
