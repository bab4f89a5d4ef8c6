"""A comparison as the JSON of `results.json`. docs/results.schema.json describes every field."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING, Any

from orchestrator.analysis.arms import ArmSummary
from orchestrator.analysis.attribution import Attribution
from orchestrator.analysis.pairs import PairComparison, SpeedComparison
from orchestrator.analysis.runs import RunSummary
from orchestrator.analysis.statistics.inference import Interval
from orchestrator.analysis.statistics.metrics import Metric
from orchestrator.store.storage import Record

if TYPE_CHECKING:
    from orchestrator.analysis.compare import Comparison

SCHEMA_VERSION = 3


def document(comparison: Comparison) -> Record:
    """The comparison as plain JSON, without the per-epoch curves; numbers that JSON does not have are null."""
    described: Record = strict(
        {
            "schema": SCHEMA_VERSION,
            "name": comparison.name,
            "conclusion": comparison.conclusion,
            "notes": comparison.notes,
            "metric": _metric(comparison.metric),
            "baseline": comparison.baseline,
            "arms": [_arm(arm) for arm in comparison.arms],
            "pairs": [pair_json(pair) for pair in comparison.pairs],
            "groups": comparison.groups,
            "performance": comparison.performance.to_json(),
            "attribution": comparison.attribution and _attribution(comparison.attribution),
            "sweep": comparison.sweep and [search.to_json() for search in comparison.sweep.arms],
            "data": comparison.document["data"],
            "environment": comparison.sessions[-1]["environment"] if comparison.sessions else None,
            "settings": comparison.settings,
        }
    )
    return described


def text(comparison: Comparison) -> bytes:
    """The document with a line for each entry: to indent large confusion matrices takes Python seconds."""
    entries = (
        f" {json.dumps(key)}: {json.dumps(value, allow_nan=False)}"
        for key, value in document(comparison).items()
    )
    return ("{\n" + ",\n".join(entries) + "\n}\n").encode()


def strict(value: Any) -> Any:
    """A value without the numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: strict(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        # The rows of a confusion matrix have nothing to look for.
        return value if {*map(type, value)} == {int} else [strict(below) for below in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def interval_json(interval: Interval | None) -> Record | None:
    """Mean and both ends."""
    return None if interval is None else dataclasses.asdict(interval)


def _metric(metric: Metric) -> Record:
    return {"name": metric.name, "goal": metric.goal, "margin": metric.margin, "unit": metric.unit}


def _arm(arm: ArmSummary) -> Record:
    return {
        "name": arm.name,
        "framework": arm.framework,
        "train_loop": arm.recipe["train_loop"] if arm.is_own else None,
        "recipe": arm.recipe,
        "parameters": arm.parameters,
        "score": interval_json(arm.score),
        "score_deviation": arm.deviation,
        "metrics": {
            name: {"interval": interval_json(found.interval), "deviation": found.deviation}
            for name, found in arm.measures.items()
        },
        "images_per_second": interval_json(arm.images_per_second),
        "parity": arm.parity and arm.parity.json(),
        "train_seconds": arm.train_seconds,
        "guessing_seeds": arm.guessing,
        "identical_seeds": arm.identical,
        "class_accuracy": None if arm.class_accuracy is None else arm.class_accuracy.tolist(),
        "confusion": None if arm.confusion is None else arm.confusion.tolist(),
        "corruption_robustness": {
            kind: [interval_json(interval) for interval in intervals]
            for kind, intervals in arm.corruption_robustness.items()
        },
        "runs": [run_json(run, arm.metric) for run in arm.runs],
    }


def run_json(run: RunSummary, metric: Metric) -> Record:
    """A run, as in `results.json`; without its metrics a row of `results.csv`."""
    return {
        "id": run.id,
        "seed": run.seed,
        "state": run.state,
        "cause": run.cause,
        "restarts": run.restarts,
        "resumes": run.resumes,
        "workers": run.workers,
        "precision": run.precision,
        "startup_seconds": run.startup_seconds,
        "images_per_second": run.images_per_second,
        "train_seconds": run.train_seconds,
        "tested_epoch": run.tested_epoch,
        "reports": len(run.reports) if run.is_own else None,
        "metric": metric.name,
        "score": run.metrics.get(metric.name),
        "test_accuracy": run.metrics.get("test_accuracy"),
        "test_loss": run.metrics.get("test_loss"),
        "balanced_accuracy": run.metrics.get("balanced_accuracy"),
        "metrics": run.metrics,
    }


def pair_json(pair: PairComparison) -> Record:
    """Two arms against each other."""
    judgement, budget = pair.judgement, pair.budget
    return {
        "first": pair.first,
        "second": pair.second,
        "verdict": None if judgement is None else judgement.verdict.value,
        "ahead": pair.ahead,
        "obstacle": judgement and judgement.obstacle and judgement.obstacle.value,
        "gap": None if judgement is None else interval_json(judgement.gap),
        "gap_90": None if judgement is None else interval_json(judgement.equality),
        "margin": pair.metric.margin,
        "p_value": judgement and judgement.p_value,
        "comparisons": judgement and judgement.comparisons,
        "smallest_detectable_gap": judgement and judgement.detectable,
        "seeds": list(pair.seeds),
        "paired": pair.is_paired,
        "test_images": pair.images,
        "variance": None if budget is None else dataclasses.asdict(budget),
        "only_first_right": None if pair.discordant is None else pair.discordant[0],
        "only_second_right": None if pair.discordant is None else pair.discordant[1],
        "same_predictions": pair.same_predictions,
        "balanced_gap": pair.balanced_gap,
        "differences": pair.differences,
        "same_framework": pair.same_framework,
        "same_code": pair.same_code,
        "same_work": pair.is_same_work,
        "parity_failures": pair.parity_failures,
        "speed": _speed(pair.speed),
    }


def _speed(speed: SpeedComparison | None) -> Record | None:
    if speed is None:
        return None
    return {
        "end_seconds_ratio": _ratio(speed.end),
        "target_seconds_ratio": _ratio(speed.target),
        "images_per_second_ratio": _ratio(speed.rate),
        "groups": None if speed.groups is None else list(speed.groups),
        "doubt": speed.doubt,
    }


def _ratio(log_ratio: Interval | None) -> Record | None:
    """A ratio with its interval, from its natural logarithm."""
    if log_ratio is None:
        return None
    ends = (log_ratio.mean, log_ratio.low, log_ratio.high)
    mean, low, high = (None if end is None else _exp(end) for end in ends)
    return {"mean": mean, "low": low, "high": high}


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _attribution(found: Attribution) -> Record:
    return {
        "first": found.plan.first,
        "second": found.plan.second,
        "gap": dataclasses.asdict(found.gap),
        "seeds": found.seeds,
        "missing": found.missing,
        "recipes": len(found.plan.choices),
        "fraction": found.plan.is_fraction,
        "orders_sampled": len(found.plan.orders),
        "shares": [
            {
                "factor": share.factor,
                "score": interval_json(share.score),
                "images_per_second_ratio": share.speed_ratio,
            }
            for share in found.shares
        ],
        "interactions": [
            {"factors": list(entry.factors), "score": interval_json(entry.score)}
            for entry in found.interactions
        ],
        "remainder": found.remainder,
    }
