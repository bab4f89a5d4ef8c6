"""The report as Markdown, for pull requests."""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchestrator.analysis.compare import Comparison
from orchestrator.report import tables

_SPECIAL = re.compile(r"([\\`*\[\]<>|~&$]|(?<!\w)_|_(?!\w))")
_LEADING = re.compile(r"^([-+=#]|\d+(?=[.)]))(?=[-+=#.)\s]|$)(?!\d*[.)]\S)")


def escape(text: str) -> str:
    """Text that Markdown shows as it is, in one line: no markup, no HTML, no formula, no end of a table's cell."""
    return _LEADING.sub(_literal, _SPECIAL.sub(r"\\\1", " ".join(text.split())))


def _literal(start: re.Match[str]) -> str:
    """What would begin a heading, a list or a line."""
    return f"\\{start[1]}" if not start[1].isdigit() else f"{start[1]}\\"


def write(comparison: Comparison, pictures: Mapping[str, tuple[str, str, list[str]]]) -> str:
    """The whole report.

    Args:
        comparison: what it is about.
        pictures: for each section its title, its caption and its figures' file names.
    """
    lines = [f"# {escape(comparison.name)}", "", escape(comparison.conclusion), ""]
    lines += [f"- {escape(note)}" for note in comparison.notes] + [""]
    pictures = dict(pictures)
    if claim := pictures.pop("claim", None):
        lines += [*_pictured(*claim), ""]
    if shares := tables.attributed(comparison):
        lines += ["## Where the gap comes from", ""]
        lines += [_row(["factor", comparison.metric.gap_heading, "speed ratio"]), _row(["---"] * 3)]
        lines += [_row([str(share["factor"]), str(share["points"]), str(share["speed"])]) for share in shares]
        lines += ["", escape(tables.attribution_note(comparison)), ""]
        if between := tables.interactions(comparison):
            lines += ["### Interactions", "", *_table(between)]
        lines += ["## Arms", ""]
    lines += _table(tables.arms(comparison))
    lines += [f"Means over seeds with 95 % intervals: {escape(tables.intervals_note(comparison))}", ""]
    if proofs := tables.evidences(comparison.pairs):
        lines += ["## Evidence", "", *_table(proofs), escape(tables.evidence_note(comparison)), ""]
    if groups := tables.groups(comparison):
        lines += [escape(groups), ""]
    lines += [
        "## Time, memory and cost",
        "",
        *_table(tables.took(comparison)),
        escape(tables.took_note(comparison)),
        "",
    ]
    if speeds := tables.speeds(comparison):
        lines += ["Ratios of time and speed:", "", *_table(speeds)]
    if searches := tables.searches(comparison):
        lines += ["## What the search spent", "", *_table(searches)]
    lines += ["## Configuration", ""]
    lines += [_row(["", *(arm.name for arm in comparison.arms)])]
    lines += [_row(["---"] * (1 + len(comparison.arms)))]
    lines += [
        f"| {f'**{escape(field)}**' if differs else escape(field)} {_row(values)}"
        for field, values, differs in tables.configuration(comparison)
    ]
    if settings := tables.settings(comparison):
        lines += ["", "## Environment", "", *_table(settings)]
    if parities := tables.parities(comparison):
        lines += ["", "## Parity", ""]
        lines += [f"- {escape(', '.join(arms))}: {escape(sentence)}." for sentence, arms in parities.items()]
    if named := tables.named_differences(comparison):
        lines += ["", *_table(named)]
    for picture in pictures.values():
        lines += ["", *_pictured(*picture)]
    lines += ["", "## Limits", "", "What was not varied:", ""]
    lines += [f"- {escape(sentence)}" for sentence in tables.not_varied(comparison)]
    lines += ["", "What the verdict does not cover:", ""]
    lines += [f"- {escape(sentence)}" for sentence in tables.not_covered(comparison)]
    return "\n".join(lines) + "\n"


def _pictured(title: str, caption: str, names: list[str]) -> list[str]:
    images = [f"![{escape(name.replace('-', ' '))}](figures/{name}.svg)" for name in names]
    return [f"## {title}", "", *images, "", caption]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell if cell == "---" else escape(cell) for cell in cells) + " |"


def _table(rows: list[dict[str, str]]) -> list[str]:
    if not rows:
        return []
    head = [_row(list(rows[0])), _row(["---"] * len(rows[0]))]
    return [*head, *(_row(list(entry.values())) for entry in rows), ""]
