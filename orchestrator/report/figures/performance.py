"""Speed, where time went, and scaling, as charts."""

from __future__ import annotations

from orchestrator.analysis.compare import Comparison
from orchestrator.report.figures.chart import Axis, Chart, Series, Table, limits, stacked
from orchestrator.store.storage import Record


def throughput(comparison: Comparison) -> Chart | None:
    """Images per second of each run, and each arm's mean."""
    arms = [arm for arm in comparison.arms if arm.images_per_second is not None]
    if not arms:
        return None
    series = []
    for row, arm in enumerate(arms):
        speed = arm.images_per_second
        assert speed is not None
        series.append(
            Series(
                name=arm.name,
                x=[speed.mean],
                y=[row],
                kind="bars",
                place=comparison.arms.index(arm),
                is_named=False,
                is_faint=True,
                texts=[f"{arm.name}, mean: {speed.mean:,.0f} images/s"],
            )
        )
        series.append(
            Series(
                name=arm.name,
                x=[*arm.speeds.values()],
                y=[row + offset for offset in stacked([*arm.speeds.values()], within=0.25)],
                kind="points",
                place=comparison.arms.index(arm),
                size=6,
                is_named=False,
                texts=[
                    f"{arm.name}, seed {seed}: {value:,.0f} images/s" for seed, value in arm.speeds.items()
                ],
            )
        )
    return Chart(
        name="throughput",
        title="Training images per second",
        x=Axis(title="images/s"),
        y=Axis(title="", labels=[arm.name for arm in arms]),
        series=series,
        table=Table(
            columns=["arm", "seed", "images/s"],
            rows=[
                [arm.name, str(seed), f"{value:,.0f}"] for arm in arms for seed, value in arm.speeds.items()
            ],
        ),
        notes=["Bars are means over seeds, dots are seeds."],
    )


def seconds(comparison: Comparison) -> Chart | None:
    """Where an arm's time went, by part."""
    measured = comparison.performance.arms
    arms = [arm.name for arm in comparison.arms if measured[arm.name].seconds]
    if not arms:
        return None
    parts = dict.fromkeys(part for arm in arms for part in measured[arm].seconds)
    base = [0.0] * len(arms)
    series = []
    for place, part in enumerate(parts):
        widths = [measured[arm].seconds.get(part, 0.0) for arm in arms]
        series.append(
            Series(
                name=part,
                x=widths,
                y=[float(row) for row in range(len(arms))],
                kind="bars",
                place=place,
                base=base,
                texts=[f"{arm}, {part}: {width:,.2f} s" for arm, width in zip(arms, widths, strict=True)],
            )
        )
        base = [one + two for one, two in zip(base, widths, strict=True)]
    return Chart(
        name="seconds",
        title="Where the time went",
        x=Axis(title="seconds"),
        y=Axis(title="", labels=arms),
        series=series,
        table=Table(
            columns=["arm", *parts],
            rows=[[arm, *(f"{measured[arm].seconds.get(part, 0.0):,.2f}" for part in parts)] for arm in arms],
        ),
    )


def scaling(scales: Record) -> list[Chart]:
    """Efficiency against workers in strong and in weak scaling: measured, and dashed the model's prediction.

    Args:
        scales: as `tandem bench scaling` writes it.
    """
    arms = {name: scale for name, scale in scales.items() if name != "schema"}
    charts = []
    for mode in ("strong", "weak"):
        series, rows = [], []
        values: list[float | None] = [0.0]
        for place, (arm, scale) in enumerate(arms.items()):
            measured, predicted = scale["efficiency"][mode], scale["predicted_efficiency"][mode]
            for found, kind in ((predicted, "predicted"), (measured, "measured")):
                shares = [value * 100 for value in found.values()]
                values += shares
                series.append(
                    Series(
                        name=arm,
                        x=[float(workers) for workers in found],
                        y=shares,
                        place=place,
                        dash="dash" if kind == "predicted" else "solid",
                        width=1 if kind == "predicted" else 2,
                        size=0 if kind == "predicted" else 7,
                        is_named=kind == "measured",
                    )
                )
                rows += [
                    [arm, str(workers), kind, f"{value * 100:.2f} %"] for workers, value in found.items()
                ]
        charts.append(
            Chart(
                name=f"{mode}-scaling",
                title=f"{mode.capitalize()} scaling",
                x=Axis(title="workers", is_logarithmic=True),
                y=Axis(title="efficiency, %", limits=(0.0, limits(values)[1])),
                series=series,
                table=Table(columns=["arm", "workers", "", "efficiency"], rows=rows),
            )
        )
    return charts
