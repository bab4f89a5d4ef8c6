"""A comparison as rows of text, for the page and for Markdown alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.analysis import attribution, inference
from orchestrator.analysis.compare import Comparison
from orchestrator.analysis.inference import Interval, Measure
from orchestrator.analysis.pairs import times
from orchestrator.analysis.parity import NamedDifference
from orchestrator.analysis.performance import ArmPerformance
from orchestrator.analysis.sweeps import ArmSearch, SweepSummary
from orchestrator.experiment.spec import describe_value
from trainers.data.corruptions import SEVERITIES


def percent(interval: Interval | None) -> str:
    """`71.20 % (70.10 to 72.30)`."""
    return _with_bounds(interval, lambda share: f"{share * 100:.2f}", unit=" %")


def whole(interval: Interval | None) -> str:
    """`12,300 (11,900 to 12,700)`, of a quantity that is never negative."""
    return _with_bounds(interval, lambda value: f"{max(value, 0):,.0f}")


def _with_bounds(interval: Interval | None, write: Callable[[float], str], *, unit: str = "") -> str:
    if interval is None:
        return "–"
    text = f"{write(interval.mean)}{unit}"
    if interval.low is not None and interval.high is not None:
        text += f" ({write(interval.low)} to {write(interval.high)})"
    return text


def duration(seconds: float | None) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds is None:
        return "–"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    if round(seconds) < 3600:
        return "{} min {} s".format(*divmod(round(seconds), 60))
    return "{} h {} min".format(*divmod(round(seconds / 60), 60))


def arms(comparison: Comparison) -> list[dict[str, str]]:
    """What each arm reached, a table's row each."""
    rows = []
    for arm in comparison.arms:
        balanced = {"balanced accuracy": percent(arm.balanced_accuracy)} if comparison.is_unbalanced else {}
        rows.append(
            {"arm": arm.name, "framework": arm.framework, "test accuracy": percent(arm.accuracy)}
            | balanced
            | {
                "images/s": whole(arm.images_per_second),
                "training time": duration(arm.train_seconds),
                "runs": f"{len(arm.done)} of {len(arm.runs)}",
            }
        )
    return rows


def configuration(comparison: Comparison) -> list[tuple[str, list[str], bool]]:
    """Every recipe field with its value in each arm, and whether they differ."""
    rows = [("framework", [arm.framework for arm in comparison.arms])]
    for key in comparison.arms[0].recipe:
        values = [describe_value(arm.recipe.get(key)) for arm in comparison.arms]
        rows.append((key.replace("_", " "), values))
    rows.append(("seeds", [", ".join(map(str, arm.seeds)) for arm in comparison.arms]))
    return [(field, values, len(set(values)) > 1) for field, values in rows]


def _points(interval: Interval) -> str:
    """`+1.20 (+0.90 to +1.50)`, of a difference of shares in points."""
    return _with_bounds(interval, lambda share: f"{share * 100:+.2f}")


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def evidences(comparison: Comparison) -> list[dict[str, str]]:
    """What is known of the gap of each pair of arms, a table's row each."""
    rows = []
    for pair in comparison.pairs:
        found = pair.evidence
        if found is None:
            continue
        only = pair.mcnemar
        rows.append(
            {
                "pair": f"{pair.first} − {pair.second}",
                "gap": _points(found.gap),
                "bootstrap": "–" if found.bootstrap is None else _points(found.bootstrap),
                "p": _p(pair.adjusted_p),
                "effect": "–" if found.effect_size is None else f"{found.effect_size:+.2f}",
                f"same within {round(pair.margin * 100, 6):g}": _p(found.equivalence_p),
                "McNemar": "–"
                if only is None
                else f"{only.only_first} against {only.only_second}, p {_p(only.p_value)}",
                "seeds to tell": "–" if found.seeds_needed is None else f"{found.seeds_needed:,}",
                "times the speed": "–" if pair.log_speed is None else _with_bounds(pair.log_speed, times),
            }
        )
    return rows


def attributed(comparison: Comparison) -> list[dict[str, str | float]]:
    """Each factor's share of the gap, a table's row each, and the whole."""
    found = comparison.attribution
    if found is None or not found.shares:
        return []
    rows: list[dict[str, str | float]] = [
        {
            "factor": share.factor,
            "points": _points(share.accuracy),
            "points_value": share.accuracy.mean,
            "speed": "–" if share.log_speed is None else _with_bounds(share.log_speed, times),
            "speed_value": share.speed_ratio or "",
        }
        for share in found.shares
    ]
    speeds = [share.log_speed.mean for share in found.shares if share.log_speed is not None]
    whole_speed = times(sum(speeds)) if len(speeds) == len(found.shares) else "–"
    total: dict[str, str | float] = {
        "factor": "all together",
        "points": _points(found.gap),
        "points_value": found.gap.mean,
        "speed": whole_speed,
        "speed_value": whole_speed,
    }
    return [*rows, total]


def took(comparison: Comparison) -> list[dict[str, str]]:
    """What each arm's training took, a table's row each."""
    found = comparison.performance
    target = "–" if found.target is None else f"{found.target:.1%}"
    rows = []
    for arm in comparison.arms:
        used = found.arms[arm.name]
        rows.append(
            {
                "arm": arm.name,
                f"time to {target}": _time_to(used, len(arm.done)),
                "cost": _cost(used.cost),
                "peak memory": _bytes(used.memory_peak_bytes),
                "GPU memory": _bytes(used.device_memory_peak_bytes),
                "training": "–" if used.training_flops is None else f"{_scaled(used.training_flops)}FLOP",
                "speed": "–" if used.flops_per_second is None else f"{_scaled(used.flops_per_second)}FLOP/s",
                "utilisation": "–" if used.utilisation is None else f"{used.utilisation:.0%}",
                "one answer": "–" if used.answer_seconds is None else f"{used.answer_seconds * 1000:.3g} ms",
                "answers/s": "–" if used.answers_per_second is None else f"{used.answers_per_second:,.0f}",
                "energy": "–"
                if used.energy_joules is None
                else _with_bounds(
                    used.energy_joules.interval, lambda joules: f"{joules / 3600:,.2f}", unit=" Wh"
                ),
            }
        )
    empty = [name for name in rows[0] if name != "arm" and all(row[name] == "–" for row in rows)]
    return [{name: value for name, value in row.items() if name not in empty} for row in rows]


def intervals(comparison: Comparison) -> list[dict[str, str]]:
    """What varies over an arm's seeds, with both intervals of its mean: a table's row for each arm and quantity."""
    target = comparison.performance.target
    rows = []
    for arm in comparison.arms:
        used = comparison.performance.arms[arm.name]
        quantities: list[tuple[str, Measure | None, Callable[[float], str]]] = [
            ("test accuracy, %", used.test_accuracy, lambda share: f"{share * 100:.2f}"),
            ("images/s", used.images_per_second, lambda rate: f"{rate:,.0f}"),
            (f"seconds to {target or 0:.1%}", used.target_seconds, lambda seconds: f"{seconds:,.1f}"),
            ("cost", used.cost, lambda money: f"{money:,.4g}"),
        ]
        for name, found, write in quantities:
            if found is not None and found.deviation is not None:
                rows.append(
                    {
                        "arm": arm.name,
                        "quantity": name,
                        "mean (Student's t)": _with_bounds(found.interval, write),
                        "mean (bootstrap)": _with_bounds(found.bootstrap, write),
                        "standard deviation": write(found.deviation),
                    }
                )
    return rows


def _time_to(used: ArmPerformance, runs: int) -> str:
    if used.target_seconds is not None:
        return _with_bounds(
            used.target_seconds.interval, lambda seconds: f"{max(seconds, 0):,.1f}", unit=" s"
        )
    return f"reached by {used.reached} of {runs} runs" if runs else "–"


def _cost(cost: Measure | None) -> str:
    return "–" if cost is None else _with_bounds(cost.interval, lambda money: f"{max(money, 0):,.4g}")


def _bytes(size: int | None) -> str:
    return "–" if size is None else f"{size / 2**20:,.0f} MiB"


def _scaled(value: float) -> str:
    """With an SI prefix: `1.25 T`."""
    for power, prefix in ((15, "P"), (12, "T"), (9, "G"), (6, "M")):
        if value >= 10**power:
            return f"{value / 10**power:.3g} {prefix}"
    return f"{value:.0f} "


def damaged(comparison: Comparison) -> list[dict[str, str]]:
    """How each arm holds on damaged images, a table's row each."""
    return [
        {"arm": arm.name, "undamaged": percent(next(iter(arm.robustness.values()))[0])}
        | {
            f"{kind} {severity}": percent(intervals[place + 1])
            for kind, intervals in arm.robustness.items()
            for place, severity in enumerate(SEVERITIES)
        }
        for arm in comparison.arms
        if arm.robustness
    ]


def attribution_note(comparison: Comparison) -> str:
    """How the gap was taken apart."""
    found = comparison.attribution
    if found is None:
        return ""
    plan = found.plan
    how = (
        f"{len(plan.orders)} sampled orders of changing them, over {len(plan.choices)} recipes; intervals hold the "
        "sampling's error as well"
        if plan.orders
        else f"all {len(plan.choices)} recipes between the two arms"
    )
    epochs = sorted({arm.recipe["epochs"] for arm in comparison.arms})
    stopped = any(arm.recipe.get("early_stopping") for arm in comparison.arms)
    trained = ("at most " if stopped else "") + " and ".join(map(str, epochs))
    return (
        f"Shapley values from {how}, each trained for {trained} epochs with {len(found.seeds)} paired seeds. "
        f"A share is what a factor adds to {plan.first} over {plan.second}, averaged over all orders; "
        "the shares sum to the gap."
    )


def descriptions(comparison: Comparison) -> dict[str, str]:
    """For each arm of an attribution, what its recipe is made of."""
    found = comparison.attribution
    names = [arm.name for arm in comparison.arms]
    return {name: "" if found is None else attribution.describe(found.plan, name) for name in names}


def calibration(comparison: Comparison) -> dict[str, float]:
    """For each arm with predictions, its calibration error."""
    return {
        arm: inference.calibration_error(found.confidences.ravel(), found.right.ravel())
        for arm, found in comparison.predictions.items()
        if found.right.size
    }


def took_note(comparison: Comparison) -> str:
    """What the figures of `took` mean."""
    return (
        f"Time to an accuracy is work until the end of the first epoch with that {comparison.performance.split} "
        "accuracy, start-up apart; cost is that of a run's work. Peak memory is the largest worker's. FLOP count "
        "convolutions and matrix products, a training step as three forward passes; utilisation is their rate over "
        "what a large matrix product reaches on the same workers. Answers are the trained model's, to one image alone "
        "and in batches of 64, on one worker. Energy is that of the nodes' processors and GPUs, whatever ran on them. "
        "What the machine does not tell is left out."
    )


def workers(count: Any) -> str:
    """`2 workers`, or `1 to 4 workers` for an elastic number."""
    if isinstance(count, dict):
        return f"{count['min']} to {count['max']} workers"
    return f"{count} worker{'s' if count > 1 else ''}"


def parities(comparison: Comparison) -> dict[str, list[str]]:
    """What parity found, and of which arms."""
    sentences: dict[str, list[str]] = {}
    for arm in comparison.arms:
        if arm.parity is not None:
            sentences.setdefault(arm.parity.sentence(), []).append(arm.name)
    return sentences


def named_differences(comparison: Comparison) -> list[dict[str, str]]:
    """The differences between the frameworks that parity named, a table's row each."""
    largest: dict[str, tuple[NamedDifference, list[str]]] = {}
    for arm in comparison.arms:
        for found in arm.parity.named if arm.parity is not None else []:
            most, arms = largest.get(found.name, (found, []))
            largest[found.name] = max(most, found, key=lambda each: each.share), [*arms, arm.name]
    return [
        {
            "difference": found.sentence,
            "formula": found.formula,
            "classes": found.source,
            "at most": f"{found.share * 100:.2g} % of an update ({found.weight}, step {found.step})",
            "arms": ", ".join(arms),
        }
        for found, arms in largest.values()
    ]


def searches(comparison: Comparison) -> list[dict[str, str]]:
    """What each arm's search spent and found, a table's row each."""
    if comparison.sweep is None:
        return []
    return [
        {
            "arm": search.arm,
            "trials": str(len(search.history.trials)),
            "ended": ", ".join(f"{count} {state}" for state, count in sorted(search.states.items())),
            "epochs": f"{search.history.epochs:,}",
            "workers' time": duration(search.busy_seconds),
            "wall time": duration(search.history.seconds),
            "cost": "–" if search.cost is None else f"{search.cost:.2f}",
            "best": _best(search, comparison.sweep),
        }
        for search in comparison.sweep.arms
    ]


def _best(search: ArmSearch, summary: SweepSummary) -> str:
    if search.winner is None:
        return "–"
    goal = summary.sweep.objective[0]
    winner = search.winner
    return f"{goal.replace('_', ' ')} {winner.value(goal):.4g} in trial {winner.number}: {winner.describe()}"


def settings(comparison: Comparison) -> list[dict[str, str]]:
    """What the workers' environment was, a setting to a row and a framework to a column."""
    frameworks = list(dict.fromkeys(arm.framework for arm in comparison.arms))
    return [
        {"setting": name}
        | {framework: ", ".join(map(_setting, values.get(framework, []))) or "–" for framework in frameworks}
        for name, values in comparison.settings.items()
    ]


def _setting(value: Any) -> str:
    if value is None:
        return "not set"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
