"""Two experiments, or one on two days: what changed in each arm that both have."""

from __future__ import annotations

import dataclasses

import numpy as np

from orchestrator.analysis import compare, pairs, performance
from orchestrator.analysis.arms import ArmSummary, Predictions
from orchestrator.analysis.pairs import PairComparison, differing_factors, times
from orchestrator.analysis.results import pair_json
from orchestrator.analysis.statistics import metrics
from orchestrator.analysis.statistics.metrics import Metric
from orchestrator.analysis.statistics.verdicts import Judgement, Verdict
from orchestrator.analysis.wording import counted
from orchestrator.store import checked_files, validation
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Record
from orchestrator.store.validation import CheckedRecords
from trainers.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """An arm in both experiments, the second minus the first."""

    arm: str
    is_identical: bool
    """Whether the results are the same bit for bit, with every seed."""
    pair: PairComparison
    """Of the later arm with the earlier one; its verdict holds together with those on the other arms."""
    differences: list[str]
    """Of the recipe, with both values, the earlier one first."""

    def __str__(self) -> str:
        recipe = f"; differs in {'; '.join(self.differences)}" if self.differences else ""
        return f"{self.arm}: {self._score()}{self._speed()}{recipe}"

    def to_json(self) -> Record:
        """As plain JSON, with the pair's fields of `results.json`."""
        pair = pair_json(self.pair)
        return {"arm": self.arm, "identical": self.is_identical, "differences": self.differences} | {
            name: value
            for name, value in pair.items()
            if name not in ("first", "second", "differences", "ahead")
        }

    def _score(self) -> str:
        judgement, metric = self.pair.judgement, self.pair.metric
        if self.is_identical:
            return f"identical with {counted(self.pair.seeds[0], 'seed')}, bit for bit"
        if judgement is None:
            return f"one of the two has no finished run with {metric.title}"
        change = f"{metric.noun} {metric.difference(judgement.gap.mean, signed=True)}{metric.gap_unit}"
        if judgement.gap.low is None or judgement.gap.high is None:
            return f"{change}, no verdict ({judgement.obstacle})"
        ends = (metric.difference(end, signed=True) for end in (judgement.gap.low, judgement.gap.high))
        return f"{change} ({' to '.join(ends)}), {self._meaning(judgement)}"

    def _meaning(self, judgement: Judgement) -> str:
        metric = self.pair.metric
        if judgement.verdict is Verdict.UNDECIDED:
            return "not told from chance"
        if metric.margin is None:
            return "changed"
        margin = f"the margin of {metric.tolerance}"
        if judgement.verdict is Verdict.BETTER_BY_MORE:
            return f"changed by more than {margin}"
        if judgement.verdict is Verdict.EQUAL:
            return f"the same within {metric.tolerance}"
        return (
            f"changed by less than {margin}"
            if judgement.is_below_margin
            else f"changed, not proven to be more than {margin}"
        )

    def _speed(self) -> str:
        found = self.pair.speed
        if found is None or found.end is None:
            return ""
        told = [f"time to the end times {times(found.end.mean)}"]
        if found.end.low is not None and found.end.high is not None:
            told[0] += f" ({times(found.end.low)} to {times(found.end.high)})"
        if found.rate is not None:
            told.append(f"images/s times {times(found.rate.mean)}")
        doubt = f", but {found.doubt}" if found.doubt else ""
        no_verdict = "" if found.groups else ", without a verdict"
        return f"; {', '.join(told)}{no_verdict}{doubt}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Side:
    """One of the two experiments."""

    checked: CheckedRecords
    metric: Metric
    arms: dict[str, ArmSummary]
    predictions: dict[str, Predictions]
    performance: performance.Performance

    @property
    def fingerprint(self) -> str | None:
        """Of the data; None where only training functions know it."""
        data = self.checked.document["data"]
        return None if data is None else str(data["fingerprint"])


def between(
    first: ExperimentRecords, second: ExperimentRecords, *, notes: list[str] | None = None
) -> list[Change]:
    """What changed from one experiment to the other, for each arm of a name that both have.

    Args:
        first: the earlier one.
        second: the later one.
        notes: is given a sentence for each record that is left out.

    Raises:
        InputError: one is no experiment, they share no arm, or were trained on other data.
    """
    told: list[str] = [] if notes is None else notes
    before, after = _read(first, told), _read(second, told)
    both = f"{first.storage.url} and {second.storage.url}"
    names = [(side.metric.name, side.metric.goal) for side in (before, after)]
    if names[0] != names[1]:
        raise InputError(
            f"{both} are compared by different metrics, {' and '.join(' '.join(name) for name in names)}; make their "
            "metric the same"
        )
    if before.fingerprint != after.fingerprint:
        raise InputError(f"{both} were trained on different data, so their results cannot be compared")
    shared = [name for name in after.arms if name in before.arms]
    if not shared:
        raise InputError(f"{both} share no arm: {', '.join(before.arms)} and {', '.join(after.arms)}")
    compared = pairs.compare_pairs(
        [(_renamed(after.arms[name], _AFTER), _renamed(before.arms[name], _BEFORE)) for name in shared],
        predicted=_predicted(after, _AFTER) | _predicted(before, _BEFORE),
        performance=_together(before, after),
    )
    return [
        Change(
            arm=name,
            is_identical=_is_identical(before, after, name),
            pair=pair,
            differences=differing_factors(before.arms[name], after.arms[name]),
        )
        for name, pair in zip(shared, compared, strict=True)
    ]


_BEFORE, _AFTER = "before", "after"


def _read(records: ExperimentRecords, notes: list[str]) -> _Side:
    left = checked_files.Left()
    checked = validation.read(records, left)
    specification = checked.document["experiment"]
    metric = metrics.compared(specification)
    arms, predictions = compare.summarise_arms(checked, metric, [], left)
    notes += [f"{records.storage.url}/{sentence}" for sentence in left.sentences]
    return _Side(
        checked=checked,
        metric=metric,
        arms={arm.name: arm for arm in arms},
        predictions=predictions,
        performance=performance.measure(
            arms, specification, train_images=compare.train_images(checked.document)
        ),
    )


def _renamed(arm: ArmSummary, side: str) -> ArmSummary:
    """An arm with a name that says which of the two experiments it is from."""
    return dataclasses.replace(arm, name=f"{arm.name} {side}")


def _predicted(side: _Side, name: str) -> dict[str, np.ndarray]:
    whole = compare.complete_predictions([*side.arms.values()], side.predictions)
    return {f"{arm} {name}": predicted for arm, predicted in whole.items()}


def _together(before: _Side, after: _Side) -> performance.Performance:
    """Times of both experiments. Targets are left out, since each experiment has its own."""
    times = {
        f"{arm} {name}": dataclasses.replace(found, target=[])
        for side, name in ((before, _BEFORE), (after, _AFTER))
        for arm, found in side.performance.times.items()
    }
    is_apart = before.performance.is_apart and after.performance.is_apart
    return dataclasses.replace(after.performance, times=times, is_apart=is_apart)


def _is_identical(before: _Side, after: _Side, name: str) -> bool:
    """Whether an arm has the same seeds with the same test results and predictions, bit for bit."""
    sides = []
    for side in (before, after):
        runs = [run for run in side.checked.runs if run.entry["arm"] == name and run.result is not None]
        sides.append({run.entry["seed"]: run for run in runs})
    if sides[0].keys() != sides[1].keys() or not sides[0]:
        return False
    for seed, one in sides[0].items():
        other = sides[1][seed]
        assert one.result is not None and other.result is not None
        if any(
            one.result.get(field) != other.result.get(field)
            for field in ("test_loss", "confusion", "metrics")
        ):
            return False
        if (one.predictions is None) != (other.predictions is None):
            return False
        if one.predictions is not None and other.predictions is not None:
            arrays = (
                (one.predictions.predicted, other.predictions.predicted),
                (one.predictions.confidences, other.predictions.confidences),
                (one.predictions.scores, other.predictions.scores),
            )
            if not all(_is_same(*both) for both in arrays):
                return False
    return True


def _is_same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)
