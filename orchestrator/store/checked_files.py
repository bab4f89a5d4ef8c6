"""Reads files of records one by one and leaves out what is damaged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from orchestrator.store.old_records import upgraded
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Record
from trainers.errors import one_line

SAME_ACCURACY = 1e-6
_T = TypeVar("_T")


class Left:
    """Collects what is left out."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def out(self, file: str, reason: str) -> None:
        """Note that a record is not used."""
        sentence = f"{file} is left out: {reason}."
        if sentence not in self.sentences:
            self.sentences.append(sentence)

    def unless(self, file: str, read: Callable[[], _T]) -> _T | None:
        """What a reader of records that are not checked here returns; None, and a note, where it fails.

        Damage shows as errors of many kinds there, none of which may keep the rest of the report from its reader.
        """
        try:
            return read()
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            self.out(file, f"it is damaged ({one_line(error)})")
            return None


def clean(value: Any) -> Any:
    """Text without control characters and halves of characters, which no report can hold, in all of a record."""
    if isinstance(value, str):
        whole = value.encode("utf-8", "replace").decode()
        return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]", "\ufffd", whole)
    if isinstance(value, dict):
        return {clean(key): clean(below) for key, below in value.items()}
    if isinstance(value, list) and not {*map(type, value)} <= {int, float}:
        return [clean(below) for below in value]
    return value


def reason_of(error: ValidationError) -> str:
    """The first problem of a value, in a few words."""
    problem = error.errors()[0]
    field = ".".join(str(step) for step in problem["loc"])
    told = f"{field or 'it'}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"
    if problem["type"] == "missing":
        return told
    return f"{told}, not {' '.join(repr(problem.get('input')).split())[:80]}"


def holds(model: type[BaseModel], value: Any, name: str, left: Left) -> bool:
    """Whether a value fits its model; notes it if not."""
    try:
        model.model_validate(value)
    except ValidationError as error:
        left.out(name, reason_of(error))
        return False
    return True


def read_object(records: ExperimentRecords, name: str, left: Left) -> Record | None:
    """A JSON object of a file; None, and a note, where there is none."""
    content = records.storage.read(name)
    if content is None:
        return None
    try:
        document = clean(json.loads(content))
    except (ValueError, RecursionError) as error:
        left.out(name, f"it is no JSON ({one_line(error)})")
        return None
    if not isinstance(document, dict):
        left.out(name, "it is no JSON object")
        return None
    return upgraded(document)


def read_lines(records: ExperimentRecords, name: str, model: type[BaseModel], left: Left) -> list[Record]:
    """The records of a .jsonl file that hold up."""
    kept = []
    for number, line in enumerate((records.storage.read(name) or b"").splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = clean(json.loads(line))
            record = upgraded(record) if isinstance(record, dict) else record
            model.model_validate(record)
        except ValidationError as error:
            left.out(f"{name}, line {number}", reason_of(error))
        except (ValueError, RecursionError) as error:
            left.out(f"{name}, line {number}", f"it is no JSON ({one_line(error)})")
        else:
            kept.append(record)
    return kept


def read_arrays(records: ExperimentRecords, name: str, left: Left) -> dict[str, np.ndarray] | None:
    """The arrays of an archive; None, and a note, where it is damaged."""
    arrays = records.storage.read_arrays(name)
    if arrays is None and records.storage.read(name) is not None:
        left.out(name, "it is no archive of arrays")
    return arrays


def are_whole(array: np.ndarray, shape: tuple[int, ...], below: int) -> bool:
    """Whether an array has such a shape and integers from 0 to a bound."""
    if array.shape != shape or not np.issubdtype(array.dtype, np.integer):
        return False
    return array.size == 0 or bool(array.min() >= 0 and array.max() < below)


def are_shares(array: np.ndarray) -> bool:
    """Whether an array has floating-point numbers between 0 and 1."""
    if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
        return False
    return array.size == 0 or bool(array.min() >= 0 and array.max() <= 1 + SAME_ACCURACY)
