"""What a reader of an unknown field is told: the field that may be meant, wherever in the file it belongs."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator.experiment.spec import json_schema, nearest

_ALIKE = 0.75
_ALIASES = {
    "augment": "augmentation",
    "batch": "batch_size",
    "dataset": "data",
    "gpus": "gpus_per_worker",
    "img_size": "image_size",
    "lr": "learning_rate",
    "num_epochs": "epochs",
    "num_workers": "workers",
    "scheduler": "schedule",
    "seed": "seeds",
    "val_split": "validation",
}
"""Names that fields have elsewhere."""


def unknown_field(path: Sequence[str | int], *, is_own: bool = False) -> str:
    """How a sentence about an unknown field ends: with the field that may be meant, or with those that there are.

    Args:
        path: of the field.
        is_own: whether it is in an arm with a training function.
    """
    *above, last = path
    name, schema = str(last), json_schema()
    if above[:1] == ["arms"] and len(above) > 1:
        block = _block(above[2:], schema["$defs"]["TrainLoopArm" if is_own else "Arm"], schema)
    else:
        block = _block(above, schema, schema)
    known = list(block.get("properties", {}))
    below, anywhere = [*_fields_below(block, schema)], [*_fields_below(schema, schema)]
    found = (
        _alike(name, known)
        or _called(name, below)
        or _called(name, anywhere)
        or _alike(name, below)
        or _alike(name, anywhere)
    )
    if found:
        return f", did you mean {found!r}?"
    return nearest(name, known) or f"; the fields here are {', '.join(known)}"


def unknown_override(name: str, arms: Sequence[str]) -> str:
    """The same of the first word of `--set`, which may be an arm's name as well."""
    schema = json_schema()
    found = _called(name, [*_fields_below(schema, schema)])
    if found:
        return f", did you mean {found.replace('defaults.', 'arms.*.', 1)!r}?"
    return nearest(name, [*arms, *schema["properties"]])


def _called(name: str, fields: Sequence[str]) -> str:
    """The shortest dotted path that ends in a name, or in what fields of that name are called here."""
    for wanted in (name, _ALIASES.get(name, name)):
        found = [field for field in fields if field.rpartition(".")[2] == wanted]
        if found:
            return min(found, key=lambda field: field.count("."))
    return ""


def _alike(name: str, fields: Sequence[str]) -> str:
    """The dotted path whose last step is most like a name."""
    last_steps = [field.rpartition(".")[2] for field in fields]
    close = difflib.get_close_matches(name, last_steps, n=1, cutoff=_ALIKE)
    return _called(close[0], fields) if close else ""


def _block(path: Sequence[str | int], node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The block at a path below another one."""
    for step in path:
        entry = node.get("properties", {}).get(step) or node.get("additionalProperties") or {}
        node = _resolved(entry, schema)
    return node


def _fields_below(block: dict[str, Any], schema: dict[str, Any], above: str = "") -> Iterator[str]:
    """The dotted path of each field of a block and of the blocks in it."""
    for name, entry in block.get("properties", {}).items():
        yield f"{above}{name}"
        yield from _fields_below(_resolved(entry, schema), schema, f"{above}{name}.")


def _resolved(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The block that a reference or a choice of blocks stands for; a choice has the fields of all of them."""
    if "$ref" in node:
        return _resolved(schema["$defs"][node["$ref"].rsplit("/", 1)[1]], schema)
    options = node.get("oneOf") or node.get("anyOf")
    if options is None:
        return node
    fields: dict[str, Any] = {}
    for option in options:
        fields |= _resolved(option, schema).get("properties", {})
    return {"properties": fields}
