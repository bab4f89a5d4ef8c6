"""The user's own modules, kept with the results so that an experiment can be resumed where they are not at hand.

    <storage>/<name>/modules.json               each file's name and the SHA-256 of its text
    <storage>/<name>/modules/<SHA-256>          the text

Only Python files are kept, and each text once.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from orchestrator.store.storage import Record, Storage
from trainers.errors import InputError

_INDEX = "modules.json"
_REFERENCE = re.compile(r"([A-Za-z_]\w*)(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
"""How an experiment names a function of the user's own."""


def keep(storage: Storage, files: dict[str, str]) -> None:
    """Keep modules with an experiment's results.

    Args:
        storage: the experiment's.
        files: the text of each, by its path below the directory that modules are imported from.
    """
    modules = {name: text.encode() for name, text in files.items() if name.endswith(".py")}
    if not modules:
        return
    digests = {name: hashlib.sha256(text).hexdigest() for name, text in modules.items()}
    present = set(storage.names("modules"))
    for name, digest in digests.items():
        if digest not in present:
            storage.write(f"modules/{digest}", modules[name])
    storage.write_json(_INDEX, {"files": digests})


def directory_for(storage: Storage, experiment: Record, recorded: Path) -> Path:
    """A directory that holds an experiment's modules: the recorded one, or a copy of what the results keep.

    Args:
        storage: the experiment's.
        experiment: as plain JSON.
        recorded: where the modules were when the experiment was started; it may be on another machine.

    Raises:
        InputError: a module that the experiment names is in neither.
    """
    needed = sorted(set(_references(experiment.get("arms"))))
    if all(_holds(recorded, module) for module in needed):
        return recorded
    index = (storage.read_json(_INDEX) or {}).get("files", {})
    copy = Path(tempfile.mkdtemp(prefix="tandem-modules-"))
    for name, digest in index.items():
        text = storage.read(f"modules/{digest}")
        target = (copy / name).resolve()
        if text is not None and target.is_relative_to(copy.resolve()):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text)
    missing = [module for module in needed if not _holds(copy, module)]
    if missing:
        raise InputError(
            f"the experiment's own module {missing[0]} is neither in {recorded} nor kept with {storage.url}; "
            f"run the command where {missing[0]}.py is, with the experiment's file"
        )
    return copy


def _references(value: object) -> Iterator[str]:
    """The first name of each module that an experiment names."""
    if isinstance(value, dict):
        for below in value.values():
            yield from _references(below)
    elif isinstance(value, list):
        for below in value:
            yield from _references(below)
    elif isinstance(value, str) and (match := _REFERENCE.fullmatch(value)):
        yield match[1]


def _holds(directory: Path, module: str) -> bool:
    return (directory / f"{module}.py").is_file() or (directory / module).is_dir()
