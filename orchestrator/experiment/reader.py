"""From an experiment file to an experiment, every problem found told with the line it came from.

Reading goes in four steps: YAML with the place of every value kept, `--set` overrides, `defaults`
and `extends` merged into each arm, and pydantic's validation of the result.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from orchestrator.experiment import old_fields, suggestions
from orchestrator.experiment.spec import OWN_ARM, TAGS, Experiment, nearest
from orchestrator.experiment.train_loop import TrainLoopArm
from trainers.contract import FRAMEWORKS
from trainers.errors import InputError
from trainers.named_recipes import NAMED_RECIPES
from trainers.ray_train.ray_trainers import trainer_names

_PATHS = (("data", "path"), ("data", "images"), ("sweep", "start_from"))
"""Fields of blocks that hold a path."""


@dataclasses.dataclass(frozen=True)
class _Node:
    """A value and where it was written; mappings and lists hold nodes."""

    value: Any
    place: str

    def plain(self) -> Any:
        """The value without its places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def place_of(self, path: Iterable[int | str]) -> str:
        """Where the deepest part of a path that exists was written."""
        node = self
        for step in path:
            children = dict(enumerate(node.value)) if isinstance(node.value, list) else node.value
            if isinstance(children, dict) and step in children:
                node = children[step]
        return node.place


def load(path: Path, overrides: Iterable[str] = ()) -> Experiment:
    """Read an experiment file and apply `field.path=value` overrides.

    Paths written in the file are relative to the file; paths in overrides, and the default
    storage, are relative to the working directory.

    Raises:
        InputError: every problem found, one sentence each.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"experiment file {path}: {reason}") from error
    return _read(_parse(text, str(path)), str(path), path.resolve().parent, overrides)


def load_mapping(document: Mapping[str, Any], overrides: Iterable[str] = ()) -> Experiment:
    """The experiment that a mapping holds, written as a file would be; paths are relative to here.

    Raises:
        InputError: every problem found, one sentence each.
    """
    text = yaml.safe_dump(dict(document), sort_keys=False)
    return _read(_parse(text, "experiment"), "experiment", Path.cwd(), overrides)


def _read(root: _Node, path: str, base: Path, overrides: Iterable[str]) -> Experiment:
    if root.value is None:
        raise InputError(f"{path}: the file is empty; an experiment needs name: and arms:")
    if not isinstance(root.value, dict):
        raise InputError(f"{path}: an experiment is a mapping with name: and arms:")
    _absolute_paths(root.value, base)
    for override in overrides:
        root = _override(root, override)
    if renamed := list(_renamed_fields(root, ())):
        raise InputError("\n".join(renamed))
    return _validate(_merge_arms(root), path)


def _renamed_fields(node: _Node, path: tuple[str, ...]) -> Iterator[str]:
    """A sentence for each field that has a new name."""
    blocks = dict(enumerate(node.value)) if isinstance(node.value, list) else node.value
    if not isinstance(blocks, dict):
        return
    for step, below in blocks.items():
        field = (*path, str(step))
        now = old_fields.new_name(field)
        if now is None:
            yield from _renamed_fields(below, field)
        else:
            yield f"{below.place}: {'.'.join(field)} is now {now}"


def _parse(text: str, file: str) -> _Node:
    def convert(node: yaml.Node) -> _Node:
        place = f"{file}:{node.start_mark.line + 1}"
        if isinstance(node, yaml.MappingNode):
            entries: dict[str, _Node] = {}
            for key_node, value_node in node.value:
                key = str(key_node.value)
                if key in entries:
                    line = key_node.start_mark.line + 1
                    raise InputError(f"{file}:{line}: {key}: written twice; keep one of the two")
                entries[key] = dataclasses.replace(
                    convert(value_node), place=f"{file}:{key_node.start_mark.line + 1}"
                )
            return _Node(entries, place)
        if isinstance(node, yaml.SequenceNode):
            return _Node([convert(item) for item in node.value], place)
        try:
            return _Node(_scalar(node), place)
        except (yaml.YAMLError, ValueError, AttributeError) as error:  # of a tag or a date
            raise InputError(f"{place}: invalid YAML value {node.value!r}; quote it if it is text") from error

    try:
        document = yaml.compose(text, Loader=yaml.SafeLoader)
        return _Node(None, file) if document is None else convert(document)
    except RecursionError as error:
        raise InputError(f"{file}: an alias refers to itself, or too much is nested") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise InputError(f"{file}{line}: not valid YAML: {problem}") from error


def _scalar(node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    value = loader.construct_object(node)
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d+)?[eE][-+]?\d+", value):
        return float(value)  # YAML 1.1 reads 1e-3 as text
    return value


def _absolute_paths(document: dict[str, _Node], base: Path) -> None:
    if "storage" in document:
        document["storage"] = _absolute(document["storage"], base)
    for block, field in _PATHS:
        node = document.get(block)
        if node is not None and isinstance(node.value, dict) and field in node.value:
            node.value[field] = _absolute(node.value[field], base)


def _absolute(node: _Node, base: Path) -> _Node:
    if isinstance(node.value, str) and "://" not in node.value:
        return dataclasses.replace(node, value=str(base / Path(node.value).expanduser()))
    return node


def _override(root: _Node, override: str) -> _Node:
    target, equals, text = override.partition("=")
    path = _field_path(target.strip())
    if not equals or not all(path):
        raise InputError(f"--set {override!r}: write it as field.path=value, such as scale.workers=2")
    value = _parse(text, "--set") if text.strip() else _Node("", "--set")
    place = f"--set {target.strip()}"
    named = root.value.get("arms")
    arms = named.value if named is not None and isinstance(named.value, dict) else {}
    if path[0] not in {*Experiment.model_fields, *old_fields.EXPERIMENT_FIELDS, "defaults"}:
        if path[0] not in arms:
            hint = suggestions.unknown_override(path[0], [*arms])
            raise InputError(f"{place}: {path[0]!r} is neither a field nor an arm{hint}")
        path = ["arms", *path]
    if path == ["storage"] or tuple(path) in _PATHS:
        value = _absolute(value, Path.cwd())
    if path[:2] == ["arms", "*"]:
        for name in arms:
            root = _replaced(root, ["arms", name, *path[2:]], value, place)
        return root
    return _replaced(root, path, value, place)


def _field_path(target: str) -> list[str]:
    """The steps of a dotted path; the name of a sweep's parameter is one step, dots and all."""
    before, space, parameter = target.partition(".space.")
    if target.startswith("sweep.") and space:
        return [*before.split("."), "space", parameter]
    return target.split(".")


def _replaced(node: _Node, path: list[str], value: _Node, place: str) -> _Node:
    if not path:
        return _Node(value.value, place)
    written = _spelled_out(node)
    children = dict(written.value) if isinstance(written.value, dict) else {}
    child = children.get(path[0], _Node({}, place))
    children[path[0]] = _replaced(child, path[1:], value, place)
    return _Node(children, node.place)


def _merge_arms(root: _Node) -> _Node:
    document = dict(root.value)
    defaults = document.pop("defaults", _Node({}, root.place))
    arms = document.get("arms")
    if arms is None or not isinstance(arms.value, dict):
        return _Node(document, root.place)
    if not isinstance(defaults.value, dict):
        raise InputError(f"{defaults.place}: defaults: must be a mapping of fields")

    def resolve(name: str, below: tuple[str, ...]) -> _Node:
        arm = arms.value[name]
        if not isinstance(arm.value, dict):
            raise InputError(f"{arm.place}: arms.{name}: must be a mapping with framework:")
        own = dict(arm.value)
        extends = own.pop("extends", None)
        if extends is None and "train_loop" in own:
            base = _shared_with_train_loops(defaults)
        elif extends is None:
            base = _merged(_named_recipe(defaults, arm), defaults)
        elif not isinstance(extends.value, str) or extends.value not in arms.value:
            hint = nearest(extends.plain(), arms.value)
            raise InputError(
                f"{extends.place}: arms.{name}.extends: no arm is called {extends.plain()!r}{hint}"
            )
        elif extends.value in (*below, name):
            raise InputError(f"{extends.place}: arms.{name}.extends: goes round in a circle")
        else:
            base = resolve(extends.value, (*below, name))
        framework = arm if "framework" in own else base
        return _merged(_merged(base, _named_recipe(arm, framework)), _Node(own, arm.place))

    merged = {name: _without_recipe(resolve(name, ())) for name in arms.value}
    return _Node(document | {"arms": _Node(merged, arms.place)}, root.place)


def _shared_with_train_loops(defaults: _Node) -> _Node:
    """The defaults that an arm with a training function has fields for; the others are of recipes."""
    shared = {key: node for key, node in defaults.value.items() if key in TrainLoopArm.model_fields}
    return _Node(shared, defaults.place)


def _named_recipe(block: _Node, arm: _Node) -> _Node:
    """The fields that a block's `recipe: NAME` stands for, in the framework of the arm."""
    named = block.value.get("recipe")
    if named is None:
        return _Node({}, block.place)
    if not isinstance(named.value, str) or named.value not in NAMED_RECIPES:
        hint = nearest(named.plain(), NAMED_RECIPES)
        raise InputError(
            f"{named.place}: recipe: {named.plain()!r} is not one of {', '.join(NAMED_RECIPES)}{hint}"
        )
    framework = arm.value["framework"].value if "framework" in arm.value else None
    return _nodes(NAMED_RECIPES[named.value].get(str(framework), {}), named.place)


def _nodes(value: Any, place: str) -> _Node:
    if isinstance(value, dict):
        return _Node({key: _nodes(entry, place) for key, entry in value.items()}, place)
    return _Node(value, place)


def _without_recipe(arm: _Node) -> _Node:
    return _Node({key: node for key, node in arm.value.items() if key != "recipe"}, arm.place)


def _spelled_out(node: _Node) -> _Node:
    """`optimizer: adam` as `optimizer: {name: adam}`, so that fields can be added to it."""
    return _Node({"name": node}, node.place) if isinstance(node.value, str) else node


def _merged(base: _Node, over: _Node) -> _Node:
    if isinstance(over.value, dict):
        base = _spelled_out(base)
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    before, after = base.value.get("name"), over.value.get("name")
    if before is not None and after is not None and before.value != after.value:
        return over  # another optimizer or schedule starts from its own defaults
    merged = dict(base.value)
    for key, node in over.value.items():
        merged[key] = _merged(merged[key], node) if key in merged else node
    return _Node(merged, over.place)


def _validate(root: _Node, file: str) -> Experiment:
    try:
        return Experiment.model_validate(root.plain())
    except ValidationError as error:
        problems = [_sentence(root, file, dict(problem)) for problem in error.errors()]
        raise InputError("\n".join(dict.fromkeys(problems))) from error


_TAGS = TAGS | {"count", "range", "none", "asha", "hyperband", "median", "pbt"}


def _sentence(root: _Node, file: str, problem: dict[str, Any]) -> str:
    path = [step for step in problem["loc"] if step not in _TAGS]
    field = ".".join(str(step) for step in path)
    kind, given = problem["type"], problem.get("input")
    if kind == "value_error":
        message = str(problem["ctx"]["error"])
        mentioned = re.match(r"(arms\.[\w.-]+|name|sweep[\w.-]*)[ :]", message)
        place = root.place_of(_field_path(mentioned[1]) if mentioned else path)
        if path and field not in message and not mentioned:
            message = f"{field}: {message}"
        return f"{place}: {message}"
    place = root.place_of(path)
    if kind == "extra_forbidden":
        hint = suggestions.unknown_field(path, is_own=OWN_ARM in problem["loc"])
        return f"{place}: {field}: unknown field{hint}"
    if kind == "missing":
        return f"{place}: {field}: missing; {_expected(path)}"
    if kind in ("union_tag_invalid", "literal_error"):
        choices = re.findall(r"'([^']*)'", problem["ctx"].get("expected_tags") or problem["ctx"]["expected"])
        value = given.get("name") if isinstance(given, dict) else given
        hint = nearest(value, choices)
        return f"{place}: {field}: {value!r} is not one of {', '.join(choices)}{hint}"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{place}: {field}: {given!r} is wrong; {message.replace('input ', 'it ')}"


def _expected(path: list[Any]) -> str:
    if path[-1:] == ["framework"]:
        return f"write framework: {' or framework: '.join(FRAMEWORKS)}"
    if path[-1:] == ["trainer"]:
        return f"write trainer: and one of {', '.join(trainer_names())}"
    if path == ["arms"]:
        return "list at least one arm, such as arms: {keras: {framework: keras}}"
    return f"write {path[-1]}: and a value" if path else "it is needed"
