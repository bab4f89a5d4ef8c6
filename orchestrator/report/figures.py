"""The report's figures, drawn with matplotlib. Each takes a comparison and returns a figure or None."""

from __future__ import annotations

import io
import itertools
import warnings
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import MaxNLocator

from orchestrator.analysis.performance import PARTS
from trainers.data.corruptions import SEVERITIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from orchestrator.analysis.arms import ArmSummary
    from orchestrator.analysis.compare import Comparison
    from orchestrator.analysis.metrics import Metric
    from orchestrator.store.storage import Record

# Okabe and Ito's palette, told apart under every common colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
    "figure.constrained_layout.use": True,
}


def lettering(text: str) -> Any:
    """Settings under which figures show a text's letters, in whatever fonts are installed here.

    Where no font has a letter, SVGs hold text instead of outlines, for the fonts of whoever looks at them.
    """
    families = ["DejaVu Sans"]
    lacking = {ord(letter) for letter in text if letter.isprintable()} - _letters(families[0])
    installed = sorted(font_manager.get_font_names()) if lacking else []
    for family in installed:
        # Last Resort has a box for every letter there is.
        if not family.startswith("Last Resort") and (found := lacking & _letters(family)):
            families.append(family)
            lacking -= found
    return {"font.family": families, "svg.fonttype": "none" if lacking else "path"}


def _letters(family: str) -> set[int]:
    """Of the face that text in a family is drawn with; its bold one may have others."""
    return set(FT2Font(font_manager.findfont(family)).get_charmap())


def save(figure: Figure, kind: str) -> bytes:
    """The figure as `png` or `svg`, the same bytes every time; laid out when it is first saved."""
    buffer = io.BytesIO()
    options: dict[str, dict[str, Any]] = {
        "svg": {"metadata": {"Date": None}},
        "png": {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 1}},
    }
    with plt.rc_context({"svg.hashsalt": "tandem"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        if (layout := figure.get_layout_engine()) is not None:
            # Left to savefig, it would be executed for every kind, after drawing for nothing.
            layout.execute(figure)
            figure.set_layout_engine(None)
        figure.savefig(buffer, format=kind, dpi=200, **options[kind])
    return buffer.getvalue()


def _colour(comparison: Comparison, arm: str) -> str:
    names = [entry.name for entry in comparison.arms]
    return COLOURS[names.index(arm) % len(COLOURS)]


def learning_curve(comparison: Comparison, measure: str) -> Figure | None:
    """Accuracy or loss by epoch: mean over seeds, band from the lowest to the highest seed."""
    frame = comparison.epochs_frame
    if frame.empty:
        return None
    validated = frame["validation_accuracy"].notna().any()
    split = "validation" if validated else "train"
    column = f"{split}_{measure}"
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(5.2, 3.6))
        for arm, rows in frame.groupby("arm", sort=False):
            colour = _colour(comparison, str(arm))
            curve = rows.groupby("epoch")[column].agg(["mean", "min", "max"])
            marker = "o" if len(curve) == 1 else None
            axis.plot(curve.index, curve["mean"], color=colour, label=str(arm), marker=marker)
            axis.fill_between(curve.index, curve["min"], curve["max"], color=colour, alpha=0.2)
            if validated and len(curve) > 1:
                training = rows.groupby("epoch")[f"train_{measure}"].mean()
                axis.plot(training.index, training, color=colour, linestyle=":", linewidth=1)
        axis.set_xlabel("epoch")
        axis.set_ylabel(f"{'training' if split == 'train' else split} {measure}")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if measure == "accuracy":
            axis.yaxis.set_major_formatter("{x:.0%}")
        axis.legend(frameon=False)
    return figure


def reported_curve(comparison: Comparison) -> Figure | None:
    """What training functions reported of the metric: mean over seeds, band from the lowest to the highest seed."""
    frame = comparison.reports_frame
    if frame.empty:
        return None
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(5.2, 3.6))
        for arm, rows in frame.groupby("arm", sort=False):
            colour = _colour(comparison, str(arm))
            curve = rows.groupby("report")["value"].agg(["mean", "min", "max"])
            marker = "o" if len(curve) == 1 else None
            axis.plot(curve.index, curve["mean"], color=colour, label=str(arm), marker=marker)
            axis.fill_between(curve.index, curve["min"], curve["max"], color=colour, alpha=0.2)
        axis.set_xlabel("report")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        _scale(axis, comparison.metric)
        axis.legend(frameon=False)
    return figure


def reported_over_time(comparison: Comparison) -> Figure | None:
    """What training functions reported of the metric against the seconds since their start, a line for each run."""
    frame = comparison.reports_frame
    if frame.empty:
        return None
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(5.2, 3.6))
        for arm, rows in frame.groupby("arm", sort=False):
            for place, (_, run) in enumerate(rows.groupby("run", sort=False)):
                axis.plot(
                    run["seconds"],
                    run["value"],
                    color=_colour(comparison, str(arm)),
                    marker="." if len(run) < 30 else None,
                    alpha=0.8,
                    label=str(arm) if place == 0 else None,
                )
        axis.set_xlabel("seconds since the training function began")
        _scale(axis, comparison.metric)
        axis.legend(frameon=False)
    return figure


def _scale(axis: Axes, metric: Metric) -> None:
    """Name the vertical axis after a metric, in its unit."""
    axis.set_ylabel(_plain(metric.title if metric.is_share else metric.heading))
    if metric.is_share:
        axis.yaxis.set_major_formatter("{x:.0%}")


def readings(figure: Figure, *, step: str, percent: bool) -> dict[str, Any] | None:
    """What a curve shows, for a page to tell under the pointer; None for a figure without curves.

    Args:
        figure: once saved, so that it is laid out.
        step: what the horizontal axis counts, `epoch` or `report`.
        percent: whether values are shares.

    Returns:
        `x` epochs or reports, as `step` says; `series` for each arm a mean for each of them or None; `box` and
        `limits`, the ends of the horizontal axis as shares of the picture's width and as steps; `percent`.
    """
    axis = figure.axes[0]
    lines = [line for line in axis.get_lines() if not str(line.get_label()).startswith("_")]
    if not lines:
        return None
    epochs = sorted({int(x) for line in lines for x in np.asarray(line.get_xdata())})
    series = {}
    for line in lines:
        known = dict(zip(map(int, np.asarray(line.get_xdata())), np.asarray(line.get_ydata()), strict=True))
        series[str(line.get_label())] = [_reading(known.get(epoch)) for epoch in epochs]
    box = axis.get_position()
    return {
        "step": step,
        "x": epochs,
        "series": series,
        "box": [round(box.x0, 4), round(box.x1, 4)],
        "limits": [round(limit, 4) for limit in axis.get_xlim()],
        "percent": percent,
    }


def _reading(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(f"{value:.5g}")


def attribution(comparison: Comparison) -> Figure | None:
    """Each factor's share of the gap with its interval, and the gap itself."""
    found = comparison.attribution
    if found is None or not found.shares:
        return None
    metric = found.metric
    rows = [(share.factor, share.score) for share in found.shares] + [("all together", found.gap)]
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(6.4, 1.2 + 0.45 * len(rows)))
        for row, (name, interval) in enumerate(rows):
            favours_first = metric.advantage(interval.mean) >= 0
            colour = "#555555" if name == "all together" else COLOURS[0 if favours_first else 1]
            axis.barh(row, metric.plotted(interval.mean), color=colour, alpha=0.75, height=0.6)
            if interval.low is not None and interval.high is not None:
                ends = [metric.plotted(end) for end in (interval.low, interval.high)]
                axis.plot(ends, [row, row], color="black", linewidth=1.5)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_yticks(range(len(rows)), [name for name, _ in rows])
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.set_xlabel(_plain(f"{metric.gap_heading}, {found.plan.first} over {found.plan.second}"))
    return figure


def reliability(
    comparison: Comparison, confidences: dict[str, np.ndarray], right: dict[str, np.ndarray]
) -> Figure | None:
    """How often predictions of each confidence are correct, over all seeds of an arm."""
    if not confidences:
        return None
    edges = np.linspace(0, 1, 11)
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(4.4, 3.8))
        axis.plot([0, 1], [0, 1], color="#888888", linestyle="--", linewidth=1)
        for arm, sure in confidences.items():
            place = np.clip(np.digitize(sure, edges) - 1, 0, 9)
            filled = [number for number in range(10) if (place == number).any()]
            axis.plot(
                [sure[place == number].mean() for number in filled],
                [right[arm][place == number].mean() for number in filled],
                marker="o",
                color=_colour(comparison, arm),
                label=arm,
            )
        axis.set_xlabel("mean confidence")
        axis.set_ylabel("share of correct predictions")
        axis.xaxis.set_major_formatter("{x:.0%}")
        axis.yaxis.set_major_formatter("{x:.0%}")
        axis.legend(frameon=False)
    return figure


def accuracy_over_time(comparison: Comparison) -> Figure | None:
    """Accuracy against the seconds a run had trained, evaluated and saved by then."""
    frame = comparison.epochs_frame
    if frame.empty:
        return None
    validated = frame["validation_accuracy"].notna().any()
    column = "validation_accuracy" if validated else "train_accuracy"
    seconds = frame.reindex(columns=[*PARTS.values()]).sum(axis=1)
    frame = frame.assign(seconds=seconds.groupby(frame["run"]).cumsum())
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(5.2, 3.6))
        for arm, rows in frame.groupby("arm", sort=False):
            runs = [run[["seconds", column]].to_numpy(float) for _, run in rows.groupby("run", sort=False)]
            gap = np.full((1, 2), np.nan)
            axis.plot(
                *np.concatenate([part for run in runs for part in (run, gap)]).T,
                color=_colour(comparison, str(arm)),
                marker="." if len(runs[0]) < 30 else None,
                alpha=0.8,
                label=str(arm),
            )
        axis.set_xlabel("seconds of work since the run began, start-up apart")
        axis.set_ylabel(column.replace("_", " ").replace("train ", "training "))
        axis.yaxis.set_major_formatter("{x:.0%}")
        axis.legend(frameon=False)
    return figure


def throughput(comparison: Comparison) -> Figure | None:
    """Images per second of each run, and each arm's mean."""
    arms = [arm for arm in comparison.arms if arm.images_per_second is not None]
    if not arms:
        return None
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(5.2, 1.2 + 0.8 * len(arms)))
        for row, arm in enumerate(arms):
            speed = arm.images_per_second
            assert speed is not None
            colour = _colour(comparison, arm.name)
            axis.barh(row, speed.mean, color=colour, alpha=0.75, height=0.6)
            axis.plot(
                [*arm.speeds.values()], [row] * len(arm.speeds), "o", color="black", markersize=3, alpha=0.6
            )
        axis.set_yticks(range(len(arms)), [arm.name for arm in arms])
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.set_xlabel("training images per second (bar: mean of the seeds, dots: seeds)")
        axis.xaxis.set_major_formatter("{x:,.0f}")
    return figure


def seconds(comparison: Comparison) -> Figure | None:
    """Where an arm's time went, by part."""
    measured = comparison.performance.arms
    arms = [arm.name for arm in comparison.arms if measured[arm.name].seconds]
    if not arms:
        return None
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(5.2, 1.6 + 0.5 * len(arms)))
        left = np.zeros(len(arms))
        parts = dict.fromkeys(part for arm in arms for part in measured[arm].seconds)
        for place, part in enumerate(parts):
            widths = np.array([measured[arm].seconds.get(part, 0.0) for arm in arms])
            colour = COLOURS[place % len(COLOURS)]
            axis.barh(range(len(arms)), widths, left=left, height=0.6, color=colour, label=part)
            left += widths
        axis.set_yticks(range(len(arms)), arms)
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.set_xlabel("seconds (mean of the runs; start-up of the cold one)")
        figure.legend(frameon=False, loc="outside upper center", ncols=3)
    return figure


def corruption_robustness(comparison: Comparison) -> Figure | None:
    """Accuracy on damaged images by severity, a panel for each kind of damage."""
    arms = [arm for arm in comparison.arms if arm.corruption_robustness]
    if not arms:
        return None
    kinds = list(arms[0].corruption_robustness)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(kinds), figsize=(9, 3.2), sharey=True)
        for axis, kind in zip(axes, kinds, strict=True):
            for arm in arms:
                means = [interval.mean for interval in arm.corruption_robustness[kind]]
                axis.plot(means, "o-", color=_colour(comparison, arm.name), label=arm.name)
            axis.set_title(kind)
            axis.set_xticks(range(4), ["none", *map(str, SEVERITIES)])
            axis.set_xlabel("severity")
        axes[0].set_ylabel("test accuracy")
        axes[0].yaxis.set_major_formatter("{x:.0%}")
        axes[0].legend(frameon=False)
    return figure


def scaling(scales: Record) -> Figure:
    """Efficiency against workers: measured points, dashed the model's prediction.

    Args:
        scales: as `tandem bench scaling` writes it.
    """
    arms = {name: scale for name, scale in scales.items() if name != "schema"}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
        for axis, mode in zip(axes, ("strong", "weak"), strict=True):
            for colour, (arm, scale) in zip(itertools.cycle(COLOURS), arms.items(), strict=False):
                measured, predicted = scale["efficiency"][mode], scale["predicted_efficiency"][mode]
                axis.plot([int(n) for n in measured], list(measured.values()), "o-", label=arm, color=colour)
                axis.plot(
                    [int(n) for n in predicted], list(predicted.values()), "--", color=colour, linewidth=1
                )
            axis.set(title=f"{mode} scaling", xlabel="workers", xscale="log", ylim=(0, None))
            axis.set_xticks([int(n) for n in predicted], [str(n) for n in predicted], minor=False)
            axis.yaxis.set_major_formatter("{x:.0%}")
        axes[0].set_ylabel("efficiency")
        axes[0].legend(frameon=False)
    return figure


def _class_names(comparison: Comparison) -> list[str]:
    """As matplotlib is to show them: a dollar sign begins no formula."""
    return [_plain(name) for name in comparison.class_names]


def _plain(text: str) -> str:
    """Text in which a dollar sign begins no formula."""
    return text.replace("$", r"\$")


def confusion_matrix(comparison: Comparison, arm: ArmSummary) -> Figure | None:
    """The share of each class' test images by the class that one arm predicted."""
    if arm.confusion is None:
        return None
    names = _class_names(comparison)
    share = arm.confusion / np.maximum(arm.confusion.sum(axis=1, keepdims=True), 1)
    with plt.rc_context(STYLE | {"axes.grid": False, "font.size": 8}):
        figure, axis = plt.subplots(figsize=(4.6, 4.4))
        axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
        axis.set_title(arm.name)
        axis.set_xlabel("predicted class")
        axis.set_ylabel("true class")
        if len(names) <= 25:
            axis.set_xticks(range(len(names)), names, rotation=90)
            axis.set_yticks(range(len(names)), names)
        if len(names) <= 12:
            for row, column in np.ndindex(share.shape):
                if arm.confusion[row, column]:
                    shade = "white" if share[row, column] > 0.5 else "black"
                    text = f"{share[row, column] * 100:.0f}"
                    axis.text(column, row, text, ha="center", va="center", color=shade, fontsize=7)
    return figure


def class_accuracy(comparison: Comparison) -> Figure | None:
    """Each class' accuracy in each arm, side by side."""
    arms = [arm for arm in comparison.arms if arm.class_accuracy is not None]
    names = _class_names(comparison)
    if not arms or len(names) > 60:
        return None
    frame = pd.DataFrame({arm.name: arm.class_accuracy for arm in arms}, index=names)
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(9, 3.2))
        width = 0.8 / len(arms)
        for index, arm in enumerate(arms):
            places = np.arange(len(names)) + (index - (len(arms) - 1) / 2) * width
            colour = _colour(comparison, arm.name)
            axis.bar(places, frame[arm.name], width, color=colour, alpha=0.85, label=arm.name)
        axis.set_xticks(range(len(names)), names, rotation=30 if len(names) > 6 else 0, ha="right")
        axis.grid(axis="x", visible=False)
        axis.set_ylabel("test accuracy")
        axis.yaxis.set_major_formatter("{x:.0%}")
        axis.yaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
        lowest = float(frame.to_numpy().min())
        axis.set_ylim(max(0.0, np.floor(lowest * 10 - 1) / 10), 1.0)
        axis.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(arms))
    return figure


def disagreements(
    comparison: Comparison, kept: dict[str, np.ndarray] | None, predicted: dict[str, np.ndarray]
) -> Figure | None:
    """Test images on which the arms differ, with what each arm's seeds predicted.

    Args:
        comparison: the arms.
        kept: indices, labels and images from the records.
        predicted: for each arm, its seeds' predictions int [seeds, n] over the whole test split.
    """
    if kept is None or not len(kept["indices"]) or len(predicted) < 2:
        return None
    names = _class_names(comparison)
    columns = 6
    rows = -(-len(kept["indices"]) // columns)
    width, height, side = (
        1.55,
        1.7 + 0.14 * len(predicted),
        1.45,
    )  # inches, which the axis counts in, downwards
    size = columns * width, rows * height
    with plt.rc_context(STYLE | {"axes.grid": False, "figure.constrained_layout.use": False}):
        figure = plt.figure(figsize=size)
        axis = figure.add_axes((0, 0, 1, 1))
        for place, (image, label, index) in enumerate(
            zip(kept["images"], kept["labels"], kept["indices"], strict=True)
        ):
            row, column = divmod(place, columns)
            down, across = np.array(image.shape[:2]) * side / max(image.shape[:2])
            middle, bottom = (column + 0.5) * width, (row + 1) * height - 0.05
            grey = image.shape[-1] == 1
            axis.imshow(
                image[..., 0] if grey else image,
                cmap="gray",
                vmin=0,
                vmax=255,
                extent=(middle - across / 2, middle + across / 2, bottom, bottom - down),
            )
            lines = [f"{arm}: {_votes(given[:, index], names)}" for arm, given in predicted.items()]
            title = "\n".join([f"is {names[label]}", *lines])
            axis.text(middle, bottom - down - 0.03, title, ha="center", va="bottom", fontsize=7.5)
        axis.set(xlim=(0, size[0]), ylim=(size[1], 0), aspect="auto")
        axis.set_axis_off()
    return figure


def _votes(predicted: np.ndarray, names: list[str]) -> str:
    """The seeds' predictions, the most frequent first: `cat` or `cat ×2, dog ×1`."""
    labels, counts = np.unique(predicted, return_counts=True)
    if len(labels) == 1:
        return str(names[labels[0]])
    order = np.argsort(-counts, kind="stable")[:2]
    return ", ".join(f"{names[labels[place]]} ×{counts[place]}" for place in order)
