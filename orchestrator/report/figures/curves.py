"""Curves by epoch, by report and over time; means over seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.analysis.compare import Comparison
from orchestrator.analysis.performance import PARTS
from orchestrator.analysis.statistics import metrics
from orchestrator.analysis.statistics.metrics import ABSENT, Metric
from orchestrator.report.figures.chart import (
    MOST_POINTS,
    Axis,
    Chart,
    Series,
    Table,
    coinciding,
    cut,
    limits,
    thinned,
)

if TYPE_CHECKING:
    import pandas as pd

_MOST_BANDS = 12
"""Arms with a band; more would cover each other."""
_FEW = 30
"""Points that have a marker each."""


def learning(comparison: Comparison, measure: str) -> Chart | None:
    """Accuracy or loss by epoch.

    Args:
        comparison: the arms.
        measure: accuracy or loss.
    """
    frame = comparison.epochs_frame
    if frame.empty:
        return None
    column, split = _column(frame, measure)
    metric = _metric(column, split, measure)
    training = (
        frame.rename(columns={f"train_{measure}": "value"})[["arm", "epoch", "value"]]
        if split == "validation"
        else None
    )
    return _by_step(
        comparison,
        frame.rename(columns={column: "value"})[["arm", "epoch", "value"]],
        step="epoch",
        metric=metric,
        name=f"{measure}-by-epoch",
        training=training,
    )


def accuracy_over_time(comparison: Comparison) -> Chart | None:
    """Accuracy against the seconds a run had trained, evaluated and saved by then."""
    frame = comparison.epochs_frame
    if frame.empty:
        return None
    column, split = _column(frame, "accuracy")
    seconds = frame.reindex(columns=[*PARTS.values()]).sum(axis=1)
    frame = frame.assign(seconds=seconds.groupby(frame["run"]).cumsum(), value=frame[column])
    return _over_time(
        comparison,
        frame,
        step="epoch",
        metric=_metric(column, split, "accuracy"),
        name="accuracy-over-time",
        title="seconds of work, without start-up",
    )


def reported(comparison: Comparison) -> Chart | None:
    """What training functions reported of the metric, by report."""
    frame = comparison.reports_frame
    if frame.empty:
        return None
    return _by_step(
        comparison, frame, step="report", metric=comparison.metric, name="metric-by-report", training=None
    )


def reported_over_time(comparison: Comparison) -> Chart | None:
    """What training functions reported of the metric, against the seconds since their start."""
    frame = comparison.reports_frame
    if frame.empty:
        return None
    return _over_time(
        comparison,
        frame,
        step="report",
        metric=comparison.metric,
        name="metric-over-time",
        title="seconds since its start",
    )


def _column(frame: pd.DataFrame, measure: str) -> tuple[str, str]:
    validated = bool(frame["validation_accuracy"].notna().any())
    return (f"validation_{measure}", "validation") if validated else (f"train_{measure}", "training")


def _metric(column: str, split: str, measure: str) -> Metric:
    found = metrics.known(column)
    title = f"{split} {measure}"
    unit = "share" if measure == "accuracy" else None
    return Metric(name=column, goal=found.goal, unit=unit, title=title, noun=title)


def _by_step(
    comparison: Comparison,
    frame: pd.DataFrame,
    *,
    step: str,
    metric: Metric,
    name: str,
    training: pd.DataFrame | None,
) -> Chart:
    series, below = [], []
    means: dict[str, dict[int, float]] = {}
    values: list[float | None] = []
    arms = [arm.name for arm in comparison.arms]
    has_bands = len(arms) <= _MOST_BANDS
    is_thinned = False
    curves = frame.groupby(["arm", step])["value"].agg(["mean", "min", "max"])
    trainings = None if training is None else training.groupby(["arm", step])["value"].mean()
    known = {*frame["arm"]}
    for place, arm in enumerate(arms):
        if arm not in known:
            continue
        curve = curves.loc[arm]
        means[arm] = dict(zip(map(int, curve.index), map(float, curve["mean"]), strict=True))
        is_thinned |= len(curve) > MOST_POINTS
        curve = curve.iloc[thinned(len(curve))]
        steps = [float(number) for number in curve.index]
        drawn = {
            key: [metric.plotted(float(value)) for value in curve[key]] for key in ("mean", "min", "max")
        }
        values += drawn["mean"]
        if has_bands:
            values += drawn["min"] + drawn["max"]
        series.append(
            Series(
                name=arm,
                x=steps,
                y=drawn["mean"],
                place=place,
                low=drawn["min"] if has_bands else None,
                high=drawn["max"] if has_bands else None,
                is_band=True,
                size=6 if len(steps) <= _FEW else 0,
                texts=[
                    f"{arm}, {step} {number:,.0f}: {metric.value(float(value))}"
                    for number, value in zip(steps, curve["mean"], strict=True)
                ],
            )
        )
        if trainings is not None and len(steps) > 1:
            trained = trainings.loc[arm]
            trained = trained.iloc[thinned(len(trained))]
            below.append(
                Series(
                    name=arm,
                    x=[float(number) for number in trained.index],
                    y=[metric.plotted(float(value)) for value in trained],
                    place=place,
                    dash="dot",
                    width=1,
                    size=0,
                    is_named=False,
                )
            )
            values += below[-1].y
    found = limits(values, bounds=(metric.plotted(metric.bounds[0]), metric.plotted(metric.bounds[1])))
    drawn_series, notes = coinciding(series)
    if is_thinned:
        notes.append(f"Lines have at most {MOST_POINTS} of their points.")
    if not has_bands:
        notes.append(f"Bands are drawn for up to {_MOST_BANDS} arms.")
    steps_known = sorted({number for curve in means.values() for number in curve})
    return Chart(
        name=name,
        title=f"{metric.label} by {step}",
        x=Axis(title=step, has_integers=True),
        y=Axis(title=metric.heading, limits=found),
        series=below + drawn_series,
        table=Table(
            columns=[step, *means],
            rows=[
                [str(number), *(_written(metric, curve.get(number)) for curve in means.values())]
                for number in steps_known
            ],
        ),
        notes=[*cut(found, "vertical"), *notes],
    )


def _over_time(
    comparison: Comparison, frame: pd.DataFrame, *, step: str, metric: Metric, name: str, title: str
) -> Chart:
    series, rows_of_table = [], []
    values: list[float | None] = []
    is_thinned = False
    curves = frame.groupby(["arm", step])[["seconds", "value"]].mean()
    known = {*frame["arm"]}
    for place, arm in enumerate(arm.name for arm in comparison.arms):
        if arm not in known:
            continue
        curve = curves.loc[arm]
        rows_of_table += [
            [arm, f"{int(number):,}", f"{seconds:,.1f}", _written(metric, value)]
            for number, (seconds, value) in zip(curve.index, curve.to_numpy(float).tolist(), strict=True)
        ]
        is_thinned |= len(curve) > MOST_POINTS
        curve = curve.iloc[thinned(len(curve))]
        drawn = [metric.plotted(value) for value in curve["value"].tolist()]
        values += drawn
        series.append(
            Series(
                name=arm,
                x=curve["seconds"].tolist(),
                y=drawn,
                place=place,
                size=6 if len(curve) <= _FEW else 0,
                texts=[
                    f"{arm}, {step} {int(number):,}, {seconds:,.1f} s: {metric.value(value)}"
                    for number, (seconds, value) in zip(
                        curve.index, curve.to_numpy(float).tolist(), strict=True
                    )
                ],
            )
        )
    found = limits(values, bounds=(metric.plotted(metric.bounds[0]), metric.plotted(metric.bounds[1])))
    drawn_series, notes = coinciding(series)
    if is_thinned:
        notes.append(f"Lines have at most {MOST_POINTS} of their points.")
    return Chart(
        name=name,
        title=f"{metric.label} over time",
        x=Axis(title=title),
        y=Axis(title=metric.heading, limits=found),
        series=drawn_series,
        table=Table(columns=["arm", step, "seconds", metric.title], rows=rows_of_table),
        notes=[*cut(found, "vertical"), *notes],
    )


def _written(metric: Metric, value: float | None) -> str:
    return ABSENT if value is None or value != value else metric.value(value)
