"""How long an experiment will take and what it will cost, from what earlier runs of the same work took."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Iterator
from typing import Any

from orchestrator.records import ExperimentRecords, RunRecords
from orchestrator.spec import Experiment
from orchestrator.storage import Record, Storage

_LEAST_ERROR = 0.15
"""What the same work differs by from day to day, even where the earlier runs agree."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """What is expected of an experiment."""

    seconds: float
    relative_error: float
    """Half the spread of the earlier runs, relative to their middle."""
    cost: float | None
    """In the currency of the price; None without a price."""
    runs_seen: int


@dataclasses.dataclass(frozen=True)
class _Seen:
    seconds_per_image: float
    """Of one epoch: training, validation and checkpoint."""
    start_seconds: float


def from_records(
    experiment: Experiment, storage: Storage, *, train_images: int, image_shape: tuple[int, ...], at_once: int
) -> Estimate | None:
    """An estimate from the experiments that a storage holds; None where an arm has no earlier run to go by.

    Seconds are, over all runs, epochs * training images * the median seconds per image of the same framework, model,
    batch size, precision, image shape and scale, shared out over the runs that go at once, and one start of workers
    for each arm.

    Args:
        experiment: what is to be trained.
        storage: where experiments are kept, each in a directory of its own.
        train_images: the data's training images.
        image_shape: the data's, as (height, width, channels).
        at_once: runs that the cluster holds at once.
    """
    seen: dict[tuple[Any, ...], list[_Seen]] = {}
    for key, run in _earlier_runs(storage):
        seen.setdefault(key, []).append(run)
    scale = experiment.scale.model_dump(mode="json")
    seconds, start_seconds, errors, counted = 0.0, 0.0, [_LEAST_ERROR], 0
    for arm in experiment.arms.values():
        alike = seen.get(_key(arm.model_dump(mode="json"), arm.framework, scale, image_shape))
        if not alike:
            return None
        rates = [run.seconds_per_image for run in alike]
        middle = statistics.median(rates)
        seconds += len(arm.seeds) * arm.epochs * train_images * middle
        start_seconds += statistics.median(run.start_seconds for run in alike)
        errors.append((max(rates) - min(rates)) / 2 / middle)
        counted += len(alike)
    price = experiment.scale.price_per_hour
    return Estimate(
        seconds=seconds / max(at_once, 1) + start_seconds,
        relative_error=max(errors),
        cost=None if price is None else (seconds + start_seconds) / 3600 * price,
        runs_seen=counted,
    )


def _key(recipe: Record, framework: str, scale: Record, image_shape: tuple[int, ...]) -> tuple[Any, ...]:
    """What alike runs share, of recipe and scale as the records have them, maybe a newer version's."""
    workers = scale["workers"]
    return (
        framework,
        recipe["model"],
        recipe["batch_size"],
        recipe["precision"],
        recipe["whitening"] is not None,
        tuple(image_shape),
        workers["max"] if isinstance(workers, dict) else workers,
        scale["cpus_per_worker"],
        scale["gpus_per_worker"],
    )


def _earlier_runs(storage: Storage) -> Iterator[tuple[tuple[Any, ...], _Seen]]:
    for name in storage.names():
        records = ExperimentRecords(storage.at(name))
        document = records.storage.read_json("experiment.json")
        if document is None:
            continue
        scale = document["experiment"]["scale"]
        shape, images = tuple(document["data"]["image_shape"]), document["data"]["train_images"]
        for entry in document["runs"]:
            run = records.run(entry["id"])
            described = run.description()
            measured = _measure(run, images)
            if described is not None and measured is not None:
                yield _key(described["recipe"], entry["framework"], scale, shape), measured


def _measure(run: RunRecords, images: int) -> _Seen | None:
    """What a run took; None where it has not two epochs one after the other."""
    ends = [epoch["seconds_since_start"] for epoch in run.epochs()]
    steady = [after - before for before, after in itertools.pairwise(ends) if after > before]
    attempts = run.attempts()
    if not steady or not attempts:
        return None
    start = sum(attempts[0].get("startup", {}).values())
    return _Seen(statistics.median(steady) / images, start + max(0.0, ends[0] - statistics.median(steady)))
