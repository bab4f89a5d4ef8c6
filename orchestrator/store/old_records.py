"""Reads records of earlier versions of the schema under the names of this version."""

from __future__ import annotations

from typing import Any

from orchestrator.experiment.old_fields import EXPERIMENT_FIELDS, RECIPE_FIELDS

_RENAMED_IN = 2
"""The version of the schema from which records have the new names."""

_ANYWHERE = {
    "given_up": "permanent",
    "answer_seconds": "latency_seconds",
    "answers_per_second": "predictions_per_second",
    "weight_average": "ema_decay",
}
_OUTERMOST = {"robustness": "corruption_robustness", "answer": "conclusion"}
_PARAMETERS = ("params", "space", "points")
"""Blocks of a sweep whose keys are dotted names of a recipe's fields."""


def upgraded(record: dict[str, Any]) -> dict[str, Any]:
    """A record under the names of this version; one that has them already is returned as it is."""
    version = record.get("schema", 1)
    if not isinstance(version, int) or version >= _RENAMED_IN:
        return record
    return dict(_renamed(record, _OUTERMOST))


def upgraded_predictions(arrays: dict[str, Any]) -> dict[str, Any]:
    """Likewise the arrays of predictions.npz, which have no version."""
    return {"predicted" if name == "answers" else name: array for name, array in arrays.items()}


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """The same with new keys: those of `names` here, and those of each block below."""
    if isinstance(value, list):
        return [_renamed(entry, names) for entry in value]
    if not isinstance(value, dict):
        return value
    names = _ANYWHERE | names
    renamed = {names.get(key, key): _renamed(entry, _names_below(key)) for key, entry in value.items()}
    if renamed.keys() & {"flip_averaging", "shift_averaging"}:
        renamed["test_time_augmentation"] = {
            "flip": renamed.pop("flip_averaging", False),
            "shift": renamed.pop("shift_averaging", 0),
        }
    return renamed


def _names_below(key: str) -> dict[str, str]:
    if key == "experiment":
        return EXPERIMENT_FIELDS
    return RECIPE_FIELDS if key in _PARAMETERS else {}
