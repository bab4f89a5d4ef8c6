"""Charts as data, which `interactive` draws with Plotly on the page, and `static` with matplotlib for Markdown."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from orchestrator.analysis.wording import listed

COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#b8578f",
    "#967300",
    "#7a5cd6",
    "#0e8a9e",
    "#c2255c",
    "#6b7f00",
    "#96594a",
    "#757d85",
    "#a44fc0",
)
"""Twelve before one repeats, each with a contrast of 3 or more to the page in light and in dark."""
MARKERS = 12
MOST_POINTS = 400
"""Of a line; longer ones are thinned evenly."""
_MOST_NAMED = 6

Kind = Literal["line", "points", "bars"]
Dash = Literal["solid", "dot", "dash"]
Values = Sequence[float | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis; with labels its values are places among them, from 0."""

    title: str
    labels: Sequence[str] | None = None
    has_integers: bool = False
    is_logarithmic: bool = False
    limits: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """Points that belong together."""

    name: str
    x: Values
    y: Values
    kind: Kind = "line"
    place: int | None = None
    """Of the arm, which gives colour and marker; None draws in the colour of the text."""
    low: Values | None = None
    high: Values | None = None
    """Ends of intervals: along x where the y axis has labels, else along y."""
    is_band: bool = False
    """Draws the intervals as an area."""
    base: Values | None = None
    """Where each bar begins."""
    dash: Dash = "solid"
    width: float = 2.0
    size: float = 7.0
    """Of markers; 0 draws none."""
    is_faint: bool = False
    is_named: bool = True
    """Whether the legend has it."""
    texts: Sequence[str] | None = None
    """What is shown of each point under the pointer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """The same as text: the first column names its rows."""

    columns: list[str]
    rows: list[list[str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chart:
    """One pair of axes and what is drawn on them."""

    name: str
    """Of its files."""
    title: str
    x: Axis
    y: Axis
    series: list[Series]
    table: Table
    shade: tuple[float, float] | None = None
    """From where to where along x the margin is."""
    rule: float | None = None
    """Where along x a line is."""
    heat: np.ndarray | None = None
    """A matrix of shares, a row for each label of the vertical axis."""
    notes: list[str] = dataclasses.field(default_factory=list)
    """What a reader must know of it: arms that coincide, cut axes, what is left out."""

    @property
    def rows(self) -> int:
        """How many labels the vertical axis has."""
        return len(self.y.labels or ())


def colour(place: int) -> str:
    """Of the arm at that place."""
    return COLOURS[place % len(COLOURS)]


def marker(place: int) -> int:
    """Number of the arm's marker; arms of the same colour have different ones."""
    return (place + place // len(COLOURS)) % MARKERS


def limits(
    values: Iterable[float | None], *, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[float, float]:
    """From where to where an axis goes that holds these values, with some room, within what is possible."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    if 0 <= low <= (high - low) / 2:
        low = 0.0
    room = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    # The room around a value at a bound is for its marker.
    edge = room / 3
    return max(low - room, bounds[0] - edge) if low else -edge, min(high + room, bounds[1] + edge)


def cut(found: tuple[float, float], which: str) -> list[str]:
    """A note on an axis that leaves zero out.

    Args:
        found: the axis' ends.
        which: horizontal or vertical.
    """
    return [f"The {which} axis does not begin at 0."] if found[0] > 0 or found[1] < 0 else []


def thinned(count: int) -> np.ndarray:
    """Places of the points that a long line is drawn with: the first, the last and an even choice between them."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_POINTS)).astype(int))


def coinciding(series: Sequence[Series]) -> tuple[list[Series], list[str]]:
    """Lines that lie on each other with growing widths below, so that each stays visible, and a note on them."""
    same: dict[tuple[object, ...], list[int]] = {}
    for number, each in enumerate(series):
        if each.kind == "line" and each.place is not None and each.is_named and len(each.y):
            same.setdefault((tuple(each.x), tuple(each.y)), []).append(number)
    drawn, notes = list(series), []
    for numbers in same.values():
        if len(numbers) > 1:
            for above, number in enumerate(reversed(numbers)):
                each = drawn[number]
                extra = min(above, _MOST_NAMED)
                drawn[number] = dataclasses.replace(
                    each, width=each.width + 3.0 * extra, size=each.size and each.size + 3.5 * extra
                )
            notes.append(f"{_some([series[number].name for number in numbers])} coincide.")
    return drawn, notes


def _some(names: list[str]) -> str:
    if len(names) <= _MOST_NAMED:
        return listed(names)
    return listed([*names[:_MOST_NAMED], f"{len(names) - _MOST_NAMED} more"])


def stacked(values: Sequence[float], *, within: float) -> list[float]:
    """Offsets, at most `within` to either side, that keep equal values of a row apart."""
    if not values:
        return []
    span = max(values) - min(values) or 1.0
    cells: dict[int, list[int]] = {}
    for number, value in enumerate(values):
        cells.setdefault(round((value - min(values)) / span * 60), []).append(number)
    fullest = max(len(cell) for cell in cells.values())
    step = min(within / 3, 2 * within / max(fullest - 1, 1))
    offsets = [0.0] * len(values)
    for cell in cells.values():
        for place, number in enumerate(cell):
            offsets[number] = (place - (len(cell) - 1) / 2) * step
    return offsets
