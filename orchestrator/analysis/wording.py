"""Numbers and lists as sentences and tables write them, never rounded to another meaning."""

from __future__ import annotations

import math
from collections.abc import Sequence

_MOST_DECIMALS = 6
_DIGITS = 4
_DIGITS_OF_A_DIFFERENCE = 3
_PLAIN = (1e-4, 1e9)
"""Sizes of numbers that are written without a power of ten."""


def percents(shares: Sequence[float]) -> list[str]:
    """`61.00 %` for each share of 1, with as many decimals as tell unequal ones apart."""
    for decimals in range(2, _MOST_DECIMALS):
        texts = [f"{share * 100:.{decimals}f} %" for share in shares]
        if len(set(texts)) == len({*shares}):
            break
    return texts


def points(share: float, *, signed: bool = False) -> str:
    """`1.20`, a difference of shares in points; `0.003` rather than `0.00` for one that is not zero."""
    value = share * 100
    sign = "+" if signed else ""
    for decimals in range(2, _MOST_DECIMALS):
        text = f"{value:{sign}.{decimals}f}"
        if float(text) != 0 or value == 0:
            return text.replace("-0.00", "0.00").replace("+0.00", "0.00") if float(text) == 0 else text
    return f"{value:{sign}.1g}"


def numbers(values: Sequence[float]) -> list[str]:
    """`3.213` for each value, with four digits of the largest, or as many as tell unequal ones apart."""
    largest = max((abs(value) for value in values), default=0.0)
    for digits in range(_DIGITS, _DIGITS + _MOST_DECIMALS):
        texts = [_written(value, largest, digits) for value in values]
        if len(set(texts)) == len({*values}):
            break
    return texts


def number(value: float, *, signed: bool = False) -> str:
    """`0.31`, with three digits."""
    text = _written(value, abs(value), _DIGITS_OF_A_DIFFERENCE)
    return f"+{text}" if signed and value > 0 else text


def _written(value: float, largest: float, digits: int) -> str:
    """A number with so many digits of the largest beside it."""
    if largest == 0:
        return "0"
    if not _PLAIN[0] <= largest < _PLAIN[1]:
        return f"{value:.{digits}g}"
    decimals = max(digits - 1 - math.floor(math.log10(largest)), 0)
    text = f"{value:,.{decimals}f}"
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text


def in_points(share: float) -> str:
    """`1 point` or `0.5 points`, as a margin is written."""
    text = f"{round(share * 100, 6):g}"
    return f"{text} point{'' if text == '1' else 's'}"


def listed(items: Sequence[str], *, last: str = "and") -> str:
    """`a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}"


def counted(count: int, noun: str) -> str:
    """`1 seed`, `1,000 images`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds is None:
        return "–"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    if round(seconds) < 3600:
        return "{} min {} s".format(*divmod(round(seconds), 60))
    return "{} h {} min".format(*divmod(round(seconds / 60), 60))
