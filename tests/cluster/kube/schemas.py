"""Structural schemas as the API server applies them: unknown fields, defaults, types, and the words of each error.

Not modelled: CEL rules (x-kubernetes-validations), merging of list-type=map, formats.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]
Schema = dict[str, Any]

OBJECT_META = {
    "annotations", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers",
    "generateName", "generation", "labels", "managedFields", "name", "namespace", "ownerReferences",
    "resourceVersion", "selfLink", "uid",
}  # fmt: skip


@functools.cache
def crd(file: Path) -> Manifest:
    """A CustomResourceDefinition, read once."""
    return dict(yaml.load(file.read_text(), Loader=yaml.CSafeLoader))


def version_of(definition: Manifest, name: str) -> Manifest:
    """One served version of a CustomResourceDefinition."""
    return next(version for version in definition["spec"]["versions"] if version["name"] == name)


def unknown_fields(manifest: Manifest, schema: Schema) -> Iterator[str]:
    """Paths of what the schema does not know; metadata is the API server's own."""
    yield from (f"metadata.{name}" for name in manifest.get("metadata", {}) if name not in OBJECT_META)
    for name, value in manifest.items():
        if name in ("apiVersion", "kind", "metadata"):
            continue
        yield from _unknown({name: value}, schema, "")


def _unknown(value: Any, schema: Schema, path: str) -> Iterator[str]:
    if schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-int-or-string"):
        return
    if isinstance(value, list):
        for place, item in enumerate(value):
            yield from _unknown(item, schema.get("items", {}), f"{path}[{place}]")
    elif isinstance(value, dict):
        for name, below in value.items():
            where = f"{path}.{name}" if path else name
            known = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if known is None or known is False:
                yield where
            elif isinstance(known, dict):
                yield from _unknown(below, known, where)


def pruned(value: Any, schema: Schema) -> Any:
    """The same without what the schema does not know."""
    if schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-int-or-string"):
        return value
    if isinstance(value, list):
        return [pruned(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for name, below in value.items():
        known = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
        if isinstance(known, dict):
            kept[name] = pruned(below, known)
    return kept


def defaulted(value: Any, schema: Schema) -> Any:
    """The same with the schema's defaults where a field is missing."""
    if isinstance(value, list):
        return [defaulted(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict):
        return value
    filled = dict(value)
    for name, below in schema.get("properties", {}).items():
        if name not in filled and "default" in below:
            filled[name] = copy.deepcopy(below["default"])
        if name in filled:
            filled[name] = defaulted(filled[name], below)
    return filled


def problems(value: Any, schema: Schema, path: str = "") -> Iterator[tuple[str, str, str]]:
    """What is wrong, as (reason, message, field)."""
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, (int, str)) or isinstance(value, bool):
            yield _of_type("integer,string", value, path)
        return
    wanted = schema.get("type")
    if value is None and schema.get("nullable"):
        return
    if wanted and not _is(value, wanted):
        yield _of_type(wanted, value, path)
        return
    if "enum" in schema and value not in schema["enum"]:
        supported = ", ".join(f'"{choice}"' for choice in schema["enum"])
        yield "FieldValueNotSupported", f'Unsupported value: "{value}": supported values: {supported}', path
    if "minimum" in schema and isinstance(value, (int, float)) and value < schema["minimum"]:
        least = schema["minimum"]
        message = f"Invalid value: {value}: {path} in body should be greater than or equal to {least}"
        yield "FieldValueInvalid", message, path
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        message = f"Invalid value: \"{value}\": {path} in body should match '{schema['pattern']}'"
        yield "FieldValueInvalid", message, path
    if isinstance(value, list):
        for place, item in enumerate(value):
            yield from problems(item, schema.get("items", {}), f"{path}[{place}]")
    elif isinstance(value, dict):
        for name in schema.get("required", []):
            if name not in value:
                yield "FieldValueRequired", "Required value", f"{path}.{name}" if path else name
        for name, below in value.items():
            known = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if isinstance(known, dict):
                yield from problems(below, known, f"{path}.{name}" if path else name)


def has_rules(schema: Any) -> bool:
    """Whether any part of a schema has CEL rules, which a real server then mentions."""
    if isinstance(schema, dict):
        return "x-kubernetes-validations" in schema or any(has_rules(below) for below in schema.values())
    return isinstance(schema, list) and any(has_rules(below) for below in schema)


def _of_type(wanted: str, value: Any, path: str) -> tuple[str, str, str]:
    got = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array"}
    name = got.get(type(value), "null")
    message = f'Invalid value: "{name}": {path} in body must be of type {wanted}: "{name}"'
    return "FieldValueTypeInvalid", message, path


def _is(value: Any, wanted: str) -> bool:
    if wanted in ("integer", "number"):
        kinds: tuple[type, ...] = (int,) if wanted == "integer" else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool)
    return isinstance(value, {"string": str, "boolean": bool, "object": dict, "array": list}[wanted])
