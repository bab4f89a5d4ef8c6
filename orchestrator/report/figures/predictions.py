"""Right and wrong predictions by class, damage and confidence, as charts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchestrator.analysis.arms import ArmSummary
from orchestrator.analysis.compare import Comparison
from orchestrator.report.figures.chart import Axis, Chart, Series, Table, coinciding, cut, limits
from trainers.data.corruptions import SEVERITIES

MOST_CLASSES = 40
"""In a chart: of more, those with the largest gaps or the most mistakes."""
_WITHIN = 0.3
_TABLED_CELLS = 60_000


def class_accuracy(comparison: Comparison) -> Chart | None:
    """Each class' accuracy in each arm, a row for each class."""
    arms = [arm for arm in comparison.arms if arm.class_accuracy is not None]
    names = comparison.class_names
    if not arms:
        return None
    shares = np.stack([np.asarray(arm.class_accuracy, float) for arm in arms])
    chosen = _most(_spread(shares) if len(arms) > 1 else 1 - shares[0], len(names))
    offsets = _offsets(len(arms))
    series = [
        Series(
            name=arm.name,
            x=[_plain(shares[number, place] * 100) for place in chosen],
            y=[row + offsets[number] for row in range(len(chosen))],
            kind="points",
            place=comparison.arms.index(arm),
            texts=[f"{arm.name}, {names[place]}: {_share(shares[number, place])}" for place in chosen],
        )
        for number, arm in enumerate(arms)
    ]
    found = limits([value for each in series for value in each.x], bounds=(0, 100))
    notes = cut(found, "horizontal")
    if len(chosen) < len(names):
        most = "the largest gaps between arms" if len(arms) > 1 else "the most mistakes"
        notes.append(f"{len(chosen)} of {len(names):,} classes, those with {most}.")
    tabled = range(len(names)) if len(names) * len(arms) <= _TABLED_CELLS else chosen
    return Chart(
        name="class-accuracy",
        title="Test accuracy by class",
        x=Axis(title="test accuracy, %", limits=found),
        y=Axis(title="", labels=[names[place] for place in chosen]),
        series=series,
        table=Table(
            columns=["class", *(arm.name for arm in arms)],
            rows=[
                [names[place], *(_share(shares[number, place]) for number in range(len(arms)))]
                for place in tabled
            ],
        ),
        notes=notes,
    )


def _spread(shares: np.ndarray) -> np.ndarray:
    return np.asarray(np.nan_to_num(shares.max(axis=0) - shares.min(axis=0)))


def _most(weights: np.ndarray, count: int) -> list[int]:
    """All classes, or of many those with the largest weights, in the order of the classes."""
    if count <= MOST_CLASSES:
        return list(range(count))
    return sorted(np.argsort(-weights, kind="stable")[:MOST_CLASSES].tolist())


def _offsets(count: int) -> list[float]:
    """For as many arms, places beside each other within a row."""
    return np.linspace(-_WITHIN, _WITHIN, count).tolist() if count > 1 else [0.0]


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _share(value: float) -> str:
    return f"{value * 100:.2f} %" if np.isfinite(value) else "–"


def corruption_robustness(comparison: Comparison) -> list[Chart]:
    """Accuracy on damaged images by severity, a chart for each kind of damage."""
    arms = [arm for arm in comparison.arms if arm.corruption_robustness]
    if not arms:
        return []
    charts = []
    steps = ["none", *map(str, SEVERITIES)]
    # Arms beside each other, so that equal ones do not hide each other.
    offsets = [offset * 0.3 for offset in _offsets(len(arms))]
    values = [
        interval.mean * 100
        for arm in arms
        for intervals in arm.corruption_robustness.values()
        for interval in intervals
    ]
    found = limits(values, bounds=(0, 100))
    for kind in arms[0].corruption_robustness:
        means = {arm.name: [interval.mean for interval in arm.corruption_robustness[kind]] for arm in arms}
        series = [
            Series(
                name=arm.name,
                x=[step + offset for step in range(len(steps))],
                y=[mean * 100 for mean in means[arm.name]],
                place=comparison.arms.index(arm),
                size=8,
                texts=[
                    f"{arm.name}, severity {step}: {_share(mean)}"
                    for step, mean in zip(steps, means[arm.name], strict=True)
                ],
            )
            for arm, offset in zip(arms, offsets, strict=True)
        ]
        charts.append(
            Chart(
                name=f"corruption-robustness-{kind.lower()}",
                title="JPEG" if kind == "jpeg" else kind.capitalize(),
                x=Axis(title="severity", labels=steps),
                y=Axis(title="test accuracy, %", limits=found),
                series=series,
                table=Table(
                    columns=["arm", *steps],
                    rows=[[name, *map(_share, shares)] for name, shares in means.items()],
                ),
                notes=cut(found, "vertical"),
            )
        )
    return charts


def reliability(comparison: Comparison) -> Chart | None:
    """How often predictions of each confidence are correct, over all seeds of an arm."""
    series, rows = [], []
    for number, arm in enumerate(arm.name for arm in comparison.arms):
        found = comparison.predictions.get(arm)
        if found is None or found.confidences is None or not found.right.size:
            continue
        sure, right = found.confidences.ravel(), found.right.ravel()
        place = np.clip((sure * 10).astype(int), 0, 9)
        counts = np.bincount(place, minlength=10)
        filled = np.flatnonzero(counts)
        sums = [np.bincount(place, weights=weights, minlength=10) for weights in (sure, right)]
        x, y = ((total[filled] / counts[filled]).tolist() for total in sums)
        series.append(
            Series(
                name=arm,
                x=[value * 100 for value in x],
                y=[value * 100 for value in y],
                place=number,
                texts=[
                    f"{arm}: confidence {_share(one)}, correct {_share(two)}, {count:,} predictions"
                    for one, two, count in zip(x, y, counts[filled].tolist(), strict=True)
                ],
            )
        )
        rows += [
            [arm, _share(one), _share(two), f"{count:,}"]
            for one, two, count in zip(x, y, counts[filled].tolist(), strict=True)
        ]
    if not series:
        return None
    drawn, notes = coinciding(series)
    diagonal = Series(
        name="equal", x=[0, 100], y=[0, 100], dash="dash", width=1, size=0, is_faint=True, is_named=False
    )
    return Chart(
        name="reliability",
        title="Calibration",
        x=Axis(title="mean confidence, %", limits=(-2, 102)),
        y=Axis(title="correct predictions, %", limits=(-2, 102)),
        series=[diagonal, *drawn],
        table=Table(columns=["arm", "mean confidence", "correct", "predictions"], rows=rows),
        notes=notes,
    )


def confusion(comparison: Comparison, arm: ArmSummary) -> Chart | None:
    """The share of each class' test images by the class that one arm predicted."""
    matrix = arm.confusion
    if matrix is None:
        return None
    names = comparison.class_names
    mistakes = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * np.diag(matrix)
    chosen = _most(mistakes, len(names))
    totals = matrix.sum(axis=1)
    counts = matrix[np.ix_(chosen, chosen)]
    shares = counts / np.maximum(totals[chosen], 1)[:, None]
    shown = [names[place] for place in chosen]
    return Chart(
        name=f"confusion-{arm.name}",
        title=arm.name,
        x=Axis(title="predicted class", labels=shown),
        y=Axis(title="true class", labels=shown),
        series=[],
        table=_mistakes(matrix, totals, names),
        heat=shares,
        notes=[f"{len(chosen)} of {len(names):,} classes, those with the most mistakes."]
        if len(chosen) < len(names)
        else [],
    )


def _mistakes(matrix: np.ndarray, totals: np.ndarray, names: Sequence[str]) -> Table:
    """The matrix' cells that are not empty, the commonest mistakes first, of many the first."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")
    order = order[: min(int((wrong > 0).sum()), 200)]
    rows = [
        [names[true], names[given], f"{matrix[true, given]:,}", _share(matrix[true, given] / totals[true])]
        for true, given in zip(*np.unravel_index(order, matrix.shape), strict=True)
    ]
    right = [
        [
            names[place],
            names[place],
            f"{matrix[place, place]:,}",
            _share(matrix[place, place] / totals[place]),
        ]
        for place in range(len(names))
        if totals[place] and len(names) <= MOST_CLASSES
    ]
    return Table(
        columns=["true class", "predicted class", "predictions", "share of the class"], rows=rows + right
    )
