"""What the conclusion says, as charts: every seed, the gaps with their intervals and the margin, parts of a gap."""

from __future__ import annotations

from orchestrator.analysis.arms import ArmSummary
from orchestrator.analysis.compare import Comparison
from orchestrator.analysis.pairs import PairComparison
from orchestrator.analysis.statistics.metrics import Metric
from orchestrator.report.figures.chart import Axis, Chart, Series, Table, cut, limits, stacked

_MOST_JOINED = 8
"""Arms whose seeds are joined by lines; with more, lines only cover each other."""
_SPREAD = 0.22
_MOST_DOTS = 100
"""Of an arm, as large as they are elsewhere."""


def seeds(comparison: Comparison) -> Chart | None:
    """Each seed a dot in its arm's row, those of one seed joined, and the arms' means with their intervals."""
    metric = comparison.metric
    arms = [arm for arm in comparison.arms if arm.scores.by_seed]
    if not arms:
        return None
    offsets = {
        arm.name: dict(
            zip(arm.scores.by_seed, stacked([*arm.scores.by_seed.values()], within=_SPREAD), strict=True)
        )
        for arm in arms
    }
    series: list[Series] = []
    values: list[float | None] = []
    shared = _shared(arms)
    if shared:
        lines: list[tuple[float | None, float | None]] = []
        for seed in shared:
            lines += [
                (metric.plotted(arm.scores.by_seed[seed]), row + offsets[arm.name][seed])
                for row, arm in enumerate(arms)
            ]
            lines.append((None, None))
        series.append(
            Series(
                name="one seed",
                x=[x for x, _ in lines],
                y=[y for _, y in lines],
                size=0,
                width=1,
                is_faint=True,
                is_named=False,
            )
        )
    for row, arm in enumerate(arms):
        place = comparison.arms.index(arm)
        known = arm.scores.by_seed
        score = arm.score
        dots = [metric.plotted(value) for value in known.values()]
        is_crowded = len(dots) > _MOST_DOTS
        series.append(
            Series(
                name=arm.name,
                x=dots,
                y=[row + offset for offset in offsets[arm.name].values()],
                kind="points",
                place=place,
                size=4 if is_crowded else 8,
                is_named=False,
                is_faint=is_crowded,
                texts=[f"{arm.name}, seed {seed}: {metric.value(value)}" for seed, value in known.items()],
            )
        )
        values += dots
        if score is not None and score.low is not None and score.high is not None:
            ends = [metric.plotted(score.low), metric.plotted(score.high)]
            series.append(
                Series(
                    name=arm.name,
                    x=[metric.plotted(score.mean)],
                    y=[row + 0.36],
                    low=ends[:1],
                    high=ends[1:],
                    kind="points",
                    place=None,
                    size=6,
                    width=2.5,
                    is_named=False,
                    texts=[f"{arm.name}, mean: {metric.interval(score)}"],
                )
            )
            values += ends
    bounds = (metric.plotted(metric.bounds[0]), metric.plotted(metric.bounds[1]))
    found = limits(values, bounds=bounds)
    numbers = list(dict.fromkeys(seed for arm in arms for seed in arm.scores.by_seed))
    return Chart(
        name="claim-seeds",
        title=f"{metric.label} of each seed",
        x=Axis(title=metric.heading, limits=found),
        y=Axis(title="", labels=[arm.name for arm in arms]),
        series=series,
        table=Table(
            columns=["seed", *(arm.name for arm in arms)],
            rows=[
                [str(seed), *(metric.value(arm.scores.by_seed.get(seed)) for arm in arms)] for seed in numbers
            ],
        ),
        notes=cut(found, "horizontal") + ([] if shared or len(arms) == 1 else [_why_not_joined(arms)]),
    )


def _shared(arms: list[ArmSummary]) -> list[int]:
    """The seeds that all arms have, if they are paired and can be told apart."""
    keys = [{*arm.scores.by_seed} for arm in arms]
    if len(arms) < 2 or len(arms) > _MOST_JOINED or any(key != keys[0] for key in keys):
        return []
    return [*arms[0].scores.by_seed]


def _why_not_joined(arms: list[ArmSummary]) -> str:
    if len(arms) > _MOST_JOINED:
        return f"Seeds are joined by lines for up to {_MOST_JOINED} arms."
    return "Seeds are not joined, since not all arms have the same ones."


def gaps(comparison: Comparison) -> Chart | None:
    """The gap of each leading pair with its interval, the margin shaded and each paired seed a dot."""
    metric = comparison.metric
    pairs = [pair for pair in comparison.leading_pairs if pair.judgement is not None]
    if not pairs:
        return None
    arms = {arm.name: arm for arm in comparison.arms}
    places = {arm.name: place for place, arm in enumerate(comparison.arms)}
    margin = None if metric.margin is None else metric.plotted(metric.margin)
    values: list[float | None] = [0.0, margin, None if margin is None else -margin]
    series: list[Series] = []
    rows = []
    for row, pair in enumerate(pairs):
        judgement = pair.judgement
        assert judgement is not None
        place = None if pair.ahead is None else places[pair.ahead]
        dots = _differences(pair, arms, metric)
        if dots:
            series.append(
                Series(
                    name="seeds",
                    x=[*dots.values()],
                    y=[row + 0.3 + offset for offset in stacked([*dots.values()], within=0.14)],
                    kind="points",
                    place=None,
                    size=5,
                    is_faint=True,
                    is_named=False,
                    texts=[f"seed {seed}: {value:+.4g}{metric.gap_unit}" for seed, value in dots.items()],
                )
            )
            values += [*dots.values()]
        name = f"{pair.first} − {pair.second}"
        for interval, width in ((judgement.gap, 2.0), (judgement.equality, 5.0)):
            ends = [metric.plotted(end) for end in (interval.low, interval.high) if end is not None]
            values += [metric.plotted(interval.mean), *ends]
            series.append(
                Series(
                    name=name,
                    x=[metric.plotted(interval.mean)],
                    y=[row],
                    low=ends[:1] or None,
                    high=ends[1:] or None,
                    kind="points",
                    place=place,
                    size=9,
                    width=width,
                    is_named=False,
                    texts=[f"{name}: {metric.differences(judgement.gap)}{metric.gap_unit}, 95 %"],
                )
            )
        rows.append(
            [
                f"{pair.first} − {pair.second}",
                metric.differences(judgement.gap),
                metric.differences(judgement.equality),
                "–" if metric.margin is None else metric.tolerance,
                *([", ".join(f"{value:+.4g}" for value in dots.values()) or "–"] if len(pairs) <= 12 else []),
            ]
        )
    low, high = limits(values)
    columns = ["pair", f"{metric.gap_heading}, 95 %", "90 %", "margin"]
    return Chart(
        name="claim-gaps",
        title="The gap" if len(pairs) == 1 else f"Gaps of {len(pairs)} pairs",
        x=Axis(title=metric.gap_heading, limits=(low, high)),
        y=Axis(title="", labels=[f"{pair.first} − {pair.second}" for pair in pairs]),
        series=series,
        table=Table(
            columns=[*columns, "each seed"] if len(pairs) <= 12 else columns,
            rows=rows,
        ),
        shade=None if margin is None else (-margin, margin),
        rule=0.0,
    )


def _differences(pair: PairComparison, arms: dict[str, ArmSummary], metric: Metric) -> dict[int, float]:
    """Of each seed; empty for arms that are not paired."""
    if not pair.is_paired:
        return {}
    one, two = (arms[name].scores.by_seed for name in pair.names)
    return {seed: metric.plotted(value - two[seed]) for seed, value in one.items()}


def caption(comparison: Comparison) -> str:
    """How to read these charts."""
    metric = comparison.metric
    pairs = comparison.leading_pairs
    margin = (
        "There is no margin."
        if metric.margin is None
        else f"The shaded band is the margin of {metric.tolerance} to either side."
    )
    lower = "" if metric.goal == "maximize" else f" Lower {metric.title} is better."
    left_out = len(comparison.pairs) - len(pairs)
    which = (
        f" These are the pairs with the best arm; the other {left_out:,} are in the table below."
        if left_out
        else ""
    )
    return (
        "Dots are seeds, and lines join the same seed. Thin bars are 95 % intervals, thick ones 90 %, which must lie "
        f"inside the margin for a verdict of equal. {margin} A gap is the first arm minus the second; it has the "
        f"colour of the arm that is proven to be better, if one is.{lower}{which}"
    )


def parts(comparison: Comparison) -> Chart | None:
    """Each factor's share of the gap with its interval, and the gap itself."""
    found = comparison.attribution
    if found is None or not found.shares:
        return None
    metric = found.metric
    rows = [(share.factor, share.score) for share in found.shares] + [("all together", found.gap)]
    names = [arm.name for arm in comparison.arms]
    series = []
    values: list[float | None] = [0.0]
    for row, (name, interval) in enumerate(rows):
        ahead = found.plan.first if metric.advantage(interval.mean) >= 0 else found.plan.second
        ends = [metric.plotted(end) for end in (interval.low, interval.high) if end is not None]
        series.append(
            Series(
                name=name,
                x=[metric.plotted(interval.mean)],
                y=[row],
                low=ends[:1] or None,
                high=ends[1:] or None,
                kind="bars",
                place=None if name == "all together" else names.index(ahead) if ahead in names else None,
                is_faint=name == "all together",
                is_named=False,
                texts=[f"{name}: {metric.differences(interval)}{metric.gap_unit}"],
            )
        )
        values += [metric.plotted(interval.mean), *ends]
    return Chart(
        name="attribution",
        title="Parts of the gap",
        x=Axis(
            title=f"{metric.gap_heading}, {found.plan.first} over {found.plan.second}", limits=limits(values)
        ),
        y=Axis(title="", labels=[name for name, _ in rows]),
        series=series,
        table=Table(
            columns=["factor", metric.gap_heading],
            rows=[[name, metric.differences(interval)] for name, interval in rows],
        ),
        rule=0.0,
    )
