"""The data sources by name: the modules of `trainers.data.sources`, and those of other packages.

Other packages add sources through the entry point group `tandem.sources`: a name and a
`trainers.data.source.Source` object.
"""

from __future__ import annotations

import functools
import pkgutil
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from trainers.errors import InputError, one_line

GROUP = "tandem.sources"
FUNCTION = r"[\w.]+:\w+"
"""What names a function of the user's own, as a regular expression."""
_BUILT_IN = "trainers.data.sources"


@functools.cache
def _entries() -> dict[str, EntryPoint]:
    modules = pkgutil.iter_modules([str(Path(__file__).with_name("sources"))])
    built_in = [EntryPoint(module.name, f"{_BUILT_IN}.{module.name}:SOURCE", GROUP) for module in modules]
    return {entry.name: entry for entry in (*entry_points(group=GROUP), *built_in)}


def names() -> list[str]:
    """The names that `data.source` may have, in alphabetical order."""
    return sorted(_entries())


def load(name: str) -> Any:
    """The `Source` of a name.

    Raises:
        InputError: another package's source cannot be imported.
    """
    entry = _entries()[name]
    try:
        return entry.load()
    except Exception as error:  # whatever another package raises when it is imported
        raise InputError(
            f"data.source {name}: {entry.value} cannot be imported: {one_line(error)}"
        ) from error


def is_function(name: str) -> bool:
    """Whether `data.source` names a function of the user's own instead of a source."""
    return ":" in name


def make_importable(source: str | None, directory: Path) -> None:
    """Let this process import a function of the user's own from a directory, as workers do."""
    if source is not None and is_function(source):
        sys.path.insert(0, str(directory.resolve()))
