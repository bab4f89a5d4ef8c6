"""Parquet files in Hugging Face's layout: a column of pictures and one of labels."""

from __future__ import annotations

import io
import json
from functools import partial
from pathlib import Path

import numpy as np

from trainers.data.labelled import (
    Encoded,
    Labelled,
    Split,
    check_task,
    column_of,
    is_hidden,
    labelled,
    named_column,
    split_named,
    told_groups,
)
from trainers.data.source import Source
from trainers.data.spec import DataSpec
from trainers.errors import InputError, one_line


def _files_in(path: Path) -> list[Path]:
    """The Parquet files in a directory and below, without hidden ones."""
    return [
        file
        for file in sorted(path.rglob("*.parquet"))
        if not any(map(is_hidden, file.relative_to(path).parts))
    ]


def _read(path: Path | None, spec: DataSpec) -> Labelled:
    import pyarrow as pa
    import pyarrow.parquet as pq

    assert path is not None
    root, files = (path, _files_in(path)) if path.is_dir() else (path.parent, [path])
    if not files:
        raise InputError(f"{path} holds no Parquet files")
    of_kinds: dict[str | None, list[Path]] = {}
    for file in files:
        of_kinds.setdefault(split_named(str(file.relative_to(root))), []).append(file)
    unnamed = of_kinds.pop(None, [])
    if "train" not in of_kinds:
        of_kinds = of_kinds | {"train": unnamed} if unnamed else {"train": files}

    try:
        file = of_kinds["train"][0]
        schema = pq.read_schema(file)
        names = schema.names
        image = named_column(file, names, spec.image_column, field="image_column") or column_of(
            file, names, ("image", "img", "images"), "images, structs with bytes,", field="image_column"
        )
        label = named_column(file, names, spec.label_column, field="label_column") or column_of(
            file, names, ("label", "labels", "fine_label", "class"), "labels", field="label_column"
        )
        splits = {kind: _rows(found, image, label, spec.group_by) for kind, found in of_kinds.items()}
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as Parquet: {one_line(error)}") from error
    return labelled(splits, _class_names(schema.metadata or {}, label), path)


def _rows(files: list[Path], image: str, label: str, group_by: str | None) -> Split:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images: list[Encoded] = []
    labels: list[np.ndarray] = []
    groups: list[np.ndarray] = []
    for file in files:
        group = named_column(file, pq.read_schema(file).names, group_by, field="group_by")
        table = pq.read_table(file, columns=[image, label] + ([group] if group else []))
        if group:
            groups.append(told_groups(file, group, table[group].to_pylist()))
        if missing := table[label].null_count:
            raise InputError(f"{file} has no {label} in {missing} of its {len(table)} rows")
        for row, value in enumerate(table[image].to_pylist()):
            content = value.get("bytes") if isinstance(value, dict) else value
            if not isinstance(content, bytes):
                raise InputError(
                    f"{file} row {row}: {image} holds no picture; structs with bytes, or bytes, are needed"
                )
            images.append(Encoded(f"{file.name} row {row}", partial(io.BytesIO, content)))
        if pa.types.is_list(table[label].type) or pa.types.is_large_list(table[label].type):
            check_task(["|".join(map(str, value)) for value in table[label].to_pylist()], file)
        labels.append(table[label].to_numpy())
    return Split(images, np.concatenate(labels), np.concatenate(groups) if groups else None)


def _class_names(metadata: dict[bytes, bytes], label: str) -> list[str] | None:
    """Those that pyarrow's user or Hugging Face has put there; None where nothing is said that can be read."""
    try:
        if b"classes" in metadata:
            return metadata[b"classes"].decode().split(",")
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if names else None


def _recognizes(path: Path) -> bool:
    return bool(_files_in(path)) if path.is_dir() else path.suffix.lower() == ".parquet"


SOURCE = Source(
    read=_read,
    recognizes=_recognizes,
    fields=frozenset({"image_column", "label_column", "group_by"}),
)
