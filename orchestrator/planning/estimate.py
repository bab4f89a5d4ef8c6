"""How long an experiment will take and what it will cost, from what earlier runs of the same work took."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import statistics
from collections.abc import Iterator
from typing import Any

from orchestrator.experiment.spec import Experiment
from orchestrator.experiment.sweep import Sweep
from orchestrator.store.checked_files import Left
from orchestrator.store.records import ExperimentRecords, RunRecords
from orchestrator.store.storage import Record, Storage
from trainers.errors import InputError

_LEAST_ERROR = 0.15
"""What the same work differs by from day to day, even where the earlier runs agree."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """What is expected of an experiment."""

    seconds: float
    """Of the runs; after the search, where there is one."""
    search_seconds: float | None
    """Of the arms' searches, at most: with every trial trained to its end and as long as its arm's own recipe."""
    relative_error: float
    """Half the spread of the earlier runs, relative to their middle."""
    cost: float | None
    """Of the runs, in the currency of the price; None without a price."""
    search_cost: float | None
    """Likewise, at most."""
    runs_seen: int


@dataclasses.dataclass(frozen=True)
class _Seen:
    unit_seconds: float
    """Of an image in one epoch, with validation and checkpoint; of a training function the seconds of a run."""
    start_seconds: float


def from_records(
    experiment: Experiment, storage: Storage, *, train_images: int, image_shape: tuple[int, ...], fit: int
) -> Estimate | None:
    """An estimate from the experiments that a storage holds; None where an arm has no earlier run to go by.

    Seconds are, over all runs, epochs * training images * the median seconds per image of the same framework, model,
    batch size, precision, image shape and scale, shared out over the runs that go at once, and one start of workers
    for each arm. A training function takes as long as the median run of the same function, trainer, config and scale.

    Args:
        experiment: what is to be trained.
        storage: where experiments are kept, each in a directory of its own.
        train_images: the data's training images.
        image_shape: the data's, as (height, width, channels).
        fit: runs that there is room for at once.
    """
    seen: dict[tuple[Any, ...], list[_Seen]] = {}
    for key, run in _earlier_runs(storage):
        seen.setdefault(key, []).append(run)
    scale = experiment.scale.model_dump(mode="json")
    seconds, start_seconds, search_seconds, errors, counted = 0.0, 0.0, 0.0, [_LEAST_ERROR], 0
    groups, runs, price = max(fit, 1), 0, experiment.scale.price_per_hour
    for name, arm in experiment.arms.items():
        recipe = arm.model_dump(mode="json")
        alike = seen.get(_key(recipe, scale, image_shape))
        if not alike:
            return None
        epochs, images = (1, 1) if "train_loop" in recipe else (recipe["epochs"], train_images)
        rates = [run.unit_seconds for run in alike]
        middle = statistics.median(rates)
        runs += len(arm.seeds)
        seconds += len(arm.seeds) * epochs * images * middle
        if experiment.sweep is not None:
            search_seconds += _search_seconds(experiment.sweep, name, epochs, images * middle, groups, price)
        start_seconds += statistics.median(run.start_seconds for run in alike)
        errors.append((max(rates) - min(rates)) / 2 / middle)
        counted += len(alike)
    is_searched = experiment.sweep is not None
    return Estimate(
        seconds=seconds / min(groups, runs) + start_seconds,
        search_seconds=search_seconds if is_searched else None,
        relative_error=max(errors),
        cost=None if price is None else (seconds + start_seconds) / 3600 * price,
        search_cost=None if price is None or not is_searched else search_seconds * groups / 3600 * price,
        runs_seen=counted,
    )


def _search_seconds(
    sweep: Sweep, name: str, own_epochs: int, epoch_seconds: float, groups: int, price: float | None
) -> float:
    """The longest that an arm's search may take, by its budget."""
    budget, trained = sweep.budget_of(name), sweep.space_of(name).get("epochs")
    longest = own_epochs if trained is None else max(trained.choice or trained.bounds)
    epochs = min(
        math.inf if budget.trials is None else budget.trials * longest,
        math.inf if budget.epochs is None else budget.epochs,
    )
    affordable = budget.cost / price * 3600 if budget.cost is not None and price else math.inf
    wall = math.inf if budget.minutes is None else budget.minutes * 60
    return min(epochs * epoch_seconds / groups, affordable / groups, wall)


def _key(arm: Record, scale: Record, image_shape: tuple[int, ...]) -> tuple[Any, ...]:
    """What alike runs share, of arm and scale as the records have them, maybe a newer version's."""
    workers = scale["workers"]
    work: tuple[Any, ...]
    if "train_loop" in arm:
        work = (arm["train_loop"], arm.get("trainer"), json.dumps(arm.get("config"), sort_keys=True))
    else:
        work = (
            arm["framework"],
            arm["model"],
            arm["batch_size"],
            arm["precision"],
            arm["whitening"] is not None,
            tuple(image_shape),
        )
    return (
        *work,
        workers["max"] if isinstance(workers, dict) else workers,
        scale["cpus_per_worker"],
        scale["gpus_per_worker"],
    )


def _earlier_runs(storage: Storage) -> Iterator[tuple[tuple[Any, ...], _Seen]]:
    """Of all experiments but those whose records are damaged."""
    for name in storage.names():
        records = ExperimentRecords(storage.at(name))
        yield from Left().unless(name, functools.partial(_runs_of, records)) or []


def _runs_of(records: ExperimentRecords) -> list[tuple[tuple[Any, ...], _Seen]]:
    try:
        document = records.document()
    except InputError:
        return []
    specification, data = document["experiment"], document["data"]
    scale = specification["scale"]
    found = []
    for entry in document["runs"]:
        run, arm = records.run(entry["id"]), specification["arms"].get(entry["arm"], {})
        if "train_loop" in arm:
            measured = _measure_function(run)
            if measured is not None:
                found.append((_key(arm, scale, ()), measured))
            continue
        described = run.description()
        measured = _measure(run, data["train_images"])
        if described is not None and measured is not None:
            recipe = described["recipe"] | {"framework": entry["framework"]}
            found.append((_key(recipe, scale, data["image_shape"]), measured))
    return found


def _measure_function(run: RunRecords) -> _Seen | None:
    """What a run of a training function took; None where it is not finished."""
    result = run.result()
    if result is None or "training_seconds" not in result:
        return None
    return _Seen(result["training_seconds"], result.get("startup_seconds") or 0.0)


def _measure(run: RunRecords, images: int) -> _Seen | None:
    """What a run took; None where it has not two epochs one after the other."""
    ends = [epoch["seconds_since_start"] for epoch in run.epochs()]
    steady = [after - before for before, after in itertools.pairwise(ends) if after > before]
    attempts = run.attempts()
    if not steady or not attempts:
        return None
    start = sum(attempts[0].get("startup", {}).values())
    return _Seen(statistics.median(steady) / images, start + max(0.0, ends[0] - statistics.median(steady)))
