"""The experiment file: what it may say, and how it is read.

Reading goes in four steps: YAML with the place of every value kept, `--set` overrides, `defaults`
and `extends` merged into each arm, and pydantic's validation of the result. Every problem found is
reported with the line it came from.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationError, model_validator

from orchestrator.clusters.kubernetes_spec import Kubernetes
from orchestrator.sweep.spec import Sweep
from trainers.contract import FRAMEWORKS
from trainers.data.spec import DataSpec
from trainers.errors import InputError
from trainers.recipes import BUILT_IN_MODELS, NAMED_RECIPES, RECIPE_TAGS, Block, Recipe

NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def _seed_list(value: Any) -> Any:
    """Accept `seeds: 3` for `seeds: [0, 1, 2]`."""
    return list(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value


_SEEDS = BeforeValidator(_seed_list, json_schema_input_type=int | list[int])


class Arm(Recipe):
    """One side of the comparison: a framework and a recipe, trained once for each seed."""

    framework: Literal["keras", "torch"]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], _SEEDS] = Field(
        default_factory=lambda: [0, 1, 2],
        min_length=1,
        description="A list, or a number of seeds counted from 0. Arms that share seeds are paired.",
    )

    @model_validator(mode="after")
    def _known_model(self) -> Arm:
        if ":" not in self.model and self.model not in BUILT_IN_MODELS:
            hint = _nearest(self.model, BUILT_IN_MODELS)
            raise ValueError(
                f"model {self.model!r} is not known{hint}; choose from "
                f"{', '.join(BUILT_IN_MODELS)} or give your own as package.module:function"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds} repeat; each seed is trained once")
        return self

    def recipe(self) -> Recipe:
        """The part of an arm that trainers see."""
        return Recipe.model_validate(self.model_dump(exclude={"framework", "seeds"}))


class Elastic(Block):
    """As many workers as the cluster has room for, between two bounds."""

    min: int = Field(1, gt=0)
    max: int = Field(gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Elastic:
        if self.min > self.max:
            raise ValueError(f"workers min {self.min} exceeds max {self.max}")
        return self


_Workers = Annotated[
    Annotated[int, Field(gt=0), Tag("count")] | Annotated[Elastic, Tag("range")],
    Discriminator(lambda value: "range" if isinstance(value, dict | Elastic) else "count"),
]


class Scale(Block):
    """How many workers share one run, and what each is given."""

    workers: _Workers = Field(1, description="A number, or {min, max} to grow and shrink with the cluster.")
    cpus_per_worker: int = Field(1, gt=0, description="Also the number of intra-op threads.")
    gpus_per_worker: float = Field(0.0, ge=0, description="A share of a GPU, or whole GPUs.")
    concurrent_runs: int | None = Field(
        None, gt=0, description="At most this many runs at once; as many as fit when left out."
    )
    retries: int = Field(2, ge=0, description="Restarts of a run whose workers were lost.")
    hang_seconds: float = Field(
        600, gt=0, description="Workers that do nothing for so long are ended and started again."
    )
    price_per_worker_hour: float | None = Field(None, ge=0, description="What a worker costs, in your money.")

    @property
    def min_workers(self) -> int:
        """The fewest workers that a run trains with."""
        return self.workers if isinstance(self.workers, int) else self.workers.min

    @property
    def max_workers(self) -> int:
        """The most workers that a run trains with."""
        return self.workers if isinstance(self.workers, int) else self.workers.max

    @property
    def price_per_hour(self) -> float | None:
        """What the workers of one run cost an hour, if there is a price."""
        price = self.price_per_worker_hour
        return None if price is None else price * self.max_workers


DEFAULT_MARGIN = 0.01


class Attribution(Block):
    """Take the gap between two arms apart by what they differ in."""

    most_recipes: int = Field(
        16, ge=4, description="Train every crossing of the factors up to this many; sample orders above."
    )


class Experiment(Block):
    """A whole experiment file, every default filled in."""

    name: str = Field(description="Lower-case letters, digits and hyphens; names the results.")
    data: DataSpec = DataSpec()
    arms: dict[str, Arm] = Field(min_length=1)
    scale: Scale = Scale()
    sweep: Sweep | None = Field(None, description="What `tandem sweep` searches.")
    attribution: Attribution | None = Field(None, description="Whether two arms' gap is taken apart.")
    margin: float = Field(
        DEFAULT_MARGIN, gt=0, lt=1, description="Accuracies that differ by less count as the same."
    )
    target_accuracy: float | None = Field(
        None,
        gt=0,
        le=1,
        description="What the time to an accuracy is told for; when left out, the most that every run reached.",
    )
    robustness: bool = Field(
        True, description="Test trained models on noisy, blurred and JPEG-compressed images as well."
    )
    kubernetes: Kubernetes | None = Field(None, description="The cluster that KubeRay makes for it.")
    storage: str = Field(
        "tandem-results", description="Directory or URL (s3://, gs://) that results are kept in."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        if re.match(r"\w+://[^/]*@", self.storage):
            raise ValueError(
                "storage must not hold credentials, which would be kept in records and reports; "
                "give them in the environment or the cloud's own configuration"
            )
        for name in [self.name, *self.arms]:
            if not NAME.fullmatch(name) or len(name) > 40:
                raise ValueError(f"name {name!r} must be at most 40 lower-case letters, digits and hyphens")
        for name, arm in self.arms.items():
            if isinstance(self.scale.workers, int) and arm.batch_size % self.scale.workers:
                raise ValueError(
                    f"arms.{name}.batch_size {arm.batch_size} does not divide over "
                    f"{self.scale.workers} workers; {_divisible(arm.batch_size, self.scale.workers)}"
                    f" do, and so do {_divisors(arm.batch_size)} workers"
                )
        if self.sweep is not None:
            _check_sweep(self, self.sweep)
        return self


def _check_sweep(experiment: Experiment, sweep: Sweep) -> None:
    from orchestrator.sweep import space

    for name in sweep.arms:
        if name not in experiment.arms:
            hint = _nearest(name, experiment.arms)
            raise ValueError(f"sweep.arms.{name}: no arm is called {name!r}{hint}")
    if experiment.data.validation == 0:
        raise ValueError("sweep: trials are judged on the validation split; set data.validation above 0")
    workers = experiment.scale.workers
    for name, arm in experiment.arms.items():
        for recipe in space.check(name, arm.recipe(), sweep):
            if isinstance(workers, int) and recipe.batch_size % workers:
                raise ValueError(
                    f"sweep.space.batch_size: {recipe.batch_size} does not divide over {workers} workers"
                )
        if sweep.budget_of(name).cost is not None and not experiment.scale.price_per_worker_hour:
            raise ValueError("sweep.budget.cost: needs a price; set scale.price_per_worker_hour")


def _divisible(size: int, workers: int) -> str:
    below, above = size // workers * workers, -(-size // workers) * workers
    return f"{below} and {above}" if below else f"{above} and {above + workers}"


def _divisors(size: int) -> str:
    return ", ".join(str(count) for count in range(1, min(size, 64) + 1) if size % count == 0)


def _nearest(given: object, choices: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(given), list(choices), n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""


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
    if not isinstance(root.value, dict):
        raise InputError(f"{path}: an experiment is a mapping with name: and arms:")
    _absolute_paths(root.value, base)
    for override in overrides:
        root = _override(root, override)
    return _validate(_merge_arms(root), path)


def from_json(document: Mapping[str, Any]) -> Experiment:
    """The experiment that `Experiment.model_dump(mode="json")` wrote into the records."""
    return Experiment.model_validate(document)


def json_schema() -> dict[str, Any]:
    """The JSON schema of an experiment file, for editors; arms may be partial and extend another."""
    schema = Experiment.model_json_schema()
    arm = schema["$defs"]["Arm"]
    arm.pop("required", None)
    arm["properties"]["extends"] = {
        "type": "string",
        "description": "Name of the arm whose fields this one starts from.",
    }
    arm["properties"]["recipe"] = {
        "enum": list(NAMED_RECIPES),
        "description": "Named recipe whose fields the arm starts from.",
    }
    schema["properties"]["defaults"] = {
        "$ref": "#/$defs/Arm",
        "description": "Fields that every arm starts from.",
    }
    return schema


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
        return _Node(_scalar(node), place)

    try:
        document = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise InputError(f"{file}{line}: not valid YAML: {problem}") from error
    if document is None:
        raise InputError(f"{file}: the file is empty; an experiment needs name: and arms:")
    return convert(document)


def _scalar(node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    value = loader.construct_object(node)
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d+)?[eE][-+]?\d+", value):
        return float(value)  # YAML 1.1 reads 1e-3 as text
    return value


def _absolute_paths(document: dict[str, _Node], base: Path) -> None:
    if "storage" in document:
        document["storage"] = _absolute(document["storage"], base)
    for block, field in (("data", "path"), ("sweep", "start_from")):
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
    arms = root.value["arms"].value if "arms" in root.value else {}
    if path[0] not in {*Experiment.model_fields, "defaults"}:
        if path[0] not in arms:
            hint = _nearest(path[0], [*arms, *Experiment.model_fields])
            raise InputError(f"{place}: {path[0]!r} is neither a field nor an arm{hint}")
        path = ["arms", *path]
    if path in (["data", "path"], ["storage"], ["sweep", "start_from"]):
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
        if extends is None:
            base = _merged(_named_recipe(defaults, arm), defaults)
        elif extends.value not in arms.value:
            hint = _nearest(extends.value, arms.value)
            raise InputError(
                f"{extends.place}: arms.{name}.extends: no arm is called {extends.value!r}{hint}"
            )
        elif extends.value in (*below, name):
            raise InputError(f"{extends.place}: arms.{name}.extends: goes round in a circle")
        else:
            base = resolve(extends.value, (*below, name))
        framework = arm if "framework" in own else base
        return _merged(_merged(base, _named_recipe(arm, framework)), _Node(own, arm.place))

    merged = {name: _without_recipe(resolve(name, ())) for name in arms.value}
    return _Node(document | {"arms": _Node(merged, arms.place)}, root.place)


def _named_recipe(block: _Node, arm: _Node) -> _Node:
    """The fields that a block's `recipe: NAME` stands for, in the framework of the arm."""
    named = block.value.get("recipe")
    if named is None:
        return _Node({}, block.place)
    if named.value not in NAMED_RECIPES:
        hint = _nearest(named.value, NAMED_RECIPES)
        raise InputError(
            f"{named.place}: recipe: {named.value!r} is not one of {', '.join(NAMED_RECIPES)}{hint}"
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


_TAGS = RECIPE_TAGS | {"count", "range", "none", "asha", "hyperband", "median", "pbt"}


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
        hint = _nearest(path[-1], _fields_at(path[:-1]))
        return f"{place}: {field}: unknown field{hint or '; remove it'}"
    if kind == "missing":
        return f"{place}: {field}: missing; {_expected(path)}"
    if kind in ("union_tag_invalid", "literal_error"):
        choices = re.findall(r"'([^']*)'", problem["ctx"].get("expected_tags") or problem["ctx"]["expected"])
        value = given.get("name") if isinstance(given, dict) else given
        hint = _nearest(value, choices)
        return f"{place}: {field}: {value!r} is not one of {', '.join(choices)}{hint}"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{place}: {field}: {given!r} is wrong; {message.replace('input ', 'it ')}"


def _expected(path: list[Any]) -> str:
    if path[-1:] == ["framework"]:
        return f"write framework: {' or framework: '.join(FRAMEWORKS)}"
    if path == ["arms"]:
        return "list at least one arm, such as arms: {keras: {framework: keras}}"
    return f"write {path[-1]}: and a value" if path else "it is needed"


def _fields_at(path: list[Any]) -> list[str]:
    """The fields that a block of the file may have."""
    schema = json_schema()
    node: dict[str, Any] = schema
    for step in path:
        entries = node.get("properties", {})
        node = entries.get(step) or node.get("additionalProperties") or {}
        while "$ref" in node or "discriminator" in node or "anyOf" in node:
            if "$ref" in node:
                node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
            else:
                options = node.get("oneOf") or node["anyOf"]
                names: dict[str, Any] = {}
                for option in options:
                    reference = option.get("$ref", "").rsplit("/", 1)[-1]
                    names |= schema["$defs"].get(reference, {}).get("properties", {})
                node = {"properties": names}
    return list(node.get("properties", {}))
