"""A comparison as rows of text, for the page and for Markdown alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.analysis import inference, metrics
from orchestrator.analysis.arms import ArmSummary
from orchestrator.analysis.compare import Comparison
from orchestrator.analysis.inference import Budget, Interval, Measure
from orchestrator.analysis.metrics import Metric
from orchestrator.analysis.pairs import PairComparison, times
from orchestrator.analysis.parity import NamedDifference
from orchestrator.analysis.performance import ArmPerformance
from orchestrator.analysis.sweeps import ArmSearch, SweepSummary
from orchestrator.analysis.verdicts import Verdict
from orchestrator.analysis.wording import duration, listed
from orchestrator.experiment.spec import describe_value
from orchestrator.planning import crossings
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


def arms(comparison: Comparison) -> list[dict[str, str]]:
    """What each arm reached, a table's row each."""
    rows = []
    for arm in comparison.arms:
        rows.append(
            {
                "arm": arm.name,
                "framework": arm.framework or "training function",
                comparison.metric.title: comparison.metric.interval(arm.score),
            }
            | others(comparison, arm)
            | {
                "time to the end": _seconds(comparison.performance.arms[arm.name].end_seconds),
                "images/s": whole(arm.images_per_second),
                "runs": f"{len(arm.done)} of {len(arm.runs)}",
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
        metric.title: metric.interval(found.interval if (found := arm.measures.get(metric.name)) else None)
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


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def evidences(comparison: Comparison) -> list[dict[str, str]]:
    """The verdict on each pair of arms with all that it rests on, a table's row each."""
    rows = []
    for pair in comparison.pairs:
        judgement = pair.judgement
        if judgement is None:
            continue
        rows.append(
            {
                "pair": f"{pair.first} − {pair.second}",
                "verdict": _verdict(pair),
                "gap, 95 %": pair.metric.differences(judgement.gap),
                "gap, 90 %": pair.metric.differences(judgement.equality),
                "p": _p(judgement.p_value),
                "smallest detectable gap": "–"
                if judgement.detectable is None
                else pair.metric.difference(judgement.detectable),
                "seeds": " and ".join(map(str, pair.seeds)) + (", paired" if pair.is_paired else ""),
                "only one is right": "–"
                if pair.discordant is None
                else f"{pair.discordant[0]:,.1f} against {pair.discordant[1]:,.1f}",
                "uncertainty from": _budget(pair.budget),
            }
        )
    return rows


def evidence_note(comparison: Comparison) -> str:
    """What the columns of `evidences` mean."""
    metric = comparison.metric
    alone = all(pair.images is None for pair in comparison.pairs)
    samples = (
        "seeds alone, which leaves out that other test examples would differ"
        if alone
        else "seeds and test images"
    )
    size = (
        "There is no margin, so that the size of a gap is not judged and equality is not proven."
        if metric.margin is None
        else "It is better by more than the margin if the interval leaves the margin out. Two arms are equal within "
        f"the margin of {metric.tolerance} if the 90 % interval lies inside it."
    )
    is_known = any(pair.discordant is not None for pair in comparison.pairs)
    right = (
        " Only one is right: test images that only the first, and only the second arm classifies correctly, mean over "
        "seeds."
        if is_known
        else ""
    )
    direction = "" if metric.goal == "maximize" else f"; lower {metric.title} is better"
    return (
        f"Gaps are in {metric.gap_heading}, the first arm minus the second, with intervals over {samples}{direction}. "
        "All intervals and p-values of one report hold together (Bonferroni). An arm is better if the 95 % interval "
        f"leaves zero out. {size} The smallest detectable gap is the true gap that would be found with a power of "
        f"80 %.{right} Uncertainty from: parts of the gap's variance."
    )


def _verdict(pair: PairComparison) -> str:
    judgement = pair.judgement
    assert judgement is not None
    if judgement.obstacle is not None:
        return f"none: {judgement.obstacle}"
    if pair.ahead is not None:
        by_more = judgement.verdict is Verdict.BETTER_BY_MORE
        return f"{pair.ahead} is better{' by more than the margin' if by_more else ''}"
    return "equal within the margin" if judgement.verdict is Verdict.EQUAL else "undecided"


def _budget(budget: Budget | None) -> str:
    """`seeds 60 %, images 38 %, rest 2 %`, of the gap's variance."""
    if budget is None:
        return "–"
    parts = {"seeds": budget.seeds, "images": budget.images, "rest": budget.residual}
    whole = sum(part or 0.0 for part in parts.values())
    if whole <= 0:
        return "–"
    return ", ".join(f"{name} {part / whole:.0%}" for name, part in parts.items() if part is not None)


def speeds(comparison: Comparison) -> list[dict[str, str]]:
    """How long each pair of arms took against each other, a table's row each."""
    rows = []
    for pair in comparison.pairs:
        found = pair.speed
        if found is not None and found.end is not None:
            rows.append(
                {
                    "pair": f"{pair.first} / {pair.second}",
                    "time to the end": _with_bounds(found.end, times),
                    "time to the target": "–" if found.target is None else _with_bounds(found.target, times),
                    "images/s": "–" if found.rate is None else _with_bounds(found.rate, times),
                    "groups of processes": "shared, no verdict"
                    if found.groups is None
                    else " and ".join(map(str, found.groups)),
                }
            )
    return rows


def groups(comparison: Comparison) -> str:
    """Which arms cannot be told apart, in a sentence; empty for two arms and with a baseline."""
    if not comparison.groups:
        return ""
    sets = "; ".join(listed(group) for group in comparison.groups)
    return f"Groups of arms of which no two are told apart, best first: {sets}."


def attributed(comparison: Comparison) -> list[dict[str, str | float]]:
    """Each factor's share of the gap, a table's row each, and the whole."""
    found = comparison.attribution
    if found is None or not found.shares:
        return []
    rows: list[dict[str, str | float]] = [
        {
            "factor": share.factor,
            "points": found.metric.differences(share.score),
            "points_value": share.score.mean,
            "speed": "–" if share.log_speed is None else _with_bounds(share.log_speed, times),
            "speed_value": share.speed_ratio or "",
        }
        for share in found.shares
    ]
    speeds = [share.log_speed.mean for share in found.shares if share.log_speed is not None]
    whole_speed = times(sum(speeds)) if len(speeds) == len(found.shares) else "–"
    if found.plan.is_fraction:
        rows.append(
            {
                "factor": "three factors and more",
                "points": found.metric.difference(found.remainder, signed=True),
                "points_value": found.remainder,
                "speed": "–",
                "speed_value": "",
            }
        )
    total: dict[str, str | float] = {
        "factor": "all together",
        "points": found.metric.differences(found.gap),
        "points_value": found.gap.mean,
        "speed": whole_speed,
        "speed_value": whole_speed,
    }
    return [*rows, total]


def interactions(comparison: Comparison) -> list[dict[str, str]]:
    """What every two factors do together beyond each by itself, a table's row each."""
    found = comparison.attribution
    if found is None:
        return []
    return [
        {
            "factors": " × ".join(entry.factors),
            found.metric.gap_heading: found.metric.differences(entry.score),
        }
        for entry in found.interactions
    ]


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
                "time to the end": _seconds(used.end_seconds),
                f"time to {target}": "–" if found.target is None else _time_to(used, len(arm.done)),
                "cost": _cost(used.cost),
                "peak memory": _bytes(used.memory_peak_bytes),
                "GPU memory": _bytes(used.device_memory_peak_bytes),
                "training": "–" if used.training_flops is None else f"{_scaled(used.training_flops)}FLOP",
                "speed": "–" if used.flops_per_second is None else f"{_scaled(used.flops_per_second)}FLOP/s",
                "MFU": "–" if used.model_flops_utilisation is None else f"{used.model_flops_utilisation:.0%}",
                "latency": "–" if used.latency_seconds is None else f"{used.latency_seconds * 1000:.3g} ms",
                "predictions/s": "–"
                if used.predictions_per_second is None
                else f"{used.predictions_per_second:,.0f}",
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
    """What varies over an arm's seeds, a table's row for each arm and quantity."""
    target = comparison.performance.target
    rows = []
    for arm in comparison.arms:
        used = comparison.performance.arms[arm.name]
        quantities: list[tuple[str, Measure | None, Callable[[float], str]]] = [
            (comparison.metric.heading, used.score, comparison.metric.bare),
            *((metric.heading, arm.measures.get(metric.name), metric.bare) for metric in shown(comparison)),
            ("seconds to the end", used.end_seconds, lambda seconds: f"{seconds:,.1f}"),
            (f"seconds to {target or 0:.1%}", used.target_seconds, lambda seconds: f"{seconds:,.1f}"),
            ("images/s", used.images_per_second, lambda rate: f"{rate:,.0f}"),
            ("cost", used.cost, lambda money: f"{money:,.4g}"),
        ]
        for name, found, write in quantities:
            if found is not None and found.deviation is not None:
                rows.append(
                    {
                        "arm": arm.name,
                        "quantity": name,
                        "mean with its 95 % interval": _with_bounds(found.interval, write),
                        "standard deviation": write(found.deviation),
                    }
                )
    return rows


def _seconds(seconds: Measure | None) -> str:
    return (
        "–" if seconds is None else _with_bounds(seconds.interval, lambda value: f"{value:,.1f}", unit=" s")
    )


def _time_to(used: ArmPerformance, runs: int) -> str:
    if used.target_seconds is not None:
        return _seconds(used.target_seconds)
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
        {"arm": arm.name, "undamaged": percent(next(iter(arm.corruption_robustness.values()))[0])}
        | {
            f"{kind} {severity}": percent(intervals[place + 1])
            for kind, intervals in arm.corruption_robustness.items()
            for place, severity in enumerate(SEVERITIES)
        }
        for arm in comparison.arms
        if arm.corruption_robustness
    ]


def attribution_note(comparison: Comparison) -> str:
    """How the gap was taken apart."""
    found = comparison.attribution
    if found is None:
        return ""
    plan = found.plan
    if plan.orders:
        how = (
            f"{len(plan.pairs_of_orders)} sampled orders of changing them, each with its reverse, over "
            f"{len(plan.choices)} recipes; intervals contain the sampling error of the orders"
        )
    elif plan.is_fraction:
        how = (
            f"{len(plan.choices)} of the {2 ** len(plan.factors)} recipes between the two arms, a fraction that keeps "
            "single factors and pairs apart"
        )
    else:
        how = f"all {len(plan.choices)} recipes between the two arms"
    epochs = sorted({arm.recipe["epochs"] for arm in comparison.arms})
    stopped = any(arm.recipe.get("early_stopping") for arm in comparison.arms)
    trained = ("at most " if stopped else "") + " and ".join(map(str, epochs))
    return (
        f"Shapley values from {how}, each trained for {trained} epochs with {len(found.seeds)} paired seeds. "
        f"A share is what a factor adds to {plan.first} over {plan.second}, averaged over all orders; "
        "the shares sum to the gap. Their 95 % intervals hold together. An interaction is by how much more one factor "
        "adds when the other is as in the second arm."
    )


def descriptions(comparison: Comparison) -> dict[str, str]:
    """For each arm of an attribution, what its recipe is made of."""
    found = comparison.attribution
    names = [arm.name for arm in comparison.arms]
    return {name: "" if found is None else crossings.describe(found.plan, name) for name in names}


def calibration(comparison: Comparison) -> dict[str, float]:
    """For each arm with predictions, its calibration error."""
    return {
        arm: inference.calibration_error(found.confidences.ravel(), found.right.ravel())
        for arm, found in comparison.predictions.items()
        if found.right.size and found.confidences is not None
    }


def took_note(comparison: Comparison) -> str:
    """What the figures of `took` mean."""
    if all(arm.is_own for arm in comparison.arms):
        return (
            "Time to the end is from a cold start to the end of the training function. Cost includes start-up. What a "
            "training function does not report is left out."
        )
    return (
        "Time to the end is from a cold start to the end of the test, or of the training function; time to an accuracy "
        f"is from a cold start to the end of the first epoch with that {comparison.performance.split} accuracy. Cost "
        "includes start-up. "
        "Peak memory is the largest worker's. FLOP count "
        "convolutions and matrix products, a training step as three forward passes. Model FLOPs utilisation (MFU) is "
        "their rate divided by that of a large matrix product on the same workers. Latency is for one image, and "
        "predictions/s are in batches of 64, both of the trained model on one worker. Energy is that of the nodes' "
        "processors and GPUs, whatever ran on them. "
        "What the machine does not report is left out."
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
    return f"{goal.title} {winner.value(goal):.4g} in trial {winner.number}: {winner.describe()}"


def settings(comparison: Comparison) -> list[dict[str, str]]:
    """What the workers' environment was, a setting to a row and a framework to a column."""
    frameworks = list(dict.fromkeys(arm.framework or arm.name for arm in comparison.arms))
    return [
        {"setting": name}
        | {framework: ", ".join(map(_setting, values.get(framework, []))) or "–" for framework in frameworks}
        for name, values in comparison.settings.items()
    ]


def _setting(value: Any) -> str:
    if value is None:
        return "not set"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
