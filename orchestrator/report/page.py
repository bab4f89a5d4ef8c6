"""The report as one self-contained page: its parts, in the order in which a reader asks for them."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.analysis.compare import Comparison
from orchestrator.analysis.wording import duration
from orchestrator.report import sections as report_sections
from orchestrator.report import sweep, tables
from orchestrator.report.figures import images, interactive
from orchestrator.report.figures.images import Item
from orchestrator.report.sections import Section
from orchestrator.store.storage import Record
from trainers.data.labelled import in_words

_MOST_RUNS = 30
"""Rows of the table of runs that is open."""
_MOST_NOTES = 8
_BEFORE_TIME = ("learning", "reported")
_WITH_TIME = ("speed", "seconds", "scaling")
_ELSEWHERE = ("claim", "attribution", "sweep", *_BEFORE_TIME, *_WITH_TIME)


def write(
    comparison: Comparison,
    drawn: Sequence[Section],
    gallery: Sequence[Item],
    *,
    downloads: Sequence[str],
    has_wrong_images: bool,
) -> str:
    """The page as HTML.

    Args:
        comparison: what it is about.
        drawn: the sections with figures.
        gallery: test images.
        downloads: names of the tables beside the page.
        has_wrong_images: whether wrong_images.csv is beside it as well.
    """
    import plotly.offline
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("orchestrator.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Arms stay in their order, and letters stay themselves.
    environment.policies["json.dumps_kwargs"] = {
        "sort_keys": False,
        "separators": (",", ":"),
        "ensure_ascii": False,
    }
    environment.filters["sort_key"] = tables.sort_key
    searched = sweep.draw(comparison.sweep) if comparison.sweep else []
    charts = {
        chart.name: interactive.plotly(chart)
        for section in drawn
        for chart in [*section.charts, *section.folded]
    }
    for search in searched:
        for place, (_, figure) in enumerate(search.figures):
            charts[f"trials-{search.arm}-{place}"] = figure
    by_name = {section.name: section for section in drawn}
    here = Path(__file__).parent
    return environment.get_template("page.html").render(
        _context(comparison),
        by_name=by_name,
        before_time=[by_name[name] for name in _BEFORE_TIME if name in by_name],
        with_time=[by_name[name] for name in _WITH_TIME if name in by_name],
        errors=[section for section in drawn if section.name not in _ELSEWHERE],
        gallery=gallery,
        kinds=list(dict.fromkeys(item.kind for item in gallery)),
        searched=searched,
        specifications=charts,
        downloads=downloads,
        has_wrong_images=has_wrong_images,
        style=(here / "page.css").read_text(),
        scripts=[(here / name).read_text() for name in ("page.js", "charts.js")],
        plotly=plotly.offline.get_plotlyjs() if charts else None,
        limits={"images": images.MOST, "trials": sweep.MOST_TRIALS},
    )


def _context(comparison: Comparison) -> dict[str, Any]:
    data = comparison.document["data"]
    session = comparison.sessions[-1] if comparison.sessions else None
    ends = report_sections.ends(comparison)
    scale = comparison.document["experiment"]["scale"]
    leading = comparison.leading_pairs
    leading_names = {pair.names for pair in leading}
    return {
        "comparison": comparison,
        "ends": ends.arms,
        "between": [arm for arm in comparison.arms if arm not in ends.arms],
        "configuration": tables.configuration(comparison),
        "data": data,
        "data_line": _data_line(data),
        "date": _date(comparison.sessions),
        "environment": session["environment"] if session else None,
        "settings": tables.settings(comparison),
        "command": _reproduce(comparison),
        "scale": scale,
        "workers": tables.workers(scale["workers"]),
        "notes": comparison.notes[:_MOST_NOTES],
        "more_notes": comparison.notes[_MOST_NOTES:],
        "parities": tables.parities(comparison),
        "named_differences": tables.named_differences(comparison),
        "searches": tables.searches(comparison),
        "descriptions": tables.descriptions(comparison),
        "evidences": tables.evidences(leading),
        "more_evidences": tables.evidences(
            [pair for pair in comparison.pairs if pair.names not in leading_names]
        ),
        "evidence_note": tables.evidence_note(comparison),
        "groups": tables.groups(comparison),
        "speeds": tables.speeds(comparison),
        "interactions": tables.interactions(comparison),
        "took": tables.took(comparison),
        "took_note": tables.took_note(comparison),
        "intervals": tables.intervals(ends),
        "attribution": tables.attributed(comparison),
        "attribution_note": tables.attribution_note(comparison),
        "calibration": tables.calibration(comparison),
        "not_varied": tables.not_varied(comparison),
        "not_covered": tables.not_covered(comparison),
        "has_many_runs": sum(len(arm.runs) for arm in comparison.arms) > _MOST_RUNS,
        "shown": tables.shown(comparison),
        "intervals_note": tables.intervals_note(comparison),
        "gap_heading": comparison.metric.gap_heading.capitalize(),
        "whole": tables.whole,
        "duration": duration,
    }


def _date(sessions: Sequence[Record]) -> str:
    """When the experiment was trained, from its first driver session to its last."""
    days = [
        f"{datetime.datetime.fromtimestamp(session['started_at'], datetime.UTC):%Y-%m-%d %H:%M} UTC"
        for session in sessions
    ]
    if not days:
        return ""
    return f"started {days[0]}" + (f", last resumed {days[-1]}" if len(days) > 1 else "")


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
