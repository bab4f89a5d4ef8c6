"""Cron schedules as KubeRay's operator reads them, checked before they are sent."""

from __future__ import annotations

import re

from trainers.errors import InputError

_WORD = re.compile(r"@(yearly|annually|monthly|weekly|daily|midnight|hourly|every ([0-9]+(h|m|s))+)")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 6, _WEEKDAYS),
)
_PART = re.compile(r"(?:[*?]|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>[0-9]+))?")


def check_schedule(schedule: str) -> None:
    """Refuse a schedule that the operator cannot read.

    The syntax is that of https://pkg.go.dev/github.com/robfig/cron/v3: five fields, or a word such as `@daily`.

    Raises:
        InputError: names the field.
    """
    if _WORD.fullmatch(schedule):
        return
    fields = schedule.split()
    if len(fields) != len(_FIELDS):
        raise InputError(
            f"--cron {schedule!r}: give minute, hour, day of the month, month and day of the week, such as '0 3 * * *'"
        )
    for text, (name, lowest, highest, names) in zip(fields, _FIELDS, strict=True):
        if not all(_is_valid(part.lower(), lowest, highest, names) for part in text.split(",")):
            raise InputError(
                f"--cron {schedule!r}: {text!r} is not a valid {name}; give a number from {lowest} to {highest}, "
                f"a list such as {lowest},{highest}, a range such as {lowest}-{highest}, a step such as */2, or *"
            )


def _is_valid(part: str, lowest: int, highest: int, names: tuple[str, ...]) -> bool:
    match = _PART.fullmatch(part)
    if match is None or int(match["step"] or 1) == 0:
        return False
    if match["first"] is None:
        return True
    ends = [_number(text, lowest, names) for text in (match["first"], match["last"] or match["first"])]
    return lowest <= ends[0] <= ends[1] <= highest


def _number(text: str, lowest: int, names: tuple[str, ...]) -> int:
    """A field's value; -1 if it is not valid."""
    if text in names:
        return lowest + names.index(text)
    return int(text) if text.isdecimal() else -1
