"""What can be known of a user's training function before it runs, from the text of its module. Nothing is imported."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from orchestrator.experiment.spec import nearest
from orchestrator.experiment.train_loop import TrainLoopArm
from trainers.errors import InputError

_Function = ast.FunctionDef | ast.AsyncFunctionDef

_REMOVED_MODULES = {
    "ray.air": "import from ray.train instead",
    "ray.train.session": "call the functions of ray.train and ray.train.get_context instead",
}
_KEPT_MODULES = ("ray.air.integrations",)
_REMOVED_CALLS = {
    f"{module}session.{old}": f"call ray.train.{new}"
    for module in ("", "air.", "train.")
    for old, new in (
        ("report", "report"),
        ("get_checkpoint", "get_checkpoint"),
        ("get_dataset_shard", "get_dataset_shard"),
        ("get_world_rank", "get_context().get_world_rank"),
        ("get_world_size", "get_context().get_world_size"),
    )
}
_REMOVED_ARGUMENTS = {
    "metadata": "put it into train_loop_config",
    "resume_from_checkpoint": "call ray.train.get_checkpoint in the training function",
    "trainer_resources": "leave it out, Ray Train's controller uses no CPU",
}
_REMOVED_METHODS = ("restore", "can_restore")


@dataclasses.dataclass(frozen=True)
class Look:
    """What the modules of an arm say."""

    sha256: str
    """Of the text of all of them."""
    notes: list[str]
    """What would not work in a script of Ray Train, but is no part of what the arm runs."""


def look(name: str, arm: TrainLoopArm, module_path: Path) -> Look:
    """Read the modules that an arm names.

    Args:
        name: of the arm.
        arm: with a training function.
        module_path: directory that the user's modules are imported from.

    Raises:
        InputError: a function is not there, has a wrong signature, or uses what Ray Train no longer has.
    """
    texts: list[str] = []
    notes: list[str] = []
    for module in arm.modules:
        file = file_of(module, module_path)
        field = "train_loop" if arm.train_loop.startswith(f"{module}:") else "datasets or trainer"
        if file is None:
            raise InputError(
                f"arms.{name}.{field}: there is no module {module!r}; {module_path} and the installed packages were "
                "searched"
            )
        if file.suffix != ".py":
            continue  # compiled
        text = file.read_text()
        texts.append(text)
        try:
            tree = ast.parse(text, str(file))
        except SyntaxError as error:
            raise InputError(f"arms.{name}.{field}: {file.name}, line {error.lineno}: {error.msg}") from error
        notes += _look_at(name, arm, _Module(module, file, tree))
    return Look(hashlib.sha256("\0".join(texts).encode()).hexdigest(), notes)


def look_here(name: str, arm: TrainLoopArm, module_path: Path) -> None:
    """As `look`, before a job is submitted: modules that are not here may be where it runs.

    Raises:
        InputError: as `look`.
    """
    if all(file_of(module, module_path) is not None for module in arm.modules):
        look(name, arm, module_path)


@dataclasses.dataclass(frozen=True)
class _Module:
    name: str
    file: Path
    tree: ast.Module

    def top_level(self) -> dict[str, ast.stmt]:
        """What the module binds, by name: functions, classes, assignments and imports."""
        bound: dict[str, ast.stmt] = {}
        for node in _statements(self.tree.body):
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    bound[node.name] = node
                case ast.Import() | ast.ImportFrom():
                    bound |= {(alias.asname or alias.name).partition(".")[0]: node for alias in node.names}
                case ast.Assign():
                    bound |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
                case ast.AnnAssign(target=ast.Name(id=target)):
                    bound[target] = node
        return bound


def file_of(module: str, module_path: Path) -> Path | None:
    """The file of a module, found without importing the packages that it is in."""
    path: list[str] | None = [str(module_path), *sys.path]
    spec = None
    for part in _prefixes(module):
        spec = PathFinder.find_spec(part, path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or [])
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def _prefixes(module: str) -> Iterator[str]:
    parts = module.split(".")
    return (".".join(parts[: end + 1]) for end in range(len(parts)))


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that importing a module runs, those below `if` and `try` as well."""
    for node in body:
        yield node
        for field in ("body", "orelse", "finalbody"):
            if isinstance(node, ast.If | ast.Try | ast.With) and not _is_script_guard(node):
                yield from _statements(getattr(node, field, []))
        for handler in getattr(node, "handlers", []):
            yield from _statements(handler.body)


def _simple_statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The same without definitions and without what holds other statements."""
    for node in _statements(body):
        if not isinstance(node, _Function | ast.ClassDef | ast.If | ast.Try | ast.With):
            yield node


def _is_script_guard(node: ast.stmt) -> bool:
    """`if __name__ == "__main__":`"""
    return isinstance(node, ast.If) and any(
        isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test)
    )


def _look_at(name: str, arm: TrainLoopArm, module: _Module) -> list[str]:
    """Notes on a module of an arm.

    Raises:
        InputError: the arm cannot run.
    """
    bound = module.top_level()
    named = {
        "train_loop": arm.train_loop,
        "datasets": arm.datasets or "",
        "trainer": arm.trainer if ":" in arm.trainer else "",
    }
    wanted = {
        field: function.partition(":")[2]
        for field, function in named.items()
        if function.partition(":")[0] == module.name
    }
    for field, function in wanted.items():
        if function not in bound:
            functions = [key for key, node in bound.items() if isinstance(node, _Function)]
            hint = nearest(function, functions) or (f"; it has {', '.join(functions)}" if functions else "")
            raise InputError(f"arms.{name}.{field}: {module.file.name} has no function {function!r}{hint}")
    if line := _trains_on_import(module):
        raise InputError(
            f"arms.{name}: {module.file.name}, line {line}: the module starts Ray or trains when it is imported; put "
            'that below if __name__ == "__main__":'
        )
    if "train_loop" in wanted:
        _check_signature(name, arm, bound[wanted["train_loop"]], module.file.name)
    if "datasets" in wanted:
        _check_datasets(name, bound[wanted["datasets"]], module.file.name)
    reached = {id(node) for node in _reached(module, bound, wanted.values())}
    mistakes: list[str] = []
    notes: list[str] = []
    for node, sentence in _first_generation(module.tree):
        where = f"{module.file.name}, line {node.lineno}: {sentence}"
        if id(node) in reached:
            mistakes.append(f"arms.{name}.train_loop: {where}")
        else:
            notes.append(f"arms.{name}: {where}; the arm does not run that line")
    if mistakes:
        raise InputError("\n".join(mistakes))
    if arm.trainer == "tensorflow" and find_spec("tf_keras") is None and (line := _uses_keras(module.tree)):
        raise InputError(
            f"arms.{name}.trainer: {module.file.name}, line {line} uses Keras, and Ray's TensorflowTrainer selects "
            "Keras 2, whose package tf_keras is not installed; write trainer: keras for Keras 3"
        )
    return notes


def _check_signature(name: str, arm: TrainLoopArm, node: ast.stmt, file: str) -> None:
    if not isinstance(node, _Function):
        return  # imported, made by a call, or a class: only the worker can tell
    where = f"arms.{name}.train_loop: {file}, line {node.lineno}: {node.name}"
    yields = any(isinstance(part, ast.Yield | ast.YieldFrom) for part in _own_body(node))
    if isinstance(node, ast.AsyncFunctionDef) or yields:
        raise InputError(f"{where} does not run when it is called; a training function is a plain function")
    if node.decorator_list:
        return
    positional = [*node.args.posonlyargs, *node.args.args]
    required = positional[: len(positional) - len(node.args.defaults)]
    keywords = [
        argument.arg
        for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        if default is None
    ]
    if len(required) > 1 or keywords:
        given = ", ".join([argument.arg for argument in required] + [f"{keyword}=" for keyword in keywords])
        raise InputError(
            f"{where}({given}) needs more than a config; a training function takes one dictionary or nothing"
        )
    given_config = arm.config or arm.epochs is not None or arm.batch_size is not None
    if not positional and node.args.vararg is None and given_config:
        raise InputError(f"{where}() takes no config; leave out the arm's config, epochs and batch_size")


def _check_datasets(name: str, node: ast.stmt, file: str) -> None:
    if isinstance(node, _Function) and len(node.args.args) - len(node.args.defaults) > 1:
        raise InputError(
            f"arms.{name}.datasets: {file}, line {node.lineno}: {node.name} needs more than a config; it takes one "
            "dictionary or nothing, and returns Ray datasets by name"
        )


def _trains_on_import(module: _Module) -> int | None:
    """The first line that would start Ray or a `fit()` in every process that imports the module."""
    trainers = set()
    for statement in _simple_statements(module.tree.body):
        for node in ast.walk(statement):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=function)):
                    if ast.unparse(function).endswith(("Trainer", "Tuner")):
                        trainers.add(name)
                case ast.Call(func=ast.Attribute(value=ast.Name(id="ray"), attr="init")):
                    return node.lineno
                case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="fit")) if name in trainers:
                    return node.lineno
                case ast.Call(func=ast.Attribute(value=ast.Call(func=function), attr="fit")):
                    if ast.unparse(function).endswith(("Trainer", "Tuner")):
                        return node.lineno
    return None


def _own_body(function: _Function) -> Iterator[ast.AST]:
    """The nodes of a function, but not those of functions in it."""
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, _Function | ast.Lambda | ast.ClassDef):
            todo += ast.iter_child_nodes(node)


def _reached(module: _Module, bound: dict[str, ast.stmt], functions: Iterable[str]) -> Iterator[ast.AST]:
    """All that runs when the module is imported, and all in the functions and classes that are used from there."""
    definitions = {name: node for name, node in bound.items() if isinstance(node, _Function | ast.ClassDef)}
    seen = set(functions) & definitions.keys()
    todo = [*(definitions[name] for name in seen), *_simple_statements(module.tree.body)]
    while todo:
        for node in ast.walk(todo.pop()):
            yield node
            if isinstance(node, ast.Name) and node.id in definitions and node.id not in seen:
                seen.add(node.id)
                todo.append(definitions[node.id])


def _first_generation(tree: ast.Module) -> Iterator[tuple[ast.stmt | ast.expr | ast.keyword, str]]:
    """What is of Ray Train's first generation in a module, and what to write instead."""
    raises = "raises an error in Ray 2.58 and later"
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                modules = [alias.name for alias in node.names]
            case ast.ImportFrom(module=str(module), level=0):
                modules = [f"{module}.{alias.name}" for alias in node.names]
            case ast.Attribute():
                dotted = ast.unparse(node)
                modules = [dotted] if dotted in _REMOVED_MODULES else []
                if dotted in _REMOVED_CALLS:
                    yield node, f"{dotted} is of Ray Train's first generation; {_REMOVED_CALLS[dotted]}"
            case ast.Call(func=function):
                modules, called = [], ast.unparse(function)
                if called.endswith(("Trainer", "ScalingConfig")):
                    for keyword in node.keywords:
                        if keyword.arg in _REMOVED_ARGUMENTS:
                            yield (
                                keyword,
                                f"{called}({keyword.arg}=) {raises}; {_REMOVED_ARGUMENTS[keyword.arg]}",
                            )
                if called.rpartition(".")[2] in _REMOVED_METHODS and "Trainer" in called:
                    yield node, f"{called}() {raises}; a run of the same name resumes"
            case _:
                continue
        removed = [old for module in modules for old in _REMOVED_MODULES if _is_part(module, old)]
        if removed:
            yield node, f"{removed[0]} is of Ray Train's first generation; {_REMOVED_MODULES[removed[0]]}"


def _is_part(module: str, removed: str) -> bool:
    """Whether a module, or a name in it, is of a removed module."""
    return f"{module}.".startswith(f"{removed}.") and not module.startswith(_KEPT_MODULES)


def _uses_keras(tree: ast.Module) -> int | None:
    """The first line that uses Keras, which may be 0."""
    for node in ast.walk(tree):
        match node:
            case ast.Import() if any(alias.name.partition(".")[0] == "keras" for alias in node.names):
                return node.lineno
            case ast.ImportFrom(module=str(module)) if module.partition(".")[
                0
            ] == "keras" or module.startswith("tensorflow.keras"):
                return node.lineno
            case ast.ImportFrom(module="tensorflow") if any(alias.name == "keras" for alias in node.names):
                return node.lineno
            case ast.Attribute(value=ast.Name(id="tf" | "tensorflow"), attr="keras"):
                return node.lineno
    return None
