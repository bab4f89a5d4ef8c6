"""Training functions as Python objects: which are imported by name, which are sent, and how workers are connected."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import tandem
from orchestrator.planning import python_functions
from trainers.errors import InputError

MODULE = """\
import torch
from torch.nn import functional as F


def with_torch(config):
    return torch.ones(1)


def through_a_name(config):
    return F.relu


def with_keras(config):
    import keras

    return [keras.Model for _ in range(2)]


def plain(config):
    def inner():
        import jax

    return config["seed"]
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module that can be imported by its name; of PyTorch it has a namesake only."""
    (tmp_path / "loops.py").write_text(MODULE)
    (tmp_path / "torch" / "nn").mkdir(parents=True)
    (tmp_path / "torch" / "__init__.py").write_text("")
    (tmp_path / "torch" / "nn" / "__init__.py").write_text("")
    (tmp_path / "torch" / "nn" / "functional.py").write_text("relu = ones = None\n")
    before = dict(sys.modules)
    for name in [name for name in before if name.partition(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("loops")
    for name in set(sys.modules) - before.keys():
        del sys.modules[name]


def test_a_function_of_a_module_is_imported_by_its_name(module: ModuleType, tmp_path: Path) -> None:
    found = python_functions.read(
        {"a": module.with_torch, "b": {"train_loop": module.plain, "config": {"x": 1}}}
    )
    assert found.arms["a"] == {"train_loop": "loops:with_torch", "trainer": "torch"}
    assert found.arms["b"] == {"train_loop": "loops:plain", "config": {"x": 1}, "trainer": "jax"}
    assert found.module_path == tmp_path
    assert found.sent == {}


@pytest.mark.parametrize(
    ("function", "trainer"),
    [("with_torch", "torch"), ("through_a_name", "torch"), ("with_keras", "keras"), ("plain", "jax")],
)
def test_workers_are_connected_for_what_the_function_uses(
    module: ModuleType, function: str, trainer: str
) -> None:
    assert python_functions.read({"a": getattr(module, function)}).arms["a"]["trainer"] == trainer


def test_other_functions_are_sent(module: ModuleType) -> None:
    def local() -> None:
        """Nothing can import it."""

    functions = {"a": local, "b": lambda: None, "c": module.plain}
    found = python_functions.read(functions)
    assert found.sent == {"a": local, "b": functions["b"]}
    assert {name: arm["train_loop"] for name, arm in found.arms.items()} == {
        "a": "__main__:local",
        "b": "__main__:function",
        "c": "loops:plain",
    }
    assert found.arms["a"]["trainer"] == "none"


def test_what_is_no_function_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"arms\.a: 3 is no training function; give a function"):
        python_functions.read({"a": 3})  # type: ignore[dict-item]
    with pytest.raises(InputError, match=r"metric\.goal: missing"):
        tandem.compare({"a": print}, metric="bleu", storage=tmp_path)
