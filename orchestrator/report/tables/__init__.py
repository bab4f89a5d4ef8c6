"""A comparison as rows of text, for the page and for Markdown alike."""

from orchestrator.report.tables.arms import (
    arms,
    calibration,
    configuration,
    damaged,
    descriptions,
    intervals,
    intervals_note,
    settings,
    shown,
    workers,
)
from orchestrator.report.tables.costs import searches, took, took_note
from orchestrator.report.tables.evidence import (
    attributed,
    attribution_note,
    evidence_note,
    evidences,
    groups,
    interactions,
    speeds,
)
from orchestrator.report.tables.limits import not_covered, not_varied
from orchestrator.report.tables.parity import named_differences, parities
from orchestrator.report.tables.text import sort_key, whole

__all__ = [
    "arms",
    "attributed",
    "attribution_note",
    "calibration",
    "configuration",
    "damaged",
    "descriptions",
    "evidence_note",
    "evidences",
    "groups",
    "interactions",
    "intervals",
    "intervals_note",
    "named_differences",
    "not_covered",
    "not_varied",
    "parities",
    "searches",
    "settings",
    "shown",
    "sort_key",
    "speeds",
    "took",
    "took_note",
    "whole",
    "workers",
]
