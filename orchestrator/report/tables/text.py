"""Quantities as a table's cells write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.analysis.statistics.inference import Interval, Measure
from orchestrator.analysis.statistics.metrics import ABSENT, Metric


class Number(str):
    """A cell's text that sorts by a number."""

    value: float

    def __new__(cls, text: str, value: float) -> Number:
        """A text with its number."""
        made = super().__new__(cls, text)
        made.value = value
        return made


def sort_key(cell: object) -> float | str:
    """What a cell is sorted by: its number, or empty text where it has none."""
    return cell.value if isinstance(cell, Number) else ""


def percent(interval: Interval | None) -> str:
    """`71.20 % (70.10 to 72.30)`."""
    return with_bounds(interval, lambda share: f"{share * 100:.2f}", unit=" %")


def share(value: float) -> str:
    """`97.5 %`, as it is."""
    return f"{round(value * 100, 6):g} %"


def whole(interval: Interval | None) -> str:
    """`12,300 (11,900 to 12,700)`, of a quantity that is never negative."""
    return with_bounds(interval, lambda value: f"{max(value, 0):,.0f}")


def with_bounds(interval: Interval | None, write: Callable[[float], str], *, unit: str = "") -> str:
    """A mean, and in brackets its interval."""
    if interval is None:
        return ABSENT
    text = f"{write(interval.mean)}{unit}"
    if interval.low is not None and interval.high is not None:
        text += f" ({write(interval.low)} to {write(interval.high)})"
    return Number(text, interval.mean)


def measured(metric: Metric, interval: Interval | None) -> str:
    """A metric's mean with its interval."""
    text = metric.interval(interval)
    return text if interval is None else Number(text, interval.mean)


def difference(metric: Metric, interval: Interval) -> str:
    """A gap in a metric with its interval."""
    return Number(metric.differences(interval), interval.mean)


def number(value: float | None, text: str) -> str:
    """A number's text, or a dash where there is none."""
    return ABSENT if value is None else Number(text, value)


def p_value(value: float | None) -> str:
    """`0.012`."""
    if value is None:
        return ABSENT
    return Number("< 0.001" if value < 0.001 else f"{value:.3f}", value)


def seconds(found: Measure | None) -> str:
    """`71.2 s (70.1 to 72.3)`."""
    return with_bounds(_interval(found), lambda value: f"{value:,.1f}", unit=" s")


def cost(found: Measure | None) -> str:
    """In the price's currency."""
    return with_bounds(_interval(found), lambda money: f"{max(money, 0):,.4g}")


def _interval(found: Measure | None) -> Interval | None:
    return None if found is None else found.interval


def energy(found: Measure | None) -> str:
    """From joules in watt hours."""
    return with_bounds(_interval(found), lambda joules: f"{joules / 3600:,.2f}", unit=" Wh")


def size(count: int | None) -> str:
    """`1,024 MiB`."""
    return ABSENT if count is None else Number(f"{count / 2**20:,.0f} MiB", count)


def scaled(value: float | None, unit: str) -> str:
    """With an SI prefix: `1.25 TFLOP`."""
    if value is None:
        return ABSENT
    for power, prefix in ((15, "P"), (12, "T"), (9, "G"), (6, "M")):
        if value >= 10**power:
            return Number(f"{value / 10**power:.3g} {prefix}{unit}", value)
    return Number(f"{value:.0f} {unit}", value)


def setting(value: Any) -> str:
    """A variable's or a setting's value."""
    if value is None:
        return "not set"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
