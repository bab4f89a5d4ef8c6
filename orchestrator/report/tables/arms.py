"""What arms are and what they reached, as rows of text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.analysis.arms import ArmSummary
from orchestrator.analysis.compare import Comparison
from orchestrator.analysis.statistics import confidence, metrics
from orchestrator.analysis.statistics.inference import Measure
from orchestrator.analysis.statistics.metrics import Metric
from orchestrator.experiment.spec import describe_value
from orchestrator.planning import crossings
from orchestrator.report.tables.text import (
    Number,
    measured,
    percent,
    seconds,
    setting,
    share,
    whole,
    with_bounds,
)
from trainers.data.corruptions import SEVERITIES


def arms(comparison: Comparison) -> list[dict[str, str]]:
    """What each arm reached, a table's row each."""
    rows = []
    for arm in comparison.arms:
        rows.append(
            {
                "arm": arm.name,
                "framework": arm.framework or "training function",
                comparison.metric.title: measured(comparison.metric, arm.score),
            }
            | others(comparison, arm)
            | {
                "time to the end": seconds(comparison.performance.arms[arm.name].end_seconds),
                "images/s": whole(arm.images_per_second),
                "runs": Number(f"{len(arm.done)} of {len(arm.runs)}", len(arm.done)),
            }
        )
    return rows


def intervals_note(comparison: Comparison) -> str:
    """What the intervals of `arms` are over."""
    scored = [arm for arm in comparison.arms if arm.score is not None]
    known = [arm for arm in scored if arm.scores.items is not None]
    if not known:
        return "over seeds."
    images = "seeds and test images" if known == scored else "seeds and, where they are known, test images"
    return f"of {comparison.metric.title} over {images}, of the others over seeds."


def shown(comparison: Comparison) -> list[Metric]:
    """The metrics beside the one that arms are compared by: those that are asked for, and what its rival tells else."""
    rival = comparison.metric.rival if comparison.is_unbalanced else None
    further = [] if rival is None else [metrics.known(rival)]
    names = {comparison.metric.name}
    found = []
    for metric in [*comparison.shown, *further]:
        if metric.name not in names:
            names.add(metric.name)
            found.append(metric)
    return found


def others(comparison: Comparison, arm: ArmSummary) -> dict[str, str]:
    """An arm's further metrics, by their titles."""
    return {
        metric.title: measured(metric, found.interval if (found := arm.measures.get(metric.name)) else None)
        for metric in shown(comparison)
    }


def configuration(comparison: Comparison) -> list[tuple[str, list[str], bool]]:
    """Every recipe field with its value in each arm, and whether they differ."""
    rows = [("framework", [arm.framework or "–" for arm in comparison.arms])]
    for key in dict.fromkeys(key for arm in comparison.arms for key in arm.recipe):
        values = [describe_value(arm.recipe[key]) if key in arm.recipe else "–" for arm in comparison.arms]
        rows.append((key.replace("_", " "), values))
    rows.append(("seeds", [", ".join(map(str, arm.seeds)) for arm in comparison.arms]))
    return [(field, values, len(set(values)) > 1) for field, values in rows]


def intervals(comparison: Comparison) -> list[dict[str, str]]:
    """What varies over an arm's seeds, a table's row for each arm and quantity."""
    target = comparison.performance.target
    rows = []
    for arm in comparison.arms:
        used = comparison.performance.arms[arm.name]
        quantities: list[tuple[str, Measure | None, Callable[[float], str]]] = [
            (comparison.metric.heading, used.score, comparison.metric.bare),
            *((metric.heading, arm.measures.get(metric.name), metric.bare) for metric in shown(comparison)),
            ("seconds to the end", used.end_seconds, lambda value: f"{value:,.1f}"),
            (f"seconds to {share(target or 0)}", used.target_seconds, lambda value: f"{value:,.1f}"),
            ("images/s", used.images_per_second, lambda rate: f"{rate:,.0f}"),
            ("cost", used.cost, lambda money: f"{money:,.4g}"),
        ]
        for name, found, write in quantities:
            if found is not None and found.deviation is not None:
                rows.append(
                    {
                        "arm": arm.name,
                        "quantity": name,
                        "mean with its 95 % interval": with_bounds(found.interval, write),
                        "standard deviation": Number(write(found.deviation), found.deviation),
                    }
                )
    return rows


def damaged(comparison: Comparison) -> list[dict[str, str]]:
    """How each arm holds on damaged images, a table's row each."""
    return [
        {"arm": arm.name, "undamaged": percent(next(iter(arm.corruption_robustness.values()))[0])}
        | {
            f"{kind} {severity}": percent(intervals[place + 1])
            for kind, intervals in arm.corruption_robustness.items()
            for place, severity in enumerate(SEVERITIES)
        }
        for arm in comparison.arms
        if arm.corruption_robustness
    ]


def descriptions(comparison: Comparison) -> dict[str, str]:
    """For each arm of an attribution, what its recipe is made of."""
    found = comparison.attribution
    names = [arm.name for arm in comparison.arms]
    return {name: "" if found is None else crossings.describe(found.plan, name) for name in names}


def calibration(comparison: Comparison) -> dict[str, float]:
    """For each arm with predictions, its calibration error."""
    return {
        arm: confidence.calibration_error(found.confidences.ravel(), found.right.ravel())
        for arm, found in comparison.predictions.items()
        if found.right.size and found.confidences is not None
    }


def workers(count: Any) -> str:
    """`2 workers`, or `1 to 4 workers` for an elastic number."""
    if isinstance(count, dict):
        return f"{count['min']} to {count['max']} workers"
    return f"{count} worker{'s' if count > 1 else ''}"


def settings(comparison: Comparison) -> list[dict[str, str]]:
    """What the workers' environment was, a setting to a row and a framework to a column."""
    frameworks = list(dict.fromkeys(arm.framework or arm.name for arm in comparison.arms))
    return [
        {"setting": name}
        | {framework: ", ".join(map(setting, values.get(framework, []))) or "–" for framework in frameworks}
        for name, values in comparison.settings.items()
    ]
