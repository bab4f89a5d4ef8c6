"""Checks records before anything is concluded from them: what fails is left out, and named by file and reason.

Records may be torn, edited, forged or written by another version. Only what the analysis uses is checked; fields that
are not known here stay. Numbers that JSON does not have count as damage, but for losses, which diverge.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, TypeAdapter, ValidationError

from orchestrator.store import record_models
from orchestrator.store.checked_files import (
    SAME_ACCURACY,
    Left,
    are_whole,
    holds,
    read_arrays,
    read_lines,
    read_object,
    reason_of,
)
from orchestrator.store.prediction_records import Predictions, read_handed_over, read_predictions
from orchestrator.store.records import ExperimentRecords, reports_that_count
from orchestrator.store.storage import Record
from trainers.errors import InputError

_LARGEST_VALUE = 1e30


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
        arrays = read_arrays(records, "disagreements.npz", left) or {}
        labels = arrays.get("test_labels")
        images = data["test_images"]
        if labels is not None and not are_whole(labels, (images,), len(data["class_names"])):
            left.out("disagreements.npz", f"test_labels are not a class for each of {images} images")
            labels = None
        disagreements = _disagreements(arrays, data, left)
    return CheckedRecords(
        document=document,
        sessions=read_lines(records, "sessions.jsonl", record_models.DriverSession, left),
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


def read_document(records: ExperimentRecords, left: Left) -> Record:
    """experiment.json with the arms and runs that hold up.

    Raises:
        InputError: it is not there, or damaged.
    """
    url = records.storage.url
    document = read_object(records, "experiment.json", left)
    if document is None:
        why = f": {left.sentences[0].removesuffix('.')}" if left.sentences else ""
        raise InputError(
            f"{url!r} holds no experiment{why}; give the directory that has experiment.json in it, such as "
            "tandem-results/quickstart"
        )
    try:
        record_models.Document.model_validate(document)
    except ValidationError as error:
        raise InputError(f"{url}/experiment.json is damaged: {reason_of(error)}") from error
    specification = document["experiment"]
    arms = {
        name: arm
        for name, arm in specification["arms"].items()
        if _is_name(name, left) and holds(_arm_model(arm), arm, f"experiment.json, arm {name}", left)
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
        if not holds(record_models.TrainLoopEntry, entry, name, left):
            continue
        if entry["arm"] not in arms:
            left.out(name, f"there is no arm {entry['arm']!r}")
        elif not is_train_loop(arms[entry["arm"]]) and not holds(record_models.RunEntry, entry, name, left):
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
    if not holds(record_models.Plan, plan, name, left):
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


def _run(
    records: ExperimentRecords, entry: Record, data: Record, labels: np.ndarray | None, left: Left
) -> CheckedRun:
    at = f"runs/{entry['id']}"
    classes, images = len(data["class_names"]), data["test_images"]
    epochs = {
        line["epoch"]: line for line in read_lines(records, f"{at}/epochs.jsonl", record_models.Epoch, left)
    }
    result = _result(records, entry, classes, left)
    return CheckedRun(
        entry=entry,
        attempts=read_lines(records, f"{at}/attempts.jsonl", record_models.Attempt, left),
        epochs=[epochs[epoch] for epoch in sorted(epochs)],
        reports=[],
        failures=read_lines(records, f"{at}/failures.jsonl", record_models.Failure, left),
        result=result,
        predictions=None
        if result is None
        else read_predictions(records, f"{at}/predictions.npz", result, classes, images, labels, left),
    )


def _train_loop_run(records: ExperimentRecords, entry: Record, left: Left) -> CheckedRun:
    at = f"runs/{entry['id']}"
    reports = reports_that_count(read_lines(records, f"{at}/reports.jsonl", record_models.Report, left))
    result = read_object(records, f"{at}/result.json", left)
    if result is not None and not holds(record_models.TrainLoopResult, result, f"{at}/result.json", left):
        result = None
    if result is not None:
        result["metrics"] = _finite(result["metrics"])
    return CheckedRun(
        entry=entry,
        attempts=read_lines(records, f"{at}/attempts.jsonl", record_models.Attempt, left),
        epochs=[],
        reports=[report | {"metrics": _finite(report["metrics"])} for report in reports],
        failures=read_lines(records, f"{at}/failures.jsonl", record_models.Failure, left),
        result=result,
        predictions=None if result is None else read_handed_over(records, f"{at}/predictions.npz", left),
    )


def _finite(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """The metrics that are numbers, and small enough for their squares to be numbers."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if value is not None and abs(value) <= _LARGEST_VALUE
    }


def _result(records: ExperimentRecords, entry: Record, classes: int, left: Left) -> Record | None:
    at = f"runs/{entry['id']}"
    name = f"{at}/result.json"
    result = read_object(records, name, left)
    if result is None or not holds(record_models.Result, result, name, left):
        return None
    described = read_object(records, f"{at}/run.json", left) or {}
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
    if asked == 0 or abs(right / asked - result["test_accuracy"]) > SAME_ACCURACY:
        left.out(
            name,
            f"test_accuracy {result['test_accuracy']:g} is not that of confusion, {right} of {asked} right",
        )
        return None
    return result


def _disagreements(arrays: dict[str, np.ndarray], data: Record, left: Left) -> dict[str, np.ndarray] | None:
    parts: tuple[str, ...] = ("indices", "labels", "images")
    kept = {name: arrays[name] for name in parts if name in arrays}
    if not kept:
        return None
    indices = kept.get("indices", np.empty(0))
    count = indices.shape[:1]
    holds = (
        len(kept) == 3
        and are_whole(indices, (*count,), data["test_images"])
        and are_whole(kept["labels"], (*count,), len(data["class_names"]))
        and kept["images"].shape == (*count, *data["image_shape"])
        and kept["images"].dtype == np.uint8
    )
    if not holds:
        left.out("disagreements.npz", "indices, labels and images do not fit together")
        return None
    return kept


def _scales(records: ExperimentRecords, left: Left) -> Record | None:
    name = "scaling/scaling.json"
    scales = read_object(records, name, left)
    if scales is None:
        return None
    arms = {arm: scale for arm, scale in scales.items() if arm != "schema"}
    if not arms or not all(holds(record_models.Scaling, scale, name, left) for scale in arms.values()):
        return None
    return scales
