"""Charts as matplotlib draws them, for Markdown and papers."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import MaxNLocator

from orchestrator.report.figures.chart import Axis, Chart, Series, Values, colour, marker

STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
    "figure.constrained_layout.use": True,
}
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*", "p", "h", "<", ">")
_INK = "#222222"
_DPI = 150
_DASHES = {"solid": "-", "dot": ":", "dash": "--"}
_MOST_NAMED = 14
"""Arms in a legend; with more, it is beside the axes in small letters."""


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
        figure.savefig(buffer, format=kind, dpi=_DPI, **options[kind])
    return buffer.getvalue()


def draw(charts: Sequence[Chart]) -> Figure:
    """The charts beside each other."""
    named = [series for series in charts[0].series if series.is_named]
    is_long = len(named) > _MOST_NAMED
    has_heat = charts[0].heat is not None
    height = max(1.2 + 0.3 * max(chart.rows for chart in charts), 1.8) if charts[0].rows else 3.6
    width = 5.2 if len(charts) < 3 else 3.6
    size = (4.6, 4.4) if has_heat else (width * len(charts) + (2 if is_long else 0), height)
    with plt.rc_context(STYLE | ({"axes.grid": False, "font.size": 8} if has_heat else {})):
        figure, axes = plt.subplots(1, len(charts), figsize=size, squeeze=False)
        for axis, chart in zip(axes[0], charts, strict=True):
            _fill(axis, chart)
        if any(series.base is not None for series in named):
            figure.legend(frameon=False, loc="outside upper center", ncols=3)
        elif len(named) > 1:
            beside: Any = {"loc": "outside center right", "fontsize": 6, "ncols": 2} if is_long else {}
            (figure if is_long else axes[0][0]).legend(
                *axes[0][0].get_legend_handles_labels(), frameon=False, **beside
            )
    return figure


def _fill(axis: Axes, chart: Chart) -> None:
    axis.set_title(plain(chart.title), fontsize=10)
    for series in chart.series:
        _draw(axis, series, is_horizontal=bool(chart.rows))
    if chart.heat is not None:
        _heat(axis, chart)
    if chart.shade is not None:
        axis.axvspan(*chart.shade, color="#888888", alpha=0.2, linewidth=0)
    if chart.rule is not None:
        axis.axvline(chart.rule, color=_INK, linewidth=0.8)
    _scale(axis, chart.x, "x")
    _scale(axis, chart.y, "y")
    if chart.rows and chart.heat is None:
        axis.grid(axis="y", visible=False)


def _draw(axis: Axes, series: Series, *, is_horizontal: bool) -> None:
    x, y = _array(series.x), _array(series.y)
    shade = _INK if series.place is None else colour(series.place)
    alpha = 0.45 if series.is_faint else 1.0
    label = plain(series.name) if series.is_named else "_"
    symbol = _MARKERS[0 if series.place is None else marker(series.place)]
    if series.kind == "bars":
        base = 0 if series.base is None else _array(series.base)
        axis.barh(y, x, left=base, height=0.7, color=shade, alpha=alpha, label=label)
    else:
        axis.plot(
            x,
            y,
            color=shade,
            alpha=alpha,
            label=label,
            linestyle="" if series.kind == "points" else _DASHES[series.dash],
            linewidth=series.width * 0.75,
            marker=symbol if series.size else None,
            markersize=series.size * 0.7,
        )
    if series.low is None or series.high is None:
        return
    low, high = _array(series.low), _array(series.high)
    if series.is_band:
        axis.fill_between(x, low, high, color=shade, alpha=0.18, linewidth=0)
    else:
        draw_ends = axis.hlines if is_horizontal else axis.vlines
        at = y if is_horizontal else x
        ends = _INK if series.kind == "bars" else shade
        draw_ends(at, low, high, color=ends, alpha=alpha, linewidth=series.width * 0.75)


def _heat(axis: Axes, chart: Chart) -> None:
    shares = chart.heat
    assert shares is not None
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(shares) <= 12:
        for row, column in np.ndindex(shares.shape):
            if share := shares[row, column]:
                text = f"{share * 100:.3g}"
                shade = "white" if share > 0.5 else "black"
                axis.text(column, row, text, ha="center", va="center", color=shade, fontsize=6)


def _scale(axis: Axes, scale: Axis, which: str) -> None:
    one = axis.xaxis if which == "x" else axis.yaxis
    axis.set(**{f"{which}label": plain(scale.title)})
    if scale.is_logarithmic:
        axis.set(**{f"{which}scale": "log"})
    if scale.labels is not None:
        rotation = 90 if which == "x" else 0
        one.set_ticks(range(len(scale.labels)), [plain(label) for label in scale.labels], rotation=rotation)
        ends = (-0.6, len(scale.labels) - 0.4)
        axis.set(**{f"{which}lim": ends if which == "x" else ends[::-1]})
    elif scale.limits is not None:
        axis.set(**{f"{which}lim": scale.limits})
    if scale.has_integers:
        one.set_major_locator(MaxNLocator(integer=True))


def _array(values: Values) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], float)


def plain(text: str) -> str:
    """Text in which a dollar sign begins no formula."""
    return text.replace("$", r"\$")
