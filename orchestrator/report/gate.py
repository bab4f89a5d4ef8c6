"""Conditions on a comparison for CI: `torch.accuracy < keras.accuracy - 0.01`, parsed and never run.

A condition says what must not be. It fails the gate when it holds, and also when it cannot be judged: something is
missing, is no number, or cannot be computed.
"""

from __future__ import annotations

import dataclasses
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Collection
from typing import Any

from orchestrator.analysis.arms import ArmSummary
from orchestrator.analysis.compare import Comparison
from orchestrator.analysis.pairs import PairComparison
from orchestrator.analysis.statistics.verdicts import Verdict
from orchestrator.experiment.expressions import Expression
from trainers.errors import InputError

Value = float | str | None

_OF_FINISHED: dict[str, Callable[[ArmSummary], float | None]] = {
    "images_per_second": lambda arm: arm.images_per_second.mean if arm.images_per_second else None,
    "train_seconds": lambda arm: arm.train_seconds,
}
"""What is known of an arm only when all of its runs have finished; its metrics as well."""

_ENDS = {"": "mean", "_low": "low", "_high": "high"}
"""What is appended to the name of a metric for the ends of its interval."""

_ALWAYS: dict[str, Callable[[ArmSummary], float | None]] = {
    "seeds": lambda arm: float(len(arm.done)),
    "failed_runs": lambda arm: float(sum(run.state == "failed" for run in arm.runs)),
    "unfinished_runs": lambda arm: float(sum(run.state != "done" for run in arm.runs)),
}

_OF_PAIRS = ("gap", "gap_low", "gap_high", "p_value", "verdict", "seeds", "unfinished_runs")
_VERDICTS = {
    (Verdict.BETTER_BY_MORE, True): "better_by_more_than_margin",
    (Verdict.BETTER, True): "better",
    (Verdict.BETTER, False): "worse",
    (Verdict.BETTER_BY_MORE, False): "worse_by_more_than_margin",
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A condition, and the values that it saw."""

    condition: str
    failed: bool
    values: dict[str, Value]
    reason: str | None
    """Why it could not be judged, so that it fails."""

    def __str__(self) -> str:
        told = ", ".join(f"{name} {_written(value)}" for name, value in self.values.items())
        seen = f" ({told})" if told else ""
        return f"{self.condition}{seen}{f': {self.reason}' if self.reason else ''}"


def _written(value: Value) -> str:
    if value is None:
        return "missing"
    return value if isinstance(value, str) else format(value, "g")


@dataclasses.dataclass(frozen=True)
class Condition:
    """A condition, parsed."""

    text: str
    """As it was written."""
    expression: Expression
    """Of names that an expression may have: an arm's is replaced where it has a hyphen or begins with a digit."""
    names: dict[str, str]
    """For each name of the expression, the one that was written."""


def parse(text: str, arms: Collection[str]) -> Condition:
    """A condition on some arms.

    Raises:
        InputError: it is not understood, or is no condition.
    """
    replaced = {name: f"_arm{place}" for place, name in enumerate(arms) if not name.isidentifier()}
    inner = text
    if replaced:
        longest_first = "|".join(re.escape(name) for name in sorted(replaced, key=len, reverse=True))
        inner = re.sub(rf"(?<!\w)({longest_first})(?=\.)", lambda found: replaced[found[1]], text)
    try:
        expression = Expression(inner)
    except ValueError as error:
        sentence = str(error)
        for name, identifier in replaced.items():
            sentence = sentence.replace(identifier, name)
        raise InputError(f"--fail-if: {sentence}") from error
    if not expression.is_condition or not expression.names:
        raise InputError(
            f"--fail-if: {text!r} is no condition on an arm; compare something, as in torch.accuracy < 0.9"
        )
    written = {identifier: name for name, identifier in replaced.items()}
    names = {
        name: ".".join(written.get(part, part) for part in name.split("."))
        for name in sorted(expression.names)
    }
    return Condition(text, expression, names)


def judge(comparison: Comparison, conditions: list[Condition]) -> list[Outcome]:
    """Whether each condition holds; one that cannot be judged fails as well, since it proves nothing.

    Raises:
        InputError: a condition mentions what there is not.
    """
    outcomes = []
    for condition in conditions:
        values, reasons = {}, []
        for name, written in condition.names.items():
            values[name], reason = _value(written, comparison)
            reasons += [reason] if reason else []
        told = {condition.names[name]: value for name, value in values.items()}
        failed, reason = True, "; ".join(dict.fromkeys(reasons)) or None
        if reason is None:
            try:
                failed = bool(condition.expression.value(values))
            except (TypeError, KeyError, ArithmeticError) as error:
                reason = f"it cannot be computed ({type(error).__name__}: {error})"
        outcomes.append(Outcome(condition.text, failed, dict(sorted(told.items())), reason))
    return outcomes


def _value(name: str, comparison: Comparison) -> tuple[Value, str | None]:
    """What a name stands for, and why that cannot be judged by."""
    *names, quantity = name.split(".")
    arms = {arm.name: arm for arm in comparison.arms}
    unknown = [arm for arm in names if arm not in arms]
    if unknown or not names or len(names) > 2 or len(set(names)) < len(names):
        raise InputError(
            f"--fail-if: there is no arm {unknown[0] if unknown else name!r}; the arms are {', '.join(arms)}"
        )
    metrics = _metrics(comparison)
    choices = [*metrics, *_OF_FINISHED, *_ALWAYS] if len(names) == 1 else _OF_PAIRS
    if quantity not in choices:
        raise InputError(f"--fail-if: {name}: give one of {', '.join(choices)}")
    value: Value
    metric: str | None = None
    if len(names) == 2:
        metric = comparison.metric.name
        value = _of_pair(names[0], names[1], quantity, comparison)
    elif quantity in metrics:
        metric, end = metrics[quantity]
        found = arms[names[0]].measures.get(metric)
        value = None if found is None else getattr(found.interval, end)
    else:
        value = (_OF_FINISHED | _ALWAYS)[quantity](arms[names[0]])
    if value is None:
        return None, f"{name} is missing"
    if isinstance(value, float) and not math.isfinite(value):
        return value, f"{name} is no number"
    if quantity not in _ALWAYS:
        for arm in (arms[each] for each in names):
            if len(arm.done) < len(arm.runs):
                return (
                    value,
                    f"{len(arm.runs) - len(arm.done)} of {len(arm.runs)} runs of {arm.name} have no result",
                )
            lacking = sum(metric is not None and metric not in run.metrics for run in arm.runs)
            if lacking:
                return value, f"{lacking} of {len(arm.runs)} runs of {arm.name} have no {metric}"
    return value, None


def _metrics(comparison: Comparison) -> dict[str, tuple[str, str]]:
    """By the name of a quantity, the metric and the part of its interval that it is.

    `score` is the metric that arms are compared by, and `accuracy` is short for `test_accuracy`.
    """
    names = {"score": comparison.metric.name, "accuracy": "test_accuracy"}
    names |= {name: name for arm in comparison.arms for name in arm.measures}
    return {
        f"{name}{suffix}": (metric, end) for name, metric in names.items() for suffix, end in _ENDS.items()
    }


def _of_pair(first: str, second: str, quantity: str, comparison: Comparison) -> Value:
    pair = next((pair for pair in comparison.pairs if {*pair.names} == {first, second}), None)
    if pair is None:
        raise InputError(
            f"--fail-if: {first} and {second} are not compared with each other in this experiment"
        )
    if quantity == "seeds":
        return float(min(pair.seeds))
    if quantity == "unfinished_runs":
        arms = [arm for arm in comparison.arms if arm.name in (first, second)]
        return float(sum(run.state != "done" for arm in arms for run in arm.runs))
    return _of_judgement(pair, quantity, in_order=pair.first == first)


def _of_judgement(pair: PairComparison, quantity: str, *, in_order: bool) -> Value:
    """A quantity of the verdict, from the view of the first arm that was named."""
    judgement = pair.judgement
    if judgement is None:
        return None
    gap = judgement.gap
    ends = (gap.low, gap.high) if in_order else (gap.high, gap.low)
    sign = 1 if in_order else -1
    match quantity:
        case "verdict":
            is_ahead = (pair.metric.advantage(gap.mean) > 0) == in_order
            return _VERDICTS.get((judgement.verdict, is_ahead), judgement.verdict.value)
        case "p_value":
            return judgement.p_value
        case "gap":
            return sign * gap.mean
        case "gap_low":
            return None if ends[0] is None else sign * ends[0]
        case _:
            return None if ends[1] is None else sign * ends[1]


def junit(comparison: Comparison, outcomes: list[Outcome]) -> bytes:
    """JUnit XML: a test case for each run and each condition."""
    cases: list[tuple[str, str, str | None]] = [
        (f"{run.arm} seed {run.seed}", "runs", None if run.state == "done" else run.cause or run.state)
        for arm in comparison.arms
        for run in arm.runs
    ]
    cases += [
        (outcome.condition, "conditions", str(outcome) if outcome.failed else None) for outcome in outcomes
    ]
    failures = sum(failure is not None for _, _, failure in cases)
    name = _xml(comparison.name)
    suite = ET.Element("testsuite", name=name, tests=str(len(cases)), failures=str(failures))
    for title, group, failure in cases:
        case = ET.SubElement(suite, "testcase", name=_xml(title), classname=f"{name}.{group}")
        if failure is not None:
            ET.SubElement(case, "failure", message=_xml(failure))
    document: Any = ET.tostring(suite, encoding="utf-8", xml_declaration=True)
    return bytes(document)


_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _xml(text: str) -> str:
    """Text with a replacement for each character that XML 1.0 does not allow."""
    return _NOT_XML.sub("\ufffd", text)
