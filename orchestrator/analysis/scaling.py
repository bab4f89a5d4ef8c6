"""How an experiment's arms scale: the same training with 1, 2, … workers, measured and modelled.

Strong scaling keeps the global batch, so each worker's share shrinks; weak scaling keeps the share.
One step on n workers is modelled as

    seconds = a * images per worker + b + c * (1 - 1 / n)

where a is computation, b what a step costs whatever its size, and c the exchange of gradients: a
ring all-reduce moves 2 * (1 - 1 / n) times the weights (Patarasuk and Yuan, 2009). Workers that outnumber
their machine's cores take turns, so that a step takes so many times as long.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, get_args

import numpy as np
from scipy.optimize import nnls

from orchestrator.analysis.variants import short_experiment
from orchestrator.experiment.spec import Experiment
from orchestrator.store.storage import Record
from trainers.errors import InputError

STEPS = 12
Mode = Literal["strong", "weak"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One measurement: an epoch of one arm on so many workers."""

    arm: str
    mode: Mode
    workers: int
    batch_size: int
    """Global."""
    images_per_second: float
    parameters: int | None = None
    """Trainable weights, whose gradients are exchanged."""
    turns: float = 1.0
    """How many workers share a core."""

    @property
    def step_seconds(self) -> float:
        """Time of one step."""
        return self.batch_size / self.images_per_second


@dataclasses.dataclass(frozen=True)
class ScalingModel:
    """Seconds of a step as a function of its images and the workers."""

    per_image: float
    per_step: float
    exchange: float
    error: float
    """Typical relative error of a prediction for a scale that was left out of the fit."""

    def step_seconds(self, batch_size: int, workers: int) -> float:
        """Predict the time of one step on a global batch."""
        return float(_row(batch_size, workers) @ [self.per_image, self.per_step, self.exchange])


def _row(batch_size: int, workers: int, turns: float = 1.0) -> np.ndarray:
    return np.array([batch_size / workers, 1.0, 1 - 1 / workers]) * turns


def fit(points: Sequence[Point]) -> ScalingModel:
    """Fit the model by non-negative least squares on relative errors (scipy.optimize.nnls).

    The error comes from leaving out each measured (mode, workers) in turn and predicting it.
    """
    errors = []
    for left_out in sorted({(p.mode, p.workers) for p in points}):
        rest = [p for p in points if (p.mode, p.workers) != left_out]
        if len({p.workers for p in rest}) < 2:
            continue
        solution = _solve(rest)
        errors += [
            _row(p.batch_size, p.workers, p.turns) @ solution / p.step_seconds - 1
            for p in points
            if (p.mode, p.workers) == left_out
        ]
    error = float(np.sqrt(np.mean(np.square(errors)))) if errors else float("nan")
    per_image, per_step, exchange = (float(value) for value in _solve(points))
    return ScalingModel(per_image, per_step, exchange, error)


def _solve(points: Sequence[Point]) -> np.ndarray:
    rows = np.stack([_row(p.batch_size, p.workers, p.turns) / p.step_seconds for p in points])
    return np.asarray(nnls(rows, np.ones(len(points)))[0])


def error_of_largest(points: Sequence[Point]) -> float | None:
    """The largest relative error of the largest measured scale, predicted from the smaller ones.

    None where fewer than two numbers of workers are smaller.
    """
    largest = max(point.workers for point in points)
    smaller = [point for point in points if point.workers < largest]
    if len({point.workers for point in smaller}) < 2:
        return None
    solution = _solve(smaller)
    errors = []
    for mode in MODES:
        at_largest = [p for p in points if p.workers == largest and p.mode == mode]
        if at_largest:
            measured = float(np.median([p.step_seconds for p in at_largest]))
            first = at_largest[0]
            predicted = float(_row(first.batch_size, first.workers, first.turns) @ solution)
            errors.append(abs(predicted / measured - 1))
    return max(errors)


def efficiency(points: Iterable[Point], mode: Mode) -> dict[int, float]:
    """Images per second on n workers over n times those on one, by n."""
    by_workers: dict[int, list[float]] = {}
    for point in points:
        if point.mode == mode:
            by_workers.setdefault(point.workers, []).append(point.images_per_second)
    median = {workers: float(np.median(speeds)) for workers, speeds in sorted(by_workers.items())}
    fewest = min(median)
    return {n: speed / (median[fewest] * n / fewest) for n, speed in median.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """An experiment at one scale: a few epochs of a few steps, one run at a time."""

    mode: Mode
    workers: int
    experiment: Experiment


def variants(experiment: Experiment, workers: Sequence[int]) -> list[Variant]:
    """What is trained to measure an experiment's arms at each scale, with one seed.

    Args:
        experiment: whose arms are measured.
        workers: numbers of workers.

    Raises:
        InputError: a batch does not divide over so many workers.
    """
    return [
        Variant(
            mode=mode,
            workers=count,
            experiment=_at_scale(experiment, mode, count, fewest=min(workers)),
        )
        for mode in MODES
        for count in workers
    ]


def _at_scale(experiment: Experiment, mode: Mode, workers: int, *, fewest: int) -> Experiment:
    if experiment.train_loop_arms:
        raise InputError(
            f"arms.{next(iter(experiment.train_loop_arms))} has a training function of its own, whose speed is not "
            "measured; scaling is measured of built-in arms"
        )
    return short_experiment(
        experiment,
        name=f"{mode}-{workers}",
        directory="scaling",
        arms={
            name: {"batch_size": arm.batch_size if mode == "strong" else arm.batch_size * workers // fewest}
            for name, arm in experiment.recipe_arms.items()
        },
        steps=STEPS,
        workers=workers,
        told=f"--workers {workers}",
        fields={"data": {"validation": 0}},
    )


def summary(points: Sequence[Point], *, predict: Sequence[int]) -> Record:
    """Efficiencies, models and predictions of every arm, as plain JSON."""
    arms: Record = {}
    for arm in dict.fromkeys(point.arm for point in points):
        own = [point for point in points if point.arm == arm]
        model = fit(own)
        fewest = min(own, key=lambda point: (point.workers, point.mode))
        base = model.step_seconds(fewest.batch_size, fewest.workers) * fewest.workers
        arms[arm] = {
            "measured": [dataclasses.asdict(point) for point in own],
            "efficiency": {mode: efficiency(own, mode) for mode in MODES},
            "model": dataclasses.asdict(model),
            "error_of_largest": error_of_largest(own),
            "predicted_efficiency": {
                "strong": {n: base / n / model.step_seconds(fewest.batch_size, n) for n in predict},
                "weak": {
                    n: base / fewest.workers / model.step_seconds(fewest.batch_size * n // fewest.workers, n)
                    for n in predict
                },
            },
        }
    return arms


def sentences(scales: Record, *, results: str) -> Iterator[str]:
    """What a summary says of each arm, line by line, and where the curves are.

    Args:
        scales: from `summary`.
        results: where the experiment is kept.
    """
    for arm, result in scales.items():
        for mode in MODES:
            measured, ahead = (
                ", ".join(f"{n}: {share:.0%}" for n, share in result[kind][mode].items())
                for kind in ("efficiency", "predicted_efficiency")
            )
            yield f"{arm}, {mode} scaling, efficiency by workers: {measured}; predicted {ahead}"
        yield f"{arm}: the model's error is {result['model']['error']:.0%}"
    yield f"curves: {results}/scaling/scaling.svg"
