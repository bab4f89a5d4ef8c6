"""Write a comparison as HTML, Markdown, JSON, CSV and figures into the experiment's storage."""

from __future__ import annotations

import base64
import shlex
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from orchestrator import compare
from orchestrator.compare import Comparison, Interval
from orchestrator.records import ExperimentRecords

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CAPTIONS = {
    "learning-curves": (
        "Learning curves",
        "Mean over seeds; the band runs from the lowest to the highest seed. Dotted: training.",
    ),
    "accuracy-over-time": (
        "Accuracy against time",
        "One line for each run. Seconds of training, evaluation and checkpoints, start-up apart.",
    ),
    "throughput": ("Throughput", "Median over the epochs after the first, which also compiles."),
    "class-accuracy": ("Accuracy by class", "On the test images, over all seeds."),
    "confusion": ("Confusion matrices", "Percent of each true class (row) that got each answer."),
    "disagreements": (
        "Where the arms disagree",
        "Test images that get another answer from most seeds of one arm than of the other.",
    ),
}


def write(records: ExperimentRecords) -> Comparison:
    """Analyse the records and write every form of the report below `report/`.

    Raises:
        InputError: there is no experiment at that place.
    """
    comparison = compare.analyse(records)
    pictures = _draw(comparison, records)
    storage = records.storage.at("report")
    for name, figure in pictures.items():
        from orchestrator.report import figures

        storage.write(f"figures/{name}.png", figures.save(figure, "png"))
        storage.write(f"figures/{name}.svg", figures.save(figure, "svg"))
    storage.write_json("results.json", comparison.to_json())
    storage.write("results.csv", _runs_csv(comparison).encode())
    storage.write("epochs.csv", comparison.epochs_frame().to_csv(index=False).encode())
    storage.write("report.md", _markdown(comparison, list(pictures)).encode())
    storage.write("report.html", _html(comparison, pictures).encode())
    return comparison


def _draw(comparison: Comparison, records: ExperimentRecords) -> dict[str, Figure]:
    import matplotlib.pyplot as plt

    from orchestrator.report import figures

    drawn = {
        "learning-curves": figures.learning_curves(comparison),
        "accuracy-over-time": figures.accuracy_over_time(comparison),
        "throughput": figures.throughput(comparison),
        "class-accuracy": figures.class_accuracy(comparison),
        "confusion": figures.confusion_matrices(comparison),
        "disagreements": figures.disagreements(
            comparison, records.disagreements(), _majority_answers(comparison, records)
        ),
    }
    plt.close("all")
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _majority_answers(comparison: Comparison, records: ExperimentRecords) -> dict[str, np.ndarray]:
    answers = {}
    for arm in comparison.arms:
        predictions = [records.run(run.id).predictions() for run in arm.done]
        given = [prediction["answers"] for prediction in predictions if prediction is not None]
        if given:
            answers[arm.name] = stats.mode(np.stack(given), axis=0).mode
    return answers


def _runs_csv(comparison: Comparison) -> str:
    import pandas as pd

    rows = [
        {"arm": arm["name"], "framework": arm["framework"]} | run
        for arm in comparison.to_json()["arms"]
        for run in arm["runs"]
    ]
    return pd.DataFrame(rows).to_csv(index=False)


def percent(interval: Interval | None) -> str:
    """`71.20 % (70.10 to 72.30)`."""
    if interval is None:
        return "–"
    text = f"{interval.mean * 100:.2f} %"
    if interval.low is not None and interval.high is not None:
        text += f" ({interval.low * 100:.2f} to {interval.high * 100:.2f})"
    return text


def whole(interval: Interval | None) -> str:
    """`12,300 (11,900 to 12,700)`."""
    if interval is None:
        return "–"
    text = f"{interval.mean:,.0f}"
    if interval.low is not None and interval.high is not None:
        text += f" ({max(interval.low, 0):,.0f} to {interval.high:,.0f})"
    return text


def duration(seconds: float | None) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"


def _configuration(comparison: Comparison) -> list[tuple[str, list[str], bool]]:
    """Every recipe field with its value in each arm, and whether they differ."""
    rows = [("framework", [arm.framework for arm in comparison.arms])]
    for key in comparison.arms[0].recipe:
        values = [compare.describe_value(arm.recipe.get(key)) for arm in comparison.arms]
        rows.append((key.replace("_", " "), values))
    rows.append(("seeds", [", ".join(map(str, arm.seeds)) for arm in comparison.arms]))
    return [(field, values, len(set(values)) > 1) for field, values in rows]


def _context(comparison: Comparison) -> dict[str, Any]:
    data = comparison.document["data"]
    session = comparison.sessions[-1] if comparison.sessions else None
    height, width, channels = data["image_shape"]
    return {
        "comparison": comparison,
        "configuration": _configuration(comparison),
        "classes": data["class_names"],
        "data": data,
        "data_line": (
            f"{data['train_images']:,} training, {data['validation_images']:,} validation and "
            f"{data['test_images']:,} test images of {width}×{height}×{channels} "
            f"in {len(data['class_names'])} classes"
        ),
        "environment": session["environment"] if session else None,
        "command": shlex.join(session["command"]) if session else None,
        "scale": comparison.document["experiment"]["scale"],
        "percent": percent,
        "whole": whole,
        "duration": duration,
    }


def _html(comparison: Comparison, pictures: dict[str, Figure]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from orchestrator.report import figures

    embedded = [
        {
            "name": name,
            "title": _CAPTIONS[name][0],
            "caption": _CAPTIONS[name][1],
            "source": "data:image/svg+xml;base64,"
            + base64.b64encode(figures.save(figure, "svg")).decode(),
        }
        for name, figure in pictures.items()
    ]
    environment = Environment(
        loader=PackageLoader("orchestrator.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(_context(comparison), figures=embedded)


def _markdown(comparison: Comparison, pictures: list[str]) -> str:
    def row(cells: list[str]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    lines = [f"# {comparison.name}", "", comparison.answer, ""]
    lines += [f"- {note}" for note in comparison.notes] + [""]
    lines += [
        row(["arm", "framework", "test accuracy", "images/s", "training time", "runs"]),
        row(["---"] * 6),
    ]
    lines += [
        row(
            [
                arm.name,
                arm.framework,
                percent(arm.accuracy),
                whole(arm.images_per_second),
                duration(arm.train_seconds),
                f"{len(arm.done)} of {len(arm.runs)}",
            ]
        )
        for arm in comparison.arms
    ]
    lines += ["", "Means over seeds with 95 % intervals.", "", "## Configuration", ""]
    lines += [row(["", *(arm.name for arm in comparison.arms)])]
    lines += [row(["---"] * (1 + len(comparison.arms)))]
    lines += [
        row([f"**{field}**" if differs else field, *values])
        for field, values, differs in _configuration(comparison)
    ]
    for name in pictures:
        title, caption = _CAPTIONS[name]
        lines += ["", f"## {title}", "", f"![{title}](figures/{name}.svg)", "", caption]
    return "\n".join(lines) + "\n"


