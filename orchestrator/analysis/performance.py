"""What an arm's training gave and took: seconds, memory, arithmetic, energy and money. Pure.

Floating-point operations are those of convolutions and matrix products, a multiply-add as two; a training step takes
three times a forward pass (Kaplan et al., 2020, section 2.1). Model FLOPs utilisation (MFU) is their rate divided by
that of a large matrix product on the same workers, in either framework.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Iterable, Sequence

from orchestrator.analysis.arms import ArmSummary
from orchestrator.analysis.runs import RunSummary
from orchestrator.analysis.statistics import inference
from orchestrator.analysis.statistics.inference import Measure
from orchestrator.store.storage import Record

_PASSES = 3
_POSITIVE = (0.0, math.inf)
PARTS = {
    "data": "data_seconds",
    "steps": "step_seconds",
    "compilation": "compile_seconds",
    "evaluation": "evaluation_seconds",
    "checkpoints": "checkpoint_seconds",
}
"""What an epoch's work consists of, and the field of its record that tells how long each took."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmPerformance:
    """What one arm's finished runs gave and took; means over seeds, None where the records do not tell."""

    score: Measure | None
    """The metric that arms are compared by."""
    images_per_second: Measure | None
    seconds: dict[str, float]
    """By part: start-up (of the cold run), data, steps, evaluation, checkpoints, test; of a training function start-up
    and training."""
    reached: int
    """Runs that came to the target."""
    end_seconds: Measure | None
    """From a cold start to the end of the test."""
    target_seconds: Measure | None
    """From a cold start to the target; None unless every finished run reached it."""
    cost: Measure | None
    """Of a run with its start-up, in the price's currency; None without a price."""
    energy_joules: Measure | None
    """Of the nodes' processors and GPUs while a run trained."""
    memory_peak_bytes: int | None
    """Of the largest worker."""
    device_memory_peak_bytes: int | None
    training_flops: float | None
    """Of a whole run."""
    flops_per_second: float | None
    model_flops_utilisation: float | None
    """Share of what a matrix product reaches there."""
    latency_seconds: float | None
    """From one image to the trained model's prediction."""
    predictions_per_second: float | None
    """Of the trained model, in batches."""


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds from a cold start, one value for each finished run of an arm."""

    end: list[float]
    target: list[float]
    """Empty unless every run reached the target."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Performance:
    """What all arms took."""

    target: float | None
    """The accuracy that times are told to; None where no run was finished, and with training functions."""
    split: str
    """`validation` or `training`: whose accuracy that is."""
    is_apart: bool
    """Whether every run had fresh processes of its own, so that runs are independent measurements of speed."""
    arms: dict[str, ArmPerformance]
    times: dict[str, Times]

    def to_json(self) -> Record:
        """As plain JSON."""
        return {
            "target": self.target,
            "split": self.split,
            "measured_apart": self.is_apart,
            "arms": {name: dataclasses.asdict(arm) for name, arm in self.arms.items()},
        }


def measure(arms: Sequence[ArmSummary], experiment: Record, *, train_images: int | None) -> Performance:
    """What the arms' finished runs took.

    Args:
        arms: with their runs.
        experiment: as the records have it.
        train_images: how many an epoch has, where that is known.
    """
    done = [run for arm in arms for run in arm.done]
    validated = all(epoch["validation_accuracy"] is not None for run in done for epoch in run.epochs)
    split = "validation" if validated else "training"
    column = f"{'validation' if validated else 'train'}_accuracy"
    target: float | None = experiment.get("target_accuracy") or _reached_by_all(done, column)
    if any(arm.is_own for arm in arms):
        target = None  # what a training function reports is not the accuracy of built-in arms
    price = experiment["scale"].get("price_per_worker_hour")
    fastest = _fastest_products(arms)
    is_apart = bool(experiment.get("measure_speed")) and all(run.is_cold for run in done)
    measured, times = {}, {}
    for arm in arms:
        cold = _cold_starts(arm, arms, is_apart=is_apart)
        ends = [start + _work_and_test(run) for start, run in zip(cold, arm.done, strict=True)]
        reached = [
            start + seconds
            for start, run in zip(cold, arm.done, strict=True)
            if target is not None and (seconds := _seconds_to(run, column, target)) is not None
        ]
        times[arm.name] = Times(ends, reached if len(reached) == len(arm.done) else [])
        flops = _first(run.result.get("forward_flops") for run in arm.done if run.result)
        per_image = None if flops is None else flops * _PASSES
        speed = arm.images_per_second
        rate = None if per_image is None or speed is None else per_image * speed.mean
        most = fastest.get(arm.recipe.get("precision"))
        measured[arm.name] = ArmPerformance(
            score=arm.measures.get(arm.metric.name),
            images_per_second=inference.measure([*arm.speeds.values()], bounds=_POSITIVE),
            seconds=_parts(arm),
            reached=len(reached),
            end_seconds=inference.measure(ends, bounds=_POSITIVE),
            target_seconds=inference.measure(times[arm.name].target, bounds=_POSITIVE),
            cost=None
            if price is None
            else inference.measure([_cost(run, price) for run in arm.done], bounds=_POSITIVE),
            energy_joules=inference.measure(_known(_energy(run) for run in arm.done), bounds=_POSITIVE),
            memory_peak_bytes=_largest(
                epoch.get("memory_peak_bytes") for run in arm.done for epoch in run.epochs
            ),
            device_memory_peak_bytes=_largest(
                run.result.get("device_memory_peak_bytes") for run in arm.done if run.result
            ),
            training_flops=None
            if per_image is None or train_images is None
            else float(per_image) * train_images * _epochs(arm),
            flops_per_second=rate,
            model_flops_utilisation=None if rate is None or most is None else rate / most,
            latency_seconds=_median_of(arm, "latency_seconds"),
            predictions_per_second=_median_of(arm, "predictions_per_second"),
        )
    return Performance(target=target, split=split, is_apart=is_apart, arms=measured, times=times)


def _cold_starts(arm: ArmSummary, arms: Sequence[ArmSummary], *, is_apart: bool) -> list[float]:
    """For each finished run of an arm, the start-up of fresh processes.

    Runs that share processes started warm, so that they are given the longest start-up in their framework.
    """
    if is_apart or arm.is_own:
        return [run.startup_seconds or 0.0 for run in arm.done]
    longest = max(
        (other.startup_seconds or 0.0 for other in arms if other.framework == arm.framework), default=0.0
    )
    return [longest] * len(arm.done)


def _epochs(arm: ArmSummary) -> float:
    """That a run of an arm trained, on average."""
    trained = [float(run.epochs[-1]["epoch"]) for run in arm.done if run.epochs]
    if not arm.recipe.get("early_stopping") or not trained:
        return float(arm.recipe["epochs"])
    return statistics.mean(trained)


def _reached_by_all(runs: list[RunSummary], column: str) -> float | None:
    """The highest accuracy that every run came to, in whole tenths of a percent."""
    best = [max((epoch[column] for epoch in run.epochs), default=0.0) for run in runs]
    lowest = min((value for value in best if math.isfinite(value)), default=0.0)
    return math.floor(lowest * 1000) / 1000 or None


def _work(epoch: Record) -> float:
    return sum(float(epoch.get(part, 0.0)) for part in PARTS.values())


def _seconds_to(run: RunSummary, column: str, target: float) -> float | None:
    """Seconds of work until the end of the first epoch with such an accuracy."""
    ends = itertools.accumulate(_work(epoch) for epoch in run.epochs)
    return next((end for end, epoch in zip(ends, run.epochs, strict=True) if epoch[column] >= target), None)


def _parts(arm: ArmSummary) -> dict[str, float]:
    if not arm.done:
        return {}
    count = len(arm.done)
    if arm.is_own:
        started = statistics.mean(run.startup_seconds or 0.0 for run in arm.done)
        return {"start-up": started, "training": arm.train_seconds or 0.0}
    parts = {"start-up": arm.startup_seconds or 0.0}
    for name, column in PARTS.items():
        parts[name] = sum(epoch.get(column, 0.0) for run in arm.done for epoch in run.epochs) / count
    parts["test"] = sum(run.result["test_seconds"] for run in arm.done if run.result) / count
    return parts


def _work_and_test(run: RunSummary) -> float:
    assert run.result is not None
    if "test_seconds" not in run.result:
        return run.train_seconds  # a training function evaluates as it trains
    return sum(_work(epoch) for epoch in run.epochs) + float(run.result["test_seconds"])


def _cost(run: RunSummary, price: float) -> float:
    """Of a run's work and of the start-up that it had itself."""
    return ((run.startup_seconds or 0.0) + _work_and_test(run)) / 3600 * price * (run.workers or 1)


def _energy(run: RunSummary) -> float | None:
    epochs = _known(epoch.get("energy_joules") for epoch in run.epochs)
    return sum(epochs) if epochs else None


def _fastest_products(arms: Iterable[ArmSummary]) -> dict[str | None, float]:
    """For each precision, the most that a matrix product reached in any run."""
    found: dict[str | None, float] = {}
    for arm in arms:
        precision = arm.recipe.get("precision")
        for run in arm.done:
            reached = run.result.get("matmul_flops") if run.result else None
            if reached is not None:
                found[precision] = max(reached, found.get(precision, 0.0))
    return found


def _median_of(arm: ArmSummary, field: str) -> float | None:
    known = [run.result[field] for run in arm.done if run.result and run.result.get(field) is not None]
    return float(statistics.median(known)) if known else None


def _first(values: Iterable[int | None]) -> int | None:
    return next((value for value in values if value is not None), None)


def _known(values: Iterable[float | None]) -> list[float]:
    found = list(values)
    return [] if None in found else [value for value in found if value is not None]


def _largest(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)
