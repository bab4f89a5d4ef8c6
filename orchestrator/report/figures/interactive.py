"""Charts for Plotly, which is inside the page: the page's script draws them in the reader's colours."""

from __future__ import annotations

import math
from typing import Any

from orchestrator.report.figures.chart import Axis, Chart, Series, Values, colour, marker

INK, SOFT, SHADE = "--ink", "--soft", "--shade"
"""Names of the page's colours, which its script puts in place."""
SYMBOLS = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "triangle-down",
    "cross",
    "x",
    "star",
    "pentagon",
    "hexagon",
    "triangle-left",
    "triangle-right",
)
_HEIGHT, _AROUND = 300, 60
_ROWS_WITH_ROOM = 6
_ACROSS = 40
"""Letters of labels that fit beside each other."""
_DIGITS = 6


def plotly(chart: Chart) -> dict[str, Any]:
    """Data, layout and table of a chart, as JSON."""
    layout: dict[str, Any] = {
        "height": _height(chart),
        "xaxis": _axis(chart.x),
        "yaxis": _axis(chart.y, is_vertical=True),
        "shapes": [],
    }
    if chart.shade is not None:
        layout["shapes"].append(
            {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "x0": chart.shade[0], "x1": chart.shade[1]}
            | {"fillcolor": SHADE, "line": {"width": 0}, "layer": "below"}
        )
    if chart.rule is not None:
        layout["shapes"].append(
            {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": chart.rule, "x1": chart.rule}
            | {"line": {"color": SOFT, "width": 1}, "layer": "below"}
        )
    data = [trace for series in chart.series for trace in _traces(series, chart)]
    if chart.heat is not None:
        layout["height"] = 420
        labels = [plain(label) for label in chart.y.labels or ()]
        for axis in ("xaxis", "yaxis"):
            layout[axis] |= {"type": "category", "tickvals": labels, "range": None}
        layout["yaxis"]["autorange"] = "reversed"
        if sum(map(len, labels)) > _ACROSS:
            layout["xaxis"]["tickangle"] = -90
        data.append(
            {
                "type": "heatmap",
                "x": labels,
                "y": labels,
                "z": [[float(f"{share * 100:.3g}") for share in row] for row in chart.heat.tolist()],
                "hovertemplate": "true: %{y}<br>predicted: %{x}<br>%{z} %<extra></extra>",
                "texttemplate": "%{z}" if len(labels) <= 12 else "",
                "colorscale": [[0, "--heat0"], [1, "--heat1"]],
                "zmin": 0,
                "zmax": 100,
                "showscale": False,
            }
        )
    return {
        "data": data,
        "layout": layout,
        "table": {"columns": chart.table.columns, "rows": chart.table.rows},
        "name": chart.name,
    }


def _height(chart: Chart) -> int:
    """In pixels; rows of many arms are higher, and few rows are as well."""
    if not chart.rows:
        return _HEIGHT
    named = sum(series.is_named and series.kind == "points" for series in chart.series)
    row = 46 if chart.rows <= _ROWS_WITH_ROOM else 20 + min(3 * named, 16)
    return max(_AROUND + row * chart.rows, 150)


def _axis(axis: Axis, *, is_vertical: bool = False) -> dict[str, Any]:
    made: dict[str, Any] = {"title": {"text": plain(axis.title)}}
    if axis.is_logarithmic:
        made["type"] = "log"
    if axis.labels is not None:
        labels = [plain(_shortened(label)) for label in axis.labels]
        made |= {"tickvals": list(range(len(labels))), "ticktext": labels, "zeroline": False}
        ends = [-0.6, len(labels) - 0.4]
        made["range"] = ends[::-1] if is_vertical else ends
    elif axis.limits is not None:
        made["range"] = [_short(end) for end in axis.limits]
    if axis.has_integers:
        made |= {"tickformat": ",d", "nticks": 8}
    return made


def _shortened(label: str) -> str:
    return label if len(label) <= 28 else f"{label[:27]}…"


def plain(text: str) -> str:
    """Text that Plotly shows as it is: it knows some tags and entities, and puts formulas between dollar signs."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")


def _traces(series: Series, chart: Chart) -> list[dict[str, Any]]:
    shade = INK if series.place is None else colour(series.place)
    if series.is_faint and series.place is None:
        shade = SOFT
    trace: dict[str, Any] = {
        "x": _values(series.x),
        "y": _values(series.y),
        "name": plain(series.name),
        "hovertemplate": f"%{{x}}, %{{y}}<extra>{plain(series.name)}</extra>",
        "showlegend": series.is_named,
        "opacity": 0.45 if series.is_faint else 1,
    }
    if series.texts is not None:
        trace |= {"text": [plain(text) for text in series.texts], "hovertemplate": "%{text}<extra></extra>"}
    if series.kind == "bars":
        trace |= {"type": "bar", "orientation": "h", "marker": {"color": shade}, "textposition": "none"}
        if series.base is not None:
            trace["base"] = _values(series.base)
    else:
        mode = "markers" if series.kind == "points" else "lines+markers" if series.size else "lines"
        symbol = SYMBOLS[0 if series.place is None else marker(series.place)]
        trace |= {
            "type": "scatter",
            "mode": mode,
            "line": {"color": shade, "width": series.width, "dash": series.dash},
            "marker": {"color": shade, "size": series.size, "symbol": symbol},
        }
    if series.low is None or series.high is None:
        return [trace]
    if series.is_band:
        x = _values(series.x)
        ends = _values(series.high) + _values(series.low)[::-1]
        band = {
            "type": "scatter",
            "x": x + x[::-1],
            "y": ends,
            "fill": "toself",
            "fillcolor": f"{shade}2e",
            "line": {"width": 0},
            "mode": "lines",
            "hoverinfo": "skip",
            "name": plain(series.name),
            "showlegend": False,
        }
        return [band, trace]
    along, values = ("x", series.x) if chart.y.labels else ("y", series.y)
    trace[f"error_{along}"] = {
        "type": "data",
        "symmetric": False,
        "array": _lengths(series.high, values),
        "arrayminus": _lengths(values, series.low),
        "color": INK if series.kind == "bars" else shade,
        "thickness": series.width,
        "width": 5,
    }
    return [trace]


def _lengths(longer: Values, shorter: Values) -> list[float | None]:
    pairs = zip(longer, shorter, strict=True)
    return [None if one is None or two is None else _short(one - two) for one, two in pairs]


def _values(values: Values) -> list[float | None]:
    return [_short(value) for value in values]


def _short(value: float | None) -> float | None:
    """With six digits, which is more than a screen shows; None for what is no number."""
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.{_DIGITS}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
