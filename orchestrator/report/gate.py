"""Conditions on a comparison for CI: `torch.accuracy < keras.accuracy - 0.01`, parsed and never run."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET
from collections.abc import Collection
from typing import Any

from orchestrator.analysis.arms import ArmSummary
from orchestrator.analysis.compare import Comparison
from orchestrator.experiment.expressions import Expression
from trainers.errors import InputError

QUANTITIES = (
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "balanced_accuracy",
    "images_per_second",
    "train_seconds",
    "failed_runs",
)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A condition, and the values that it saw."""

    condition: str
    failed: bool
    values: dict[str, float | None]

    def __str__(self) -> str:
        told = ", ".join(
            f"{name} {'missing' if value is None else format(value, 'g')}"
            for name, value in self.values.items()
        )
        return f"{self.condition} ({told})"


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
        InputError: it is not understood.
    """
    replaced = {name: f"_arm{place}" for place, name in enumerate(arms) if not name.isidentifier()}
    inner = text
    if replaced:
        longest_first = "|".join(re.escape(name) for name in sorted(replaced, key=len, reverse=True))
        inner = re.sub(rf"(?<![\w.])({longest_first})(?=\.)", lambda found: replaced[found[1]], text)
    try:
        expression = Expression(inner)
    except ValueError as error:
        sentence = str(error)
        for name, identifier in replaced.items():
            sentence = sentence.replace(identifier, name)
        raise InputError(f"--fail-if: {sentence}") from error
    written = {identifier: name for name, identifier in replaced.items()}
    names = {}
    for name in sorted(expression.names):
        arm, dot, quantity = name.rpartition(".")
        names[name] = f"{written.get(arm, arm)}{dot}{quantity}"
    return Condition(text, expression, names)


def judge(comparison: Comparison, conditions: list[Condition]) -> list[Verdict]:
    """Whether each condition holds; one that mentions what is missing counts as holding, since it proves nothing.

    Raises:
        InputError: a condition mentions what there is not.
    """
    known = {arm.name: _quantities(arm) for arm in comparison.arms}
    verdicts = []
    for condition in conditions:
        values = {name: _value(written, known) for name, written in condition.names.items()}
        missing = any(value is None for value in values.values())
        holds = missing or bool(condition.expression(values))
        told = {condition.names[name]: value for name, value in values.items()}
        verdicts.append(Verdict(condition.text, holds, dict(sorted(told.items()))))
    return verdicts


def _quantities(arm: ArmSummary) -> dict[str, float | None]:
    accuracy, speed = arm.accuracy, arm.images_per_second
    return {
        "accuracy": accuracy.mean if accuracy else None,
        "accuracy_low": accuracy.low if accuracy else None,
        "accuracy_high": accuracy.high if accuracy else None,
        "balanced_accuracy": arm.balanced_accuracy.mean if arm.balanced_accuracy else None,
        "images_per_second": speed.mean if speed else None,
        "train_seconds": arm.train_seconds,
        "failed_runs": float(sum(run.state == "failed" for run in arm.runs)),
    }


def _value(name: str, known: dict[str, dict[str, float | None]]) -> float | None:
    arm, _, quantity = name.rpartition(".")
    if arm not in known:
        raise InputError(f"--fail-if: there is no arm {arm or name!r}; the arms are {', '.join(known)}")
    if quantity not in QUANTITIES:
        raise InputError(f"--fail-if: {name}: give one of {', '.join(QUANTITIES)}")
    return known[arm][quantity]


def junit(comparison: Comparison, verdicts: list[Verdict]) -> bytes:
    """JUnit XML: a test case for each run and each condition."""
    cases: list[tuple[str, str, str | None]] = [
        (f"{run.arm} seed {run.seed}", "runs", None if run.state == "done" else run.cause or run.state)
        for arm in comparison.arms
        for run in arm.runs
    ]
    cases += [
        (verdict.condition, "conditions", str(verdict) if verdict.failed else None) for verdict in verdicts
    ]
    failures = sum(failure is not None for _, _, failure in cases)
    suite = ET.Element("testsuite", name=comparison.name, tests=str(len(cases)), failures=str(failures))
    for name, group, failure in cases:
        case = ET.SubElement(suite, "testcase", name=name, classname=f"{comparison.name}.{group}")
        if failure is not None:
            ET.SubElement(case, "failure", message=failure)
    document: Any = ET.tostring(suite, encoding="utf-8", xml_declaration=True)
    return bytes(document)
