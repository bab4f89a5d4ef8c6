"""Write a comparison as HTML, Markdown, JSON, CSV and figures into the experiment's storage."""

from __future__ import annotations

import base64
import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt

from orchestrator.analysis import compare, results
from orchestrator.analysis.compare import Comparison
from orchestrator.analysis.wording import duration
from orchestrator.report import columns, figures, markdown, sweep, tables, wrong_images
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Record
from trainers.data.labelled import in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from orchestrator.report.sweep import SweepPictures

_SECTIONS = {
    "attribution": (
        "Parts of the gap",
        "Each factor's share with its 95 % interval over seeds; the shares sum to the gap.",
    ),
    "sweep": (
        "Search",
        "The best validation result so far, by the number of trials; dots: the trials.",
    ),
    "learning": (
        "Learning curves",
        "Mean over seeds; the band runs from the lowest to the highest seed. Dotted: training.",
    ),
    "reported": (
        "Reported by training functions",
        "The metric that arms are compared by: mean over seeds by report, with a band from the lowest to the highest "
        "seed; and over time, one line for each run.",
    ),
    "speed": (
        "Speed",
        "Accuracy against seconds of training, evaluation and checkpoints, one line for each run; "
        "training images per second after the first epoch, which also compiles; and where the time went.",
    ),
    "scaling": (
        "Scaling",
        "Images per second on n workers over n times those on the fewest; dashed: what the fitted model predicts.",
    ),
    "class-accuracy": ("Accuracy by class", "On the test images, over all seeds."),
    "corruption-robustness": (
        "Corruption robustness",
        "Accuracy on at most 1,000 test images with noise, blur or JPEG compression; means of the seeds.",
    ),
    "reliability": (
        "Calibration",
        "How often predictions of each confidence are correct; on the dashed line, confidence equals accuracy.",
    ),
    "confusion": ("Confusion matrices", "Percent of each true class (row) by predicted class."),
    "disagreements": (
        "Where the arms disagree",
        "Test images on which the arms differ most; ×2 after a class: two seeds predicted it.",
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
    names = [*comparison.class_names, *(arm.name for arm in comparison.arms), comparison.metric.heading]
    searched = sweep.draw(comparison.sweep) if comparison.sweep else None
    storage = records.storage.at("report")
    with plt.rc_context(figures.lettering("".join(names))):
        pictures = _draw(comparison)
        drawings = {
            name: figures.save(figure, "svg") for group in pictures.values() for name, figure in group.items()
        }
        for group in pictures.values():
            for name, figure in group.items():
                storage.write(f"figures/{name}.png", figures.save(figure, "png"))
                storage.write(f"figures/{name}.svg", drawings[name])
    storage.write_json("results.json", results.document(comparison))
    tabled = {
        "results": (columns.RUNS, columns.run_rows(comparison)),
        "metrics": (columns.METRICS, columns.metric_rows(comparison)),
        "epochs": (columns.EPOCHS, columns.epoch_rows(comparison)),
    }
    if reported := columns.report_rows(comparison):
        tabled["reports"] = (columns.REPORTS, reported)
    for name, (table, rows) in tabled.items():
        text, binary = columns.files(table, rows)
        storage.write(f"{name}.csv", text)
        storage.write(f"{name}.parquet", binary)
    wrong = wrong_images.write(comparison, records)
    if wrong is not None:
        storage.write("wrong_images.csv", wrong)
    titled = {section: (*_SECTIONS[section], list(group)) for section, group in pictures.items()}
    storage.write("report.md", markdown.write(comparison, titled).encode())
    curves = {
        section: {
            name.replace("-", " "): figures.readings(pictures[section][name], step=step, percent=percent)
            for name, step, percent in drawn
            if name in pictures.get(section, {})
        }
        for section, drawn in {
            "learning": [("accuracy-by-epoch", "epoch", True), ("loss-by-epoch", "epoch", False)],
            "reported": [("metric-by-report", "report", comparison.metric.is_share)],
        }.items()
    }
    page = _html(comparison, pictures, drawings, searched, curves)
    storage.write("report.html", page.encode())
    plt.close("all")
    return comparison


def _draw(comparison: Comparison) -> Pictures:
    kept, predictions = comparison.disagreements, comparison.predictions
    predicted = {arm: found.predicted for arm, found in predictions.items()}
    searched = sweep.best_so_far(comparison.sweep) if comparison.sweep else None
    whole, comparison = comparison, _ends(comparison)
    scored = {
        arm.name: predictions[arm.name]
        for arm in comparison.arms
        if arm.name in predictions and predictions[arm.name].right.size
    }
    sure = {arm: found.confidences for arm, found in scored.items() if found.confidences is not None}
    drawn: dict[str, dict[str, Figure | None]] = {
        "attribution": {"attribution": figures.attribution(whole)},
        "sweep": {"best-by-trials": searched},
        "learning": {
            "accuracy-by-epoch": figures.learning_curve(comparison, "accuracy"),
            "loss-by-epoch": figures.learning_curve(comparison, "loss"),
        },
        "reported": {
            "metric-by-report": figures.reported_curve(comparison),
            "metric-over-time": figures.reported_over_time(comparison),
        },
        "speed": {
            "accuracy-over-time": figures.accuracy_over_time(comparison),
            "throughput": figures.throughput(comparison),
            "seconds": figures.seconds(comparison),
        },
        "scaling": {"scaling": figures.scaling(comparison.scales) if comparison.scales else None},
        "class-accuracy": {"class-accuracy": figures.class_accuracy(comparison)},
        "corruption-robustness": {"corruption-robustness": figures.corruption_robustness(comparison)},
        "reliability": {
            "reliability": figures.reliability(
                comparison,
                {arm: confidences.ravel() for arm, confidences in sure.items()},
                {arm: found.right.ravel() for arm, found in scored.items()},
            )
        },
        "confusion": {
            f"confusion-{arm.name}": figures.confusion_matrix(comparison, arm) for arm in comparison.arms
        },
        "disagreements": {"disagreements": figures.disagreements(comparison, kept, predicted)},
    }
    present = {
        section: {name: figure for name, figure in group.items() if figure is not None}
        for section, group in drawn.items()
    }
    return {section: group for section, group in present.items() if group}


def _ends(comparison: Comparison) -> Comparison:
    """All arms; of an attribution only the two that it is about, since the others are on the way between them."""
    found = comparison.attribution
    if found is None:
        return comparison
    names = (found.plan.first, found.plan.second)
    return dataclasses.replace(comparison, arms=[arm for arm in comparison.arms if arm.name in names])


def _context(comparison: Comparison) -> dict[str, Any]:
    data = comparison.document["data"]
    session = comparison.sessions[-1] if comparison.sessions else None
    ends = _ends(comparison)
    return {
        "comparison": comparison,
        "ends": ends.arms,
        "between": [arm for arm in comparison.arms if arm not in ends.arms],
        "configuration": tables.configuration(comparison),
        "classes": comparison.class_names,
        "data": data,
        "data_line": _data_line(data),
        "environment": session["environment"] if session else None,
        "settings": tables.settings(comparison),
        "command": _reproduce(comparison),
        "scale": comparison.document["experiment"]["scale"],
        "workers": tables.workers(comparison.document["experiment"]["scale"]["workers"]),
        "parities": tables.parities(comparison),
        "named_differences": tables.named_differences(comparison),
        "searches": tables.searches(comparison),
        "descriptions": tables.descriptions(comparison),
        "evidences": tables.evidences(comparison),
        "evidence_note": tables.evidence_note(comparison),
        "groups": tables.groups(comparison),
        "speeds": tables.speeds(comparison),
        "interactions": tables.interactions(comparison),
        "took": tables.took(comparison),
        "took_note": tables.took_note(comparison),
        "damaged": tables.damaged(comparison),
        "intervals": tables.intervals(ends),
        "attribution": tables.attributed(comparison),
        "attribution_note": tables.attribution_note(comparison),
        "calibration": tables.calibration(comparison),
        "script": (Path(__file__).parent / "page.js").read_text(),
        "shown": tables.shown(comparison),
        "intervals_note": tables.intervals_note(comparison),
        "gap_heading": comparison.metric.gap_heading.capitalize(),
        "whole": tables.whole,
        "duration": duration,
    }


def _data_line(data: Record | None) -> str:
    if data is None:
        return "training functions with data of their own"
    height, width, channels = data["image_shape"]
    return (
        f"{data['train_images']:,} training, {data['validation_images']:,} validation and "
        f"{data['test_images']:,} test images of {width}×{height}×{channels} "
        f"in {len(data['class_names'])} classes"
        + (f"; groups: {in_words(data['groups'])}" if data.get("groups") else "")
    )


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
    curves: dict[str, dict[str, dict[str, Any] | None]],
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
            "curves": {name: curve for name, curve in curves.get(section, {}).items() if curve is not None},
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
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # arms stay in their order
    return environment.get_template("page.html").render(
        _context(comparison), sections=sections, searched=searched
    )
