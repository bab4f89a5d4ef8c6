"""Checks records before anything is concluded from them: what fails is left out, and named by file and reason.

Records may be torn, edited, forged or written by another version. Only what the analysis uses is checked; fields that
are not known here stay. Numbers that JSON does not have count as damage, but for losses, which diverge.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, TypeAdapter, ValidationError

from orchestrator.store import record_models
from orchestrator.store.old_records import upgraded, upgraded_predictions
from orchestrator.store.records import ExperimentRecords, reports_that_count
from orchestrator.store.storage import Record
from trainers.errors import InputError, one_line

_SAME_ACCURACY = 1e-6
_LARGEST_VALUE = 1e30
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictions:
    """What one run predicted for each test example."""

    predicted: np.ndarray | None
    """Int [n] classes; None for a regression and for several labels."""
    confidences: np.ndarray | None
    """Float [n], the probabilities of these classes, where they are known."""
    scores: np.ndarray | None
    """Probabilities float [n, classes], or predicted values [n]; None where only classes are known."""
    labels: np.ndarray | None
    """Int [n] classes, 0 or 1 [n, labels], or float [n]; None where they are not known."""
    ids: np.ndarray | None = None
    """Names of the test examples, where a training function gave them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckedRun:
    """One run's records that hold up."""

    entry: Record
    """Of the experiment's document: id, arm, framework and seed."""
    attempts: list[Record]
    epochs: list[Record]
    """Empty for a run of a training function."""
    reports: list[Record]
    """Empty for a built-in run."""
    failures: list[Record]
    result: Record | None
    predictions: Predictions | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckedRecords:
    """An experiment's records that hold up."""

    document: Record
    """With the arms and runs that hold up."""
    sessions: list[Record]
    runs: list[CheckedRun]
    labels: np.ndarray | None
    """Int [n], the test images' true classes."""
    disagreements: dict[str, np.ndarray] | None
    """Test images that arms classify differently: indices, labels and images."""
    scales: Record | None
    """What `tandem bench scaling` measured."""


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


def read(records: ExperimentRecords, left: Left) -> CheckedRecords:
    """Read an experiment's records, and leave out what does not hold up.

    Args:
        records: the experiment's.
        left: is told what is left out.

    Raises:
        InputError: there is no experiment, or what describes it is damaged, so that nothing can be reported.
    """
    document = read_document(records, left)
    data, arms = document["data"], document["experiment"]["arms"]
    labels = disagreements = None
    if data is not None:
        arrays = _arrays(records, "disagreements.npz", left) or {}
        labels = arrays.get("test_labels")
        images = data["test_images"]
        if labels is not None and not _are_whole(labels, (images,), len(data["class_names"])):
            left.out("disagreements.npz", f"test_labels are not a class for each of {images} images")
            labels = None
        disagreements = _disagreements(arrays, data, left)
    return CheckedRecords(
        document=document,
        sessions=_lines(records, "sessions.jsonl", record_models.DriverSession, left),
        runs=[
            _train_loop_run(records, entry, left)
            if is_train_loop(arms[entry["arm"]])
            else _run(records, entry, data, labels, left)
            for entry in document["runs"]
        ],
        labels=labels,
        disagreements=disagreements,
        scales=_scales(records, left),
    )


def is_train_loop(arm: Record) -> bool:
    """Whether an arm, as it was recorded, is a training function of the user's own."""
    return "train_loop" in arm


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


def _reason(error: ValidationError) -> str:
    problem = error.errors()[0]
    field = ".".join(str(step) for step in problem["loc"])
    told = f"{field or 'it'}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"
    if problem["type"] == "missing":
        return told
    return f"{told}, not {' '.join(repr(problem.get('input')).split())[:80]}"


def _check(model: type[BaseModel], value: Any, name: str, left: Left) -> bool:
    try:
        model.model_validate(value)
    except ValidationError as error:
        left.out(name, _reason(error))
        return False
    return True


def _json(records: ExperimentRecords, name: str, left: Left) -> Record | None:
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


def read_document(records: ExperimentRecords, left: Left) -> Record:
    """experiment.json with the arms and runs that hold up.

    Raises:
        InputError: it is not there, or damaged.
    """
    url = records.storage.url
    document = _json(records, "experiment.json", left)
    if document is None:
        why = f": {left.sentences[0].removesuffix('.')}" if left.sentences else ""
        raise InputError(
            f"{url!r} holds no experiment{why}; give the directory that has experiment.json in it, such as "
            "tandem-results/quickstart"
        )
    try:
        record_models.Document.model_validate(document)
    except ValidationError as error:
        raise InputError(f"{url}/experiment.json is damaged: {_reason(error)}") from error
    specification = document["experiment"]
    arms = {
        name: arm
        for name, arm in specification["arms"].items()
        if _is_name(name, left) and _check(_arm_model(arm), arm, f"experiment.json, arm {name}", left)
    }
    if not arms:
        raise InputError(f"{url}/experiment.json is damaged: {' '.join(left.sentences) or 'it has no arms'}")
    if specification.get("baseline") not in (None, *arms):
        left.out("experiment.json, baseline", f"there is no arm {specification['baseline']!r}")
        specification["baseline"] = None
    document.setdefault("data", None)
    if document["data"] is None and not all(map(is_train_loop, arms.values())):
        raise InputError(f"{url}/experiment.json is damaged: data: field required")
    document["experiment"] = specification | {"arms": arms}
    document["runs"] = _entries(document["runs"], arms, left)
    if document.get("attribution") is not None and not _is_plan(document["attribution"], left):
        document["attribution"] = None
    return document


def _arm_model(arm: Any) -> type[BaseModel]:
    is_own = isinstance(arm, dict) and is_train_loop(arm)
    return record_models.TrainLoopArm if is_own else record_models.Arm


def _is_name(name: str, left: Left) -> bool:
    try:
        TypeAdapter(record_models.Name).validate_python(name)
    except ValidationError:
        left.out(
            f"experiment.json, arm {name!r}", "its name is not made of lower-case letters, digits and hyphens"
        )
        return False
    return True


def _entries(entries: list[Any], arms: Mapping[str, Record], left: Left) -> list[Record]:
    kept: list[Record] = []
    seen: set[object] = set()
    for place, entry in enumerate(entries):
        name = f"experiment.json, run {place + 1}"
        if not _check(record_models.TrainLoopEntry, entry, name, left):
            continue
        if entry["arm"] not in arms:
            left.out(name, f"there is no arm {entry['arm']!r}")
        elif not is_train_loop(arms[entry["arm"]]) and not _check(record_models.RunEntry, entry, name, left):
            continue
        elif seen & {entry["id"], (entry["arm"], entry["seed"])}:
            left.out(name, f"{entry['arm']} seed {entry['seed']} is there twice")
        else:
            kept.append(entry)
            seen |= {entry["id"], (entry["arm"], entry["seed"])}
    return kept


def _is_plan(attribution: Any, left: Left) -> bool:
    name = "experiment.json, attribution"
    plan: Any = attribution.get("plan") if isinstance(attribution, dict) else None
    if not _check(record_models.Plan, plan, name, left):
        return False
    factors = set(plan["factors"])
    chosen = [frozenset(choice) for choice in plan["choices"].values()]
    ends = {plan["first"]: frozenset(), plan["second"]: frozenset(factors)}
    befores = {frozenset(order[:size]) for order in plan["orders"] for size in range(len(order) + 1)}
    reason = None
    if len(factors) < len(plan["factors"]) or len(set(chosen)) < len(chosen):
        reason = "factors or recipes are there twice"
    elif any(frozenset(plan["choices"].get(arm, ["?"])) != choice for arm, choice in ends.items()):
        reason = "the two arms are not among its recipes"
    elif any(set(order) != factors or len(order) != len(factors) for order in plan["orders"]):
        reason = "an order does not have every factor once"
    elif not befores <= set(chosen) or not all(choice <= factors for choice in chosen):
        reason = "its recipes are not those of its orders"
    if reason is not None:
        left.out(name, reason)
    return reason is None


def _lines(records: ExperimentRecords, name: str, model: type[BaseModel], left: Left) -> list[Record]:
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
            left.out(f"{name}, line {number}", _reason(error))
        except (ValueError, RecursionError) as error:
            left.out(f"{name}, line {number}", f"it is no JSON ({one_line(error)})")
        else:
            kept.append(record)
    return kept


def _run(
    records: ExperimentRecords, entry: Record, data: Record, labels: np.ndarray | None, left: Left
) -> CheckedRun:
    at = f"runs/{entry['id']}"
    classes, images = len(data["class_names"]), data["test_images"]
    epochs = {
        line["epoch"]: line for line in _lines(records, f"{at}/epochs.jsonl", record_models.Epoch, left)
    }
    result = _result(records, entry, classes, left)
    return CheckedRun(
        entry=entry,
        attempts=_lines(records, f"{at}/attempts.jsonl", record_models.Attempt, left),
        epochs=[epochs[epoch] for epoch in sorted(epochs)],
        reports=[],
        failures=_lines(records, f"{at}/failures.jsonl", record_models.Failure, left),
        result=result,
        predictions=None
        if result is None
        else _predictions(records, f"{at}/predictions.npz", result, classes, images, labels, left),
    )


def _train_loop_run(records: ExperimentRecords, entry: Record, left: Left) -> CheckedRun:
    at = f"runs/{entry['id']}"
    reports = reports_that_count(_lines(records, f"{at}/reports.jsonl", record_models.Report, left))
    result = _json(records, f"{at}/result.json", left)
    if result is not None and not _check(record_models.TrainLoopResult, result, f"{at}/result.json", left):
        result = None
    if result is not None:
        result["metrics"] = _finite(result["metrics"])
    return CheckedRun(
        entry=entry,
        attempts=_lines(records, f"{at}/attempts.jsonl", record_models.Attempt, left),
        epochs=[],
        reports=[report | {"metrics": _finite(report["metrics"])} for report in reports],
        failures=_lines(records, f"{at}/failures.jsonl", record_models.Failure, left),
        result=result,
        predictions=None if result is None else _handed_over(records, f"{at}/predictions.npz", left),
    )


def _finite(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """The metrics that are numbers, and small enough for their squares to be numbers."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if value is not None and abs(value) <= _LARGEST_VALUE
    }


def _handed_over(records: ExperimentRecords, name: str, left: Left) -> Predictions | None:
    """The predictions that a training function left in its last checkpoint."""
    arrays = _arrays(records, name, left)
    if arrays is None:
        return None
    given, labels, ids = arrays.get("predictions"), arrays.get("labels"), arrays.get("ids")
    if given is None or labels is None:
        left.out(name, "it needs the arrays predictions and labels")
        return None
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    are_numbers = all(array.dtype.kind in "biuf" and np.isfinite(array).all() for array in (given, labels))
    if not are_numbers or given.ndim not in (1, 2) or not len(labels) == len(given) > 0:
        left.out(
            name,
            f"predictions {given.shape} and labels {labels.shape} are not finite numbers, a row for each example",
        )
        return None
    if ids is not None and (ids.shape != (len(labels),) or len(np.unique(ids)) < len(ids)):
        left.out(name, "ids are not one for each example, all different")
        return None
    found = _understood(given, labels, ids)
    if found is None:
        left.out(
            name,
            f"predictions {given.shape} do not fit labels {labels.shape}: neither classes, nor values, nor several "
            "labels of 0 and 1",
        )
    return found


def _understood(given: np.ndarray, labels: np.ndarray, ids: np.ndarray | None) -> Predictions | None:
    """Predictions by their form: classes, probabilities, values of a regression, or several labels."""
    if labels.ndim == 2:
        if given.shape != labels.shape or not np.isin(labels, (0, 1)).all():
            return None
        return Predictions(
            predicted=None, confidences=None, scores=given.astype(float), labels=labels.astype(int), ids=ids
        )
    if labels.ndim != 1:
        return None
    is_class = labels.dtype.kind in "biu" and labels.min() >= 0
    if given.ndim == 1 and is_class and given.dtype.kind in "biu" and given.min() >= 0:
        return Predictions(
            predicted=given.astype(int), confidences=None, scores=None, labels=labels.astype(int), ids=ids
        )
    if given.ndim == 1 and is_class and labels.max() <= 1 and _are_shares(given):
        given = np.stack([1 - given, given], axis=1)
    if given.ndim == 1:
        return Predictions(
            predicted=None, confidences=None, scores=given.astype(float), labels=labels.astype(float), ids=ids
        )
    if not is_class or labels.max() >= given.shape[1]:
        return None
    are_probabilities = _are_shares(given) and np.allclose(given.sum(axis=1), 1, atol=1e-3)
    return Predictions(
        predicted=given.argmax(axis=1),
        confidences=given.max(axis=1).astype(float) if are_probabilities else None,
        scores=given.astype(float),
        labels=labels.astype(int),
        ids=ids,
    )


def _result(records: ExperimentRecords, entry: Record, classes: int, left: Left) -> Record | None:
    at = f"runs/{entry['id']}"
    name = f"{at}/result.json"
    result = _json(records, name, left)
    if result is None or not _check(record_models.Result, result, name, left):
        return None
    described = _json(records, f"{at}/run.json", left) or {}
    for field in ("framework", "seed"):
        if described.get(field, entry[field]) != entry[field]:
            left.out(
                name,
                f"run.json beside it says {field} {described[field]!r}, experiment.json {entry[field]!r}",
            )
            return None
    confusion = result["confusion"]
    if len(confusion) != classes or any(len(row) != classes for row in confusion):
        left.out(name, f"confusion does not have {classes} rows and columns")
        return None
    counts = np.array(confusion, np.int64)
    right, asked = int(np.trace(counts)), int(counts.sum())
    if asked == 0 or abs(right / asked - result["test_accuracy"]) > _SAME_ACCURACY:
        left.out(
            name,
            f"test_accuracy {result['test_accuracy']:g} is not that of confusion, {right} of {asked} right",
        )
        return None
    return result


def _predictions(
    records: ExperimentRecords,
    name: str,
    result: Record,
    classes: int,
    images: int,
    labels: np.ndarray | None,
    left: Left,
) -> Predictions | None:
    arrays = _arrays(records, name, left)
    if arrays is None:
        return None
    arrays = upgraded_predictions(arrays)
    predicted, confidences = arrays.get("predicted"), arrays.get("confidences")
    if predicted is None or not _are_whole(predicted, (images,), classes):
        left.out(name, f"predicted is not one of {classes} classes for each of {images} images")
        return None
    if confidences is None or confidences.shape != (images,) or not _are_shares(confidences):
        left.out(name, f"confidences are not a share between 0 and 1 for each of {images} images")
        return None
    if labels is not None and images:
        right = float(np.mean(predicted == labels))
        if abs(right - result["test_accuracy"]) > _SAME_ACCURACY:
            told = result["test_accuracy"]
            left.out(name, f"its predictions have an accuracy of {right:.4f}, result.json says {told:.4f}")
            return None
    return Predictions(predicted=predicted, confidences=confidences, scores=None, labels=labels)


def _arrays(records: ExperimentRecords, name: str, left: Left) -> dict[str, np.ndarray] | None:
    arrays = records.storage.read_arrays(name)
    if arrays is None and records.storage.read(name) is not None:
        left.out(name, "it is no archive of arrays")
    return arrays


def _are_whole(array: np.ndarray, shape: tuple[int, ...], below: int) -> bool:
    """Whether an array has such a shape and integers from 0 to a bound."""
    if array.shape != shape or not np.issubdtype(array.dtype, np.integer):
        return False
    return array.size == 0 or bool(array.min() >= 0 and array.max() < below)


def _are_shares(array: np.ndarray) -> bool:
    if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
        return False
    return array.size == 0 or bool(array.min() >= 0 and array.max() <= 1 + _SAME_ACCURACY)


def _disagreements(arrays: dict[str, np.ndarray], data: Record, left: Left) -> dict[str, np.ndarray] | None:
    parts: tuple[str, ...] = ("indices", "labels", "images")
    kept = {name: arrays[name] for name in parts if name in arrays}
    if not kept:
        return None
    indices = kept.get("indices", np.empty(0))
    count = indices.shape[:1]
    holds = (
        len(kept) == 3
        and _are_whole(indices, (*count,), data["test_images"])
        and _are_whole(kept["labels"], (*count,), len(data["class_names"]))
        and kept["images"].shape == (*count, *data["image_shape"])
        and kept["images"].dtype == np.uint8
    )
    if not holds:
        left.out("disagreements.npz", "indices, labels and images do not fit together")
        return None
    return kept


def _scales(records: ExperimentRecords, left: Left) -> Record | None:
    name = "scaling/scaling.json"
    scales = _json(records, name, left)
    if scales is None:
        return None
    arms = {arm: scale for arm, scale in scales.items() if arm != "schema"}
    if not arms or not all(_check(record_models.Scaling, scale, name, left) for scale in arms.values()):
        return None
    return scales
