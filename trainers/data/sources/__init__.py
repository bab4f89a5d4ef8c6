"""The kinds of data that tandem reads, one module each; `trainers.data.registry` finds them.

A module has a `trainers.data.source.Source` as `SOURCE`. Its name is what `data.source` calls it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from trainers.data import own_source, registry
from trainers.data.labelled import Labelled
from trainers.data.source import Source
from trainers.data.spec import DataSpec
from trainers.errors import InputError


def resolve(spec: DataSpec) -> tuple[str, Path | None]:
    """The name of the source that reads the data, and their path; downloads them if they are not at hand.

    Raises:
        InputError: the path does not exist, or no source recognizes it.
    """
    path = spec.path
    if path is not None and not path.exists():
        raise InputError(f"data.path {str(path)!r} does not exist; give an existing file or directory")
    name = spec.source
    if name is None and path is None:
        name = "digits"
    if name is None:
        assert path is not None
        return _recognized(path), path
    if registry.is_function(name):
        return name, path
    source: Source = registry.load(name)
    if path is None and source.locate is not None:
        path = source.locate()
    if source.read is not None:
        return name, path
    assert path is not None
    return _recognized(path), path


def _recognized(path: Path) -> str:
    sources: dict[str, Source] = {name: registry.load(name) for name in registry.names()}
    fitting = [name for name, source in sources.items() if source.recognizes(path)]
    if not fitting:
        raise InputError(
            f"data.path {str(path)!r} is not a kind of data known here; give a directory of class folders, a .csv, "
            ".tsv or .jsonl file that names pictures, Parquet files, a .zip or .tar file, an .npz file, or one of the "
            "sources in docs/data.md"
        )
    return max(fitting, key=lambda name: sources[name].precedence)


def read(name: str, path: Path | None, spec: DataSpec) -> Labelled:
    """Read what `resolve` found.

    Raises:
        InputError: it cannot be read, or lacks what a field of `data:` names.
    """
    if registry.is_function(name):
        return own_source.read(name, path, spec)
    source: Source = registry.load(name)
    for field in ("image_column", "label_column", "extension", "images", "group_by"):
        if getattr(spec, field) is not None and field not in source.fields:
            kinds = [kind for kind in registry.names() if field in registry.load(kind).fields]
            raise InputError(
                f"data.{field} {str(getattr(spec, field))!r}: source {name} has no such thing, only "
                f"{', '.join(kinds)} have; leave it out"
            )
    assert source.read is not None
    return source.read(path, spec)


def stamp(name: str, path: Path | None, spec: DataSpec) -> str:
    """Changes whenever a file of the source does: names, sizes and modification times."""
    if registry.is_function(name):
        files = own_source.files(name, path, spec)
    elif path is None:
        return "embedded"
    else:
        files = registry.load(name).files(path, spec)
    stats = {str(file): file.stat() for file in files if os.path.exists(file)}  # not so a link to nowhere
    return json.dumps([(file, stat.st_size, stat.st_mtime_ns) for file, stat in sorted(stats.items())])
