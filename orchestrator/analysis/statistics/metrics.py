"""What arms are compared by: a metric, which of its values are better, and how they are written. Pure.

Every sentence, table and figure takes the words and the digits from here, so that none of them knows a metric.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from orchestrator.analysis import wording
from orchestrator.analysis.statistics.inference import Interval
from orchestrator.experiment import metric as names
from orchestrator.experiment.metric import Goal
from orchestrator.store.storage import Record

ABSENT = "–"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric by which arms are compared, or which is shown beside it."""

    name: str
    goal: Goal = "maximize"
    margin: float | None = None
    """A smaller gap counts as none; without one, no gap is judged by its size."""
    unit: str | None = None
    """Written after a value; `share` for values between 0 and 1 that are written in %."""
    title: str
    """In tables and on axes: `test accuracy`."""
    noun: str
    """In sentences: `accuracy`."""
    adjective: str | None = None
    """`accurate`, where an arm can be called more or less so."""
    where: str = ""
    """What follows the values in a sentence: ` on the test images`."""
    rival: str | None = None
    """A metric that may put two arms in the other order, which is then said."""

    @property
    def is_share(self) -> bool:
        """Whether values are between 0 and 1 and written in %."""
        return self.unit == names.SHARE

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which a value is."""
        return (0.0, 1.0) if self.is_share else (-math.inf, math.inf)

    @property
    def span(self) -> float:
        """The largest gap that there can be."""
        return self.bounds[1] - self.bounds[0]

    def advantage(self, difference: float) -> float:
        """A difference, positive where the first value is the better one."""
        return difference if self.goal == "maximize" else -difference

    def compared(self, degree: str) -> str:
        """`more accurate`, or `better in rmse`.

        Args:
            degree: more, less or equally.
        """
        if self.adjective is not None:
            return f"{degree} {self.adjective}"
        return f"{ {'more': 'better', 'less': 'worse', 'equally': 'equal'}[degree] } in {self.noun}"

    def attained(self, value: float) -> str:
        """`60.00 % are right`, or `rmse 3.213 kg`."""
        return f"{self.value(value)} are right" if self.adjective else f"{self.noun} {self.value(value)}"

    @property
    def best(self) -> str:
        """`highest` or `lowest`."""
        return "highest" if self.goal == "maximize" else "lowest"

    def values(self, values: Sequence[float]) -> list[str]:
        """`61.00 %` or `3.213 kg` for each, with as many digits as tell unequal ones apart."""
        if self.is_share:
            return wording.percents(values)
        return [f"{text}{self._suffix}" for text in wording.numbers(values)]

    def value(self, value: float | None) -> str:
        """One value."""
        return ABSENT if value is None else self.values([value])[0]

    def bare(self, value: float) -> str:
        """One value without its unit, which `heading` has."""
        return f"{value * 100:.2f}" if self.is_share else wording.numbers([value])[0]

    @property
    def label(self) -> str:
        """`Test accuracy`, at the head of a column; a function's own name as it is."""
        return self.title if self.title == self.name else self.title.capitalize()

    @property
    def heading(self) -> str:
        """`test accuracy, %`, above values without a unit."""
        unit = "%" if self.is_share else self.unit
        return f"{self.title}, {unit}" if unit else self.title

    def interval(self, interval: Interval | None) -> str:
        """`71.20 % (70.10 to 72.30)`."""
        if interval is None:
            return ABSENT
        text = f"{self.bare(interval.mean)}{' %' if self.is_share else self._suffix}"
        if interval.low is not None and interval.high is not None:
            text += f" ({self.bare(interval.low)} to {self.bare(interval.high)})"
        return text

    def difference(self, difference: float, *, signed: bool = False) -> str:
        """`1.20` points, or `0.31` of the metric's unit; the unit is left out."""
        if self.is_share:
            return wording.points(difference, signed=signed)
        return wording.number(difference, signed=signed)

    def differences(self, interval: Interval) -> str:
        """`+1.20 (+0.90 to +1.50)`."""
        text = self.difference(interval.mean, signed=True)
        if interval.low is not None and interval.high is not None:
            ends = (self.difference(end, signed=True) for end in (interval.low, interval.high))
            text += f" ({' to '.join(ends)})"
        return text

    def gap(self, difference: float) -> str:
        """`1.20 points` or `0.31 kg`."""
        return f"{self.difference(difference)}{self.gap_unit}"

    @property
    def gap_unit(self) -> str:
        """` points`, or the unit behind a space; empty for a plain number."""
        return " points" if self.is_share else self._suffix

    def plotted(self, difference: float) -> float:
        """A difference on an axis that is called `gap_heading`."""
        return difference * 100 if self.is_share else difference

    @property
    def gap_heading(self) -> str:
        """`points of test accuracy`, or `rmse in kg`."""
        if self.is_share:
            return f"points of {self.title}"
        return f"{self.title} in {self.unit}" if self.unit else self.title

    @property
    def tolerance(self) -> str:
        """The margin: `1 point` or `0.5 kg`."""
        assert self.margin is not None
        return wording.in_points(self.margin) if self.is_share else f"{self.margin:g}{self._suffix}"

    @property
    def _suffix(self) -> str:
        return f" {self.unit}" if self.unit else ""


def compared(specification: Record) -> Metric:
    """What an experiment's arms are compared by; test accuracy where it was recorded before there was a choice.

    Args:
        specification: the experiment as it was recorded.
    """
    given = specification.get("metric") or {"name": names.DEFAULT}
    margin = given.get("margin")
    found = _of(given["name"], unit=given.get("unit"), goal=given.get("goal"))
    if margin is None and found.is_share:
        margin = specification.get("margin", names.DEFAULT_MARGIN)
    return dataclasses.replace(found, margin=margin)


def shown(specification: Record) -> list[Metric]:
    """What else an experiment asks to show."""
    return [_of(entry["name"], unit=entry.get("unit")) for entry in specification.get("metrics") or []]


def known(name: str) -> Metric:
    """A metric by its name alone."""
    return _of(name)


def _of(name: str, *, unit: str | None = None, goal: Goal | None = None) -> Metric:
    known_goal, known_unit = names.KNOWN.get(name, (names.USUAL_GOALS.get(name, "maximize"), None))
    found = Metric(
        name=name, goal=goal or known_goal, unit=unit or known_unit, title=_titles(name), noun=_titles(name)
    )
    if name == names.DEFAULT:
        return dataclasses.replace(
            found,
            noun="accuracy",
            adjective="accurate",
            where=" on the test images",
            rival="balanced_accuracy",
        )
    return found if found.goal == "maximize" else dataclasses.replace(found, where=", lower is better")


def _titles(name: str) -> str:
    """tandem's own names as words; what a function reports stays as it is."""
    return name.replace("_", " ") if name in names.KNOWN else name
