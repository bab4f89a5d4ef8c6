"""Training functions that are given as Python objects: what an experiment file would say of each."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from orchestrator.planning import train_loop_source
from trainers.errors import InputError

TrainLoop = Callable[..., None]

_TRAINERS = {
    "keras": "keras",
    "tensorflow": "keras",
    "torch": "torch",
    "lightning": "torch",
    "pytorch_lightning": "torch",
    "transformers": "torch",
    "jax": "jax",
}
"""How the workers of a function are connected that uses a package; the first of them that it uses counts."""


@dataclasses.dataclass(frozen=True)
class Functions:
    """The arms of an experiment, and the functions that no worker can import."""

    arms: dict[str, dict[str, Any]]
    """The fields of each arm, as in an experiment file."""
    module_path: Path
    """Directory that the other functions' modules are imported from."""
    sent: dict[str, TrainLoop]
    """By arm; they are pickled by value."""


def read(arms: Mapping[str, TrainLoop | str | Mapping[str, Any]]) -> Functions:
    """Describe arms as an experiment file does.

    Args:
        arms: by name a training function, its name as `package.module:function`, or the fields of an arm, whose
            `train_loop` may be the function itself.

    Raises:
        InputError: an arm has no training function.
    """
    given = {
        name: dict(arm) if isinstance(arm, Mapping) else {"train_loop": arm} for name, arm in arms.items()
    }
    objects: dict[str, TrainLoop] = {}
    for name, arm in given.items():
        function = arm.get("train_loop")
        if callable(function):
            objects[name] = function
        elif not isinstance(function, str):
            raise InputError(
                f"arms.{name}: {function!r} is no training function; give a function, its name as "
                "package.module:function, or a mapping with train_loop"
            )
    homes = {name: home for name, function in objects.items() if (home := _home(function)) is not None}
    module_path = next(iter(homes.values()), Path.cwd())
    sent = {}
    for name, function in objects.items():
        if homes.get(name) == module_path:
            given[name]["train_loop"] = f"{function.__module__}:{function.__qualname__}"
        else:
            called = getattr(function, "__name__", "")
            given[name]["train_loop"] = f"__main__:{called if called.isidentifier() else 'function'}"
            sent[name] = function
        given[name].setdefault("trainer", _trainer(function))
    return Functions(given, module_path, sent)


def _home(function: TrainLoop) -> Path | None:
    """The directory that a worker can import a function's module from; None where it cannot."""
    module = sys.modules.get(getattr(function, "__module__", ""))
    if module is None or module.__name__ == "__main__" or not getattr(module, "__file__", None):
        return None
    if getattr(module, getattr(function, "__qualname__", ""), None) is not function:
        return None
    packages = module.__name__.count(".") + (Path(str(module.__file__)).name == "__init__.py")
    home = Path(str(module.__file__)).resolve().parents[packages]
    return home if train_loop_source.file_of(module.__name__, home) is not None else None


def _trainer(function: TrainLoop) -> str:
    """The trainer for the packages that a function uses, in its own code and through its module's names."""
    used = set()
    code = getattr(function, "__code__", None)
    if isinstance(code, CodeType):
        known = getattr(function, "__globals__", {})
        for name in _names(code):
            value = known.get(name)
            owner = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            used |= {name, str(owner).partition(".")[0]}
    return next((trainer for package, trainer in _TRAINERS.items() if package in used), "none")


def _names(code: CodeType) -> Iterator[str]:
    """The global names, attributes and modules that code and the functions in it use."""
    yield from (name.partition(".")[0] for name in code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
