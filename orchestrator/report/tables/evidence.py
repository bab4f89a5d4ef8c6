"""The verdicts on pairs of arms, and what the gap is made of, as rows of text."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.analysis.compare import Comparison
from orchestrator.analysis.pairs import PairComparison, times
from orchestrator.analysis.statistics.inference import Budget
from orchestrator.analysis.statistics.verdicts import Verdict
from orchestrator.analysis.wording import listed
from orchestrator.report.tables.text import Number, difference, number, p_value, with_bounds


def evidences(pairs: Sequence[PairComparison]) -> list[dict[str, str]]:
    """The verdict on each pair of arms with all that it rests on, a table's row each."""
    rows = []
    for pair in pairs:
        judgement = pair.judgement
        if judgement is None:
            continue
        rows.append(
            {
                "pair": f"{pair.first} − {pair.second}",
                "verdict": _verdict(pair),
                "gap, 95 %": difference(pair.metric, judgement.gap),
                "gap, 90 %": difference(pair.metric, judgement.equality),
                "p": p_value(judgement.p_value),
                "smallest detectable gap": number(
                    judgement.detectable, pair.metric.difference(judgement.detectable or 0)
                ),
                "seeds": Number(
                    " and ".join(map(str, pair.seeds)) + (", paired" if pair.is_paired else ""),
                    min(pair.seeds),
                ),
                "only one is right": "–"
                if pair.discordant is None
                else Number(
                    f"{pair.discordant[0]:,.1f} against {pair.discordant[1]:,.1f}",
                    pair.discordant[0] - pair.discordant[1],
                ),
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
                    "time to the end": with_bounds(found.end, times),
                    "time to the target": "–" if found.target is None else with_bounds(found.target, times),
                    "images/s": "–" if found.rate is None else with_bounds(found.rate, times),
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
            "points": difference(found.metric, share.score),
            "points_value": share.score.mean,
            "speed": "–" if share.log_speed is None else with_bounds(share.log_speed, times),
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
        "points": difference(found.metric, found.gap),
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
            found.metric.gap_heading: difference(found.metric, entry.score),
        }
        for entry in found.interactions
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
