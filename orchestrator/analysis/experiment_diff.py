"""Two experiments, or one on two days: what changed in each arm that both have."""

from __future__ import annotations

import dataclasses

from orchestrator.analysis import compare
from orchestrator.analysis.arms import ArmSummary
from orchestrator.analysis.inference import Evidence, Interval
from orchestrator.analysis.pairs import compare_pair, differing_factors, times
from orchestrator.store.records import ExperimentRecords
from trainers.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """An arm in both experiments, the second minus the first."""

    arm: str
    accuracy: Evidence | None
    log_speed: Interval | None
    """Of the natural logarithm of the ratio of images per second, the second over the first; None where they are not
    compared."""
    speed_doubt: str | None
    """Why they are not, or why that says little, where either is known."""
    differences: list[str]
    """Of the recipe, with both values."""
    conclusive: bool

    def __str__(self) -> str:
        return f"{self.arm}: {self._accuracy()}{self._speed()}{self._recipe()}"

    def _accuracy(self) -> str:
        if self.accuracy is None:
            return "one of the two has no finished run"
        gap = self.accuracy.gap
        if gap.low is None or gap.high is None:
            return f"accuracy {gap.mean * 100:+.2f} points, with too few seeds to tell it from chance"
        word = "changed" if self.conclusive else "not told from chance"
        return (
            f"accuracy {gap.mean * 100:+.2f} points ({gap.low * 100:+.2f} to {gap.high * 100:+.2f}), {word}"
        )

    def _speed(self) -> str:
        found = self.log_speed
        if found is None:
            return f"; speeds not compared: {self.speed_doubt}" if self.speed_doubt else ""
        doubt = f", but {self.speed_doubt}" if self.speed_doubt else ""
        if found.low is None or found.high is None:
            return f"; speed times {times(found.mean)}, by one run on a side{doubt}"
        return f"; speed times {times(found.mean)} ({times(found.low)} to {times(found.high)}){doubt}"

    def _recipe(self) -> str:
        return f"; differs in {'; '.join(self.differences)}" if self.differences else ""


def between(first: ExperimentRecords, second: ExperimentRecords) -> list[Change]:
    """What changed from one experiment to the other, for each arm of a name that both have.

    Raises:
        InputError: one is no experiment, they share no arm, or were trained on other data.
    """
    before, after = compare.analyse(first), compare.analyse(second)
    if before.document["data"]["fingerprint"] != after.document["data"]["fingerprint"]:
        raise InputError(
            f"{first.storage.url} and {second.storage.url} were trained on different data, so their accuracies "
            "cannot be compared"
        )
    known = {arm.name: arm for arm in before.arms}
    shared = [(known[arm.name], arm) for arm in after.arms if arm.name in known]
    if not shared:
        raise InputError(
            f"{first.storage.url} and {second.storage.url} share no arm: {', '.join(known)} and "
            f"{', '.join(arm.name for arm in after.arms)}"
        )
    margin = compare.margin_of(after.document)
    return [_change(old, new, margin=margin) for old, new in shared]


def _change(old: ArmSummary, new: ArmSummary, *, margin: float) -> Change:
    pair = compare_pair(new, old, margin=margin)
    return Change(
        arm=new.name,
        accuracy=pair.evidence,
        log_speed=pair.log_speed,
        speed_doubt=pair.speed_doubt,
        differences=differing_factors(old, new),
        conclusive=pair.conclusive,
    )
