"""Every module uses the public API of other packages only. The rules have no exceptions."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

OWN = {"orchestrator", "trainers", "tandem", "tests", "benchmarks"}
OTHERS = importlib.metadata.packages_distributions().keys() - OWN - sys.stdlib_module_names
"""Top-level names of all packages that are installed."""
INTERNAL = {"keras.src", "tensorflow.python"}
"""Private by the word of their packages, though without an underscore."""
DOTTED = re.compile(r"[A-Za-z]\w*(\.\w+)+")
WRITES = {"update", "pop", "popitem", "setdefault", "clear", "__setitem__", "__delitem__"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def is_others(path: str) -> bool:
    return re.split(r"\W", path)[0] in OTHERS


def is_private_path(path: str) -> bool:
    """Whether a dotted name of another package has a private part."""
    return is_others(path) and (
        any(map(is_private, path.split("."))) or ".".join(path.split(".")[:2]) in INTERNAL
    )


class Scope:
    """What names stand for in a scope: paths such as `ray.get()` of other packages, or our own classes."""

    def __init__(self, parent: Scope | None = None, owner: ast.ClassDef | None = None) -> None:
        self.parent = parent
        self.owner = owner if owner is not None else parent.owner if parent else None
        self.names: dict[str, str | None] = {}
        self.attributes: dict[str, str | None] = parent.attributes if parent else {}

    def find(self, name: str) -> str | None:
        if name in self.names:
            return self.names[name]
        return self.parent.find(name) if self.parent else None

    def path(self, node: ast.expr | None) -> str | None:
        """What an expression comes from, as far as it can be known."""
        match node:
            case ast.Name():
                return self.find(node.id)
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                return self.attributes.get(node.attr)
            case ast.Attribute():
                below = self.path(node.value)
                return None if below is None else f"{below}.{node.attr}"
            case ast.Call():
                return None if (below := self.path(node.func)) is None else f"{below}()"
            case ast.Subscript() | ast.Await() | ast.Starred():
                return self.path(node.value)
        return None

    def annotated(self, node: ast.expr | None) -> str | None:
        """As `path`, of an annotation."""
        match node:
            case ast.Constant(value=str()):
                return self.annotated(ast.parse(node.value, mode="eval").body)
            case ast.BinOp(op=ast.BitOr()):
                return self.annotated(node.left) or self.annotated(node.right)
        return self.path(node)


def statements(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Every node of a body, but not what is inside of its functions and classes."""
    todo: list[ast.AST] = list(body)
    while todo:
        node = todo.pop(0)
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            todo += ast.iter_child_nodes(node)


class Module:
    """One module's breaches of the rules, and its classes."""

    def __init__(self, source: str, name: str) -> None:
        self.name = name
        self.breaches: list[tuple[int, str]] = []
        self.classes: dict[str, tuple[list[str], dict[str, int], dict[str, int]]] = {}
        """By path: bases; private names that the body defines; private names of `self` that it only uses."""
        tree = ast.parse(source)
        self.scope = Scope()
        self.check_body(tree.body, self.scope)

    def add(self, node: ast.AST, what: str) -> None:
        self.breaches.append((getattr(node, "lineno", 0), what))

    def check_body(self, body: list[ast.stmt], scope: Scope) -> None:
        for node in statements(body):
            self.bind(node, scope)
        for node in statements(body):
            self.check(node, scope)
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                    inner = Scope(scope)
                    spec = node.args
                    for argument in [
                        *spec.posonlyargs,
                        *spec.args,
                        *spec.kwonlyargs,
                        spec.vararg,
                        spec.kwarg,
                    ]:
                        if argument is not None:
                            inner.names[argument.arg] = scope.annotated(argument.annotation)
                    statement = [ast.Expr(node.body)] if isinstance(node, ast.Lambda) else node.body
                    self.check_body(statement, inner)
                case ast.ClassDef():
                    self.check_class(node, scope)

    def check_class(self, node: ast.ClassDef, scope: Scope) -> None:
        inner = Scope(scope, node)
        inner.attributes = {}
        used: dict[str, int] = {}
        defined: dict[str, int] = {}
        for part in ast.walk(node):
            match part:
                case ast.Attribute(value=ast.Name(id="self" | "cls")) if is_private(part.attr):
                    (defined if isinstance(part.ctx, ast.Store) else used).setdefault(part.attr, part.lineno)
                case ast.Attribute(value=ast.Call(func=ast.Name(id="super"))) if is_private(part.attr):
                    used[part.attr] = part.lineno
        own: dict[str, int] = {}
        for part in node.body:
            match part:
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    own[part.name] = part.lineno
                case ast.AnnAssign(target=ast.Name()):
                    own[part.target.id] = part.lineno
                    inner.attributes[part.target.id] = scope.annotated(part.annotation)
                case ast.Assign():
                    own |= {name.id: part.lineno for name in part.targets if isinstance(name, ast.Name)}
        for function in ast.walk(node):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = Scope(inner)
                for argument in [*function.args.args, *function.args.kwonlyargs]:
                    arguments.names[argument.arg] = scope.annotated(argument.annotation)
                for part in statements(function.body):
                    self.bind(part, arguments)
        bases = [base for base in map(scope.path, node.bases) if base]
        private = {name: line for name, line in own.items() if is_private(name)}
        strangers = {name: line for name, line in used.items() if name not in own | defined}
        self.classes[f"{self.name}.{node.name}"] = bases, private, strangers
        self.check_body(node.body, inner)

    def bind(self, node: ast.AST, scope: Scope) -> None:
        """Remember what a statement makes names stand for."""
        match node:
            case ast.Import():
                for alias in node.names:
                    name = alias.asname or alias.name.split(".")[0]
                    self.bind_name(scope, name, alias.name if alias.asname else name)
            case ast.ImportFrom(level=0):
                for alias in node.names:
                    self.bind_name(scope, alias.asname or alias.name, f"{node.module}.{alias.name}")
            case ast.ClassDef():
                scope.names[node.name] = f"{self.name}.{node.name}"
            case ast.Assign():
                for target in node.targets:
                    self.bind_target(target, scope.path(node.value), scope)
            case ast.AnnAssign():
                path = scope.path(node.value) or scope.annotated(node.annotation)
                self.bind_target(node.target, path, scope)
            case ast.NamedExpr():
                self.bind_target(node.target, scope.path(node.value), scope)
            case ast.For() | ast.AsyncFor() | ast.comprehension():
                self.bind_target(node.target, scope.path(node.iter), scope)
            case ast.withitem(optional_vars=ast.expr()):
                self.bind_target(node.optional_vars, scope.path(node.context_expr), scope)

    def bind_name(self, scope: Scope, name: str, path: str) -> None:
        root = path.split(".")[0]
        scope.names[name] = path if root in OTHERS | OWN or path.startswith("sys") else None

    def bind_target(self, target: ast.expr, path: str | None, scope: Scope) -> None:
        match target:
            case ast.Name():
                scope.names[target.id] = path
            case ast.Attribute(value=ast.Name(id="self")):
                scope.attributes.setdefault(target.attr, path)
            case ast.Tuple() | ast.List():
                for element in target.elts:
                    self.bind_target(element, path, scope)

    def check(self, node: ast.AST, scope: Scope) -> None:
        match node:
            case ast.Import():
                for alias in node.names:
                    self.check_path(node, alias.name)
            case ast.ImportFrom(level=0):
                for alias in node.names:
                    self.check_path(node, f"{node.module}.{alias.name}")
            case ast.Attribute():
                path = scope.path(node.value)
                if path is not None and is_others(path) and is_private(node.attr):
                    self.add(node, f"private name {path}.{node.attr}")
                if node.attr == "raw_ops" and path == "tensorflow":
                    self.add(node, "tf.raw_ops")
                if isinstance(node.ctx, ast.Store | ast.Del):
                    self.check_assignment(node, node.attr, path)
            case ast.Subscript(ctx=ast.Store() | ast.Del()) if scope.path(node.value) == "sys.modules":
                self.add(node, "write to sys.modules")
            case ast.AugAssign() if scope.path(node.target) == "sys.modules":
                self.add(node, "write to sys.modules")
            case ast.Call(func=ast.Attribute()) if node.func.attr in WRITES:
                if scope.path(node.func.value) == "sys.modules":
                    self.add(node, "write to sys.modules")
            case ast.Call(func=ast.Name(id="getattr" | "hasattr" | "setattr" | "delattr")):
                self.check_reflection(node, scope)
            case ast.Constant(value=str()) if DOTTED.fullmatch(node.value) and is_private_path(node.value):
                self.add(node, f"private module in a string: {node.value}")

    def check_path(self, node: ast.AST, path: str) -> None:
        if is_private_path(path):
            self.add(node, f"private name {path}")
        if path.startswith("tensorflow.raw_ops"):
            self.add(node, "tf.raw_ops")

    def check_assignment(self, node: ast.AST, name: str, path: str | None) -> None:
        if name == "__class__":
            self.add(node, "assignment to __class__")
        elif path is not None and is_others(path) and "()" not in path:
            self.add(node, f"assignment to {path}.{name}")

    def check_reflection(self, node: ast.Call, scope: Scope) -> None:
        match node.args:
            case [owner, ast.Constant(value=str(name)), *_]:
                path = scope.path(owner)
                if path is not None and is_others(path) and is_private(name):
                    self.add(node, f"private name {path}.{name}")
            case [owner, *_]:
                path, name = scope.path(owner), "…"
            case _:
                return
        if isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr"):
            self.check_assignment(node, name, path)


def breaches(sources: dict[str, str]) -> list[str]:
    """Every breach of the rules in some modules, by name of the module."""
    modules = {name: Module(source, name) for name, source in sources.items()}
    found = [f"{name}:{line}: {what}" for name, module in modules.items() for line, what in module.breaches]
    classes = {path: entry for module in modules.values() for path, entry in module.classes.items()}

    def ancestors(path: str) -> Iterator[str]:
        for base in classes[path][0] if path in classes else ():
            yield base
            yield from ancestors(base)

    overridden: dict[str, dict[str, list[str]]] = {}
    for path, (_, private, strangers) in classes.items():
        others = [base for base in ancestors(path) if is_others(base)]
        inherited = {name for base in ancestors(path) if base in classes for name in classes[base][1]}
        for base in others:
            for name, line in private.items():
                root = overridden.setdefault(base.split(".")[0], {})
                root.setdefault(f"{base}.{name}", []).append(f"{path}:{line}: overrides {base}.{name}")
        if others:
            found += [
                f"{path}:{line}: private name {others[0]}.{name}"
                for name, line in strangers.items()
                if name not in inherited
            ]
    for candidates in overridden.values():
        found += [text for path in existing(list(candidates)) for text in candidates[path]]
    return sorted(found)


EXISTING = """
import importlib, json, sys

for path in json.loads(sys.argv[1]):
    *parts, attribute = path.split(".")
    found = importlib.import_module(parts[0])
    for place, part in enumerate(parts[1:], start=2):
        found = getattr(found, part, None) or importlib.import_module(".".join(parts[:place]))
    if hasattr(found, attribute):
        print(path)
"""


def existing(paths: list[str]) -> list[str]:
    """Those of some attributes of another package's classes that exist; asked in a process of its own."""
    finished = subprocess.run(
        [sys.executable, "-c", EXISTING, json.dumps(paths)], capture_output=True, text=True, check=True
    )
    return [line for line in finished.stdout.splitlines() if line in paths]


def modules_of(*roots: Path) -> dict[str, str]:
    files = [file for root in roots for file in ([root] if root.is_file() else sorted(root.rglob("*.py")))]
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file.read_text()
        for file in files
    }


@pytest.mark.parametrize("package", ["orchestrator", "trainers", "tandem.py"])
def test_every_module_uses_public_names_only(package: str) -> None:
    sources = modules_of(ROOT / package)
    assert sources
    found = breaches(sources)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "breach"),
    [
        ("from ray._private import services", "private name ray._private.services"),
        ("import ray._raylet", "private name ray._raylet"),
        ("from ray.train.v2._internal.util import x", "private name ray.train.v2._internal.util.x"),
        ("from torch import _C", "private name torch._C"),
        ("import keras.src.backend", "private name keras.src.backend"),
        ("import ray\nray._private.worker", "private name ray._private"),
        ("import ray\nnode = ray.init()\nnode._id", "private name ray.init()._id"),
        (
            "def f():\n    import ray\n    for x in ray.nodes():\n        x._id",
            "private name ray.nodes()._id",
        ),
        ("import optuna\ndef f(s: 'optuna.Study | None'):\n    s._x", "private name optuna.Study._x"),
        ("import ray\nclass A:\n    def f(self):\n        self.x = ray.f()\n        self.x._y", "ray.f()._y"),
        ("import ray\ngetattr(ray, '_private')", "private name ray._private"),
        ("import ray\nray.init = None", "assignment to ray.init"),
        ("import torch\ntorch.nn.Module.forward += 1", "assignment to torch.nn.Module.forward"),
        ("from ray.train import report\nsetattr(report, 'x', 1)", "assignment to ray.train.report.x"),
        ("def f(x):\n    x.__class__ = int", "assignment to __class__"),
        ("setattr(x, '__class__', int)", "assignment to __class__"),
        ("import tensorflow as tf\ntf.raw_ops.Add", "tf.raw_ops"),
        ("from tensorflow.raw_ops import Add", "tf.raw_ops"),
        ("import sys\nsys.modules['x'] = None", "write to sys.modules"),
        ("import sys\ndel sys.modules['x']", "write to sys.modules"),
        ("from sys import modules\nmodules.update(x=None)", "write to sys.modules"),
        ("from pydantic import BaseModel\nclass A(BaseModel):\n    def _iter(self): pass", "BaseModel._iter"),
        (
            "from pydantic import BaseModel\nclass A(BaseModel): pass\nclass B(A):\n    _iter = None",
            "m.B:4: overrides pydantic.BaseModel._iter",
        ),
        ("from ray import X\nclass A(X):\n    def f(self):\n        super()._g()", "private name ray.X._g"),
        (
            "from ray import X\nclass A(X):\n    def f(self):\n        self._state",
            "private name ray.X._state",
        ),
        ("load('ray._private.services')", "private module in a string: ray._private.services"),
    ],
)
def test_a_planted_breach_is_found(source: str, breach: str) -> None:
    found = breaches({"m": source})
    assert len(found) == 1 and breach in found[0], found


def test_what_is_public_or_our_own_is_no_breach() -> None:
    source = """
import os, sys, ray, numpy as np
from pydantic import BaseModel, model_validator
from orchestrator.store import _own

class A(BaseModel):
    value: int
    @model_validator(mode="after")
    def _consistent(self):
        return self

class B:
    def __init__(self):
        self._x = np.zeros(3)
        self._x.shape
        os._exit(0)
        ray.__version__
        "say _private things of ray._private in a sentence"
        sys.modules["x"]
"""
    assert breaches({"m": source}) == []
