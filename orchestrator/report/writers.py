"""Write a comparison as HTML, Markdown, JSON, CSV and figures into the experiment's storage."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

from orchestrator import compare
from orchestrator.compare import Comparison, Interval
from orchestrator.records import ExperimentRecords
from orchestrator.report import figures, sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from orchestrator.report.sweep import SweepPictures
    from orchestrator.sweep.analysis import ArmSearch, SweepSummary

_SECTIONS = {
    "sweep": (
        "Search",
        "The best validation result so far, by the number of trials; dots: the trials.",
    ),
    "learning": (
        "Learning curves",
        "Mean over seeds; the band runs from the lowest to the highest seed. Dotted: training.",
    ),
    "speed": (
        "Speed",
        "Accuracy against seconds of training, evaluation and checkpoints, one line for each run; "
        "and training images per second after the first epoch, which also compiles.",
    ),
    "class-accuracy": ("Accuracy by class", "On the test images, over all seeds."),
    "confusion": ("Confusion matrices", "Percent of each true class (row) that got each answer."),
    "disagreements": (
        "Where the arms disagree",
        "Test images on which the arms differ most; ×2 after an answer: two seeds gave it.",
    ),
}

Pictures = dict[str, dict[str, "Figure"]]
"""For each section of the report, its figures by file name."""


def write(records: ExperimentRecords) -> Comparison:
    """Analyse the records and write every form of the report below `report/`.

    Raises:
        InputError: there is no experiment at that place.
    """
    comparison = compare.analyse(records)
    pictures = _draw(comparison, records)
    searched = sweep.draw(comparison.sweep) if comparison.sweep else None
    storage = records.storage.at("report")
    drawings = {
        name: figures.save(figure, "svg") for group in pictures.values() for name, figure in group.items()
    }
    for group in pictures.values():
        for name, figure in group.items():
            storage.write(f"figures/{name}.png", figures.save(figure, "png"))
            storage.write(f"figures/{name}.svg", drawings[name])
    plt.close("all")
    storage.write_json("results.json", comparison.to_json())
    storage.write("results.csv", _runs_csv(comparison).encode())
    storage.write("epochs.csv", comparison.epochs_frame().to_csv(index=False).encode())
    storage.write("report.md", _markdown(comparison, pictures).encode())
    storage.write("report.html", _html(comparison, pictures, drawings, searched).encode())
    return comparison


def _draw(comparison: Comparison, records: ExperimentRecords) -> Pictures:
    kept, answers = records.disagreements(), _answers(comparison, records)
    searched = sweep.best_so_far(comparison.sweep) if comparison.sweep else None
    drawn: dict[str, dict[str, Figure | None]] = {
        "sweep": {"best-by-trials": searched},
        "learning": {
            "accuracy-by-epoch": figures.learning_curve(comparison, "accuracy"),
            "loss-by-epoch": figures.learning_curve(comparison, "loss"),
        },
        "speed": {
            "accuracy-over-time": figures.accuracy_over_time(comparison),
            "throughput": figures.throughput(comparison),
        },
        "class-accuracy": {"class-accuracy": figures.class_accuracy(comparison)},
        "confusion": {
            f"confusion-{arm.name}": figures.confusion_matrix(comparison, arm) for arm in comparison.arms
        },
        "disagreements": {"disagreements": figures.disagreements(comparison, kept, answers)},
    }
    present = {
        section: {name: figure for name, figure in group.items() if figure is not None}
        for section, group in drawn.items()
    }
    return {section: group for section, group in present.items() if group}


def _answers(comparison: Comparison, records: ExperimentRecords) -> dict[str, np.ndarray]:
    """Each arm's answers over the test split, int [seeds, n]."""
    answers = {}
    for arm in comparison.arms:
        predictions = [records.run(run.id).predictions() for run in arm.done]
        given = [prediction["answers"] for prediction in predictions if prediction is not None]
        if given:
            answers[arm.name] = np.stack(given)
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
        "command": _reproduce(comparison),
        "scale": comparison.document["experiment"]["scale"],
        "workers": _workers(comparison.document["experiment"]["scale"]["workers"]),
        "parities": _parities(comparison),
        "searches": _searches(comparison),
        "percent": percent,
        "whole": whole,
        "duration": duration,
    }


def _reproduce(comparison: Comparison) -> str | None:
    """The last command that trained from an experiment file."""
    commands = [session["command"] for session in comparison.sessions]
    return next(
        (shlex.join(command) for command in reversed(commands) if {"run", "sweep"} & {*command[:2]}), None
    )


def _html(
    comparison: Comparison,
    pictures: Pictures,
    drawings: dict[str, bytes],
    searched: SweepPictures | None,
) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    sections = [
        {
            "name": section,
            "title": _SECTIONS[section][0],
            "caption": _SECTIONS[section][1],
            "sources": {
                name.replace("-", " "): "data:image/svg+xml;base64,"
                + base64.b64encode(drawings[name]).decode()
                for name in group
            },
        }
        for section, group in pictures.items()
    ]
    environment = Environment(
        loader=PackageLoader("orchestrator.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        _context(comparison), sections=sections, searched=searched
    )


def _workers(workers: Any) -> str:
    if isinstance(workers, dict):
        return f"{workers['min']} to {workers['max']} workers"
    return f"{workers} worker{'s' if workers > 1 else ''}"


def _parities(comparison: Comparison) -> dict[str, list[str]]:
    """What parity found, and of which arms."""
    sentences: dict[str, list[str]] = {}
    for arm in comparison.arms:
        if arm.parity is not None:
            sentences.setdefault(arm.parity.sentence(), []).append(arm.name)
    return sentences


def _searches(comparison: Comparison) -> list[dict[str, str]]:
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
    params = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {compare.describe_value(value)}"
        for name, value in search.winner.params.items()
    )
    return (
        f"{goal.replace('_', ' ')} {search.winner.value(goal):.4g} in trial {search.winner.number}: {params}"
    )


def _markdown(comparison: Comparison, pictures: Pictures) -> str:
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
    lines += ["", "Means over seeds with 95 % intervals.", ""]
    if searches := _searches(comparison):
        lines += ["## What the search spent", "", row(list(searches[0])), row(["---"] * len(searches[0]))]
        lines += [row(list(search.values())) for search in searches] + [""]
    lines += ["## Configuration", ""]
    lines += [row(["", *(arm.name for arm in comparison.arms)])]
    lines += [row(["---"] * (1 + len(comparison.arms)))]
    lines += [
        row([f"**{field}**" if differs else field, *values])
        for field, values, differs in _configuration(comparison)
    ]
    if parities := _parities(comparison):
        lines += ["", "## Parity", ""]
        lines += [f"- {', '.join(arms)}: {sentence}." for sentence, arms in parities.items()]
    for section, group in pictures.items():
        title, caption = _SECTIONS[section]
        lines += ["", f"## {title}", ""]
        lines += [f"![{name.replace('-', ' ')}](figures/{name}.svg)" for name in group]
        lines += ["", caption]
    return "\n".join(lines) + "\n"
