"""Write a comparison as HTML, Markdown, JSON, CSV and figures into the experiment's storage."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

from orchestrator.analysis import compare, results
from orchestrator.analysis.compare import Comparison
from orchestrator.report import columns, markdown, page, sections, wrong_images
from orchestrator.report.figures import images, static
from orchestrator.report.sections import Section
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Storage


def write(records: ExperimentRecords) -> Comparison:
    """Analyse the records and write every form of the report below `report/`.

    Raises:
        InputError: there is no experiment at that place.
    """
    comparison = compare.analyse(records)
    storage = records.storage.at("report")
    drawn = sections.draw(comparison)
    predicted = _predicted(comparison)
    shown = sections.in_pictures(comparison)
    is_part = len(shown.arms) < len(comparison.arms)
    pictured = sections.draw(shown) if is_part else drawn
    has_images = _draw(comparison, pictured, predicted, storage)
    storage.write("results.json", results.text(comparison))
    tabled = {
        "results": (columns.RUNS, columns.run_rows(comparison)),
        "metrics": (columns.METRICS, columns.metric_rows(comparison)),
        "epochs": (columns.EPOCHS, columns.epoch_rows(comparison)),
    }
    if reported := columns.report_rows(comparison):
        tabled["reports"] = (columns.REPORTS, reported)
    for name, (table, rows) in tabled.items():
        rows_as_text, binary = columns.files(table, rows)
        storage.write(f"{name}.csv", rows_as_text)
        storage.write(f"{name}.parquet", binary)
    wrong = wrong_images.write(comparison, records)
    if wrong is not None:
        storage.write("wrong_images.csv", wrong)
    part = f" Shown: the best {len(shown.arms)} of {len(comparison.arms)} arms." if is_part else ""
    pictures = {
        section.name: (section.title, section.caption + part, [*section.pictures]) for section in pictured
    }
    if has_images:
        pictures["disagreements"] = (
            "Where the arms disagree",
            "Test images on which the arms differ most; ×2 after a class: two seeds predicted it.",
            ["disagreements"],
        )
    storage.write("report.md", markdown.write(comparison, pictures).encode())
    gallery = images.gallery(comparison, predicted, records.test_names())
    text = page.write(comparison, drawn, gallery, downloads=[*tabled], has_wrong_images=wrong is not None)
    storage.write("report.html", text.encode())
    return comparison


def _predicted(comparison: Comparison) -> dict[str, np.ndarray]:
    """What each arm's seeds predicted, for arms with predictions."""
    return {
        arm.name: found.predicted
        for arm in sections.ends(comparison).arms
        if (found := comparison.predictions.get(arm.name)) is not None
    }


def _draw(
    comparison: Comparison, drawn: list[Section], predicted: dict[str, np.ndarray], storage: Storage
) -> bool:
    """Write every figure as SVG and PNG; returns whether there is one of disputed images."""
    names = [*comparison.class_names, *(arm.name for arm in comparison.arms), comparison.metric.heading]
    with plt.rc_context(static.lettering("".join(names))):
        pictured = images.disagreements(comparison, predicted)
        figures = {
            name: static.draw(charts) for section in drawn for name, charts in section.pictures.items()
        }
        if pictured is not None:
            figures["disagreements"] = pictured
        for name, figure in figures.items():
            for kind in ("svg", "png"):
                storage.write(f"figures/{name}.{kind}", static.save(figure, kind))
            plt.close(figure)
    return pictured is not None
