"""The experiment file that `tandem init` writes: fields that fit the data or the training function, with comments."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from orchestrator.planning import train_loop_source
from trainers.data import DataSpec, decoding, registry, sources
from trainers.errors import InputError

_SAMPLED = 200
"""Pictures whose sizes are looked at."""
_SMALL = 96
"""Pixels a side up to which pictures keep their size."""
_IMBALANCE = 10
"""Largest class over smallest from which the loss is balanced."""
_WIDTH = 34
"""Characters before comments."""
_TRAINERS = {
    "lightning": "torch",
    "transformers": "torch",
    "accelerate": "torch",
    "torch": "torch",
    "jax": "jax",
    "keras": "keras",
    "tensorflow": "tensorflow",
}
"""How the workers of a training function are connected, by what its module imports; the first that fits."""
_CONFIG = {
    "lr": 0.001,
    "learning_rate": 0.001,
    "epochs": 5,
    "num_epochs": 5,
    "batch_size": 64,
    "weight_decay": 0.0,
}
"""Usual values of keys that a function reads from its config without a default."""


@dataclasses.dataclass(frozen=True)
class _Summary:
    """What the data hold."""

    training_images: int
    sizes: list[tuple[int, int]]
    """Height and width, ascending, of some pictures."""
    has_colour: bool
    is_unbalanced: bool


def for_data(where: str | None, *, directory: Path, frameworks: Sequence[str]) -> str:
    """The experiment file for images.

    Args:
        where: a path, the name of a source, or a function of the user's own; None for handwritten digits.
        directory: of the experiment file, which paths in it are relative to.
        frameworks: of the arms.

    Raises:
        InputError: there are no images, or they cannot be read.
    """
    path = None if where is None else Path(where).expanduser()
    if where is None or path is None:
        spec, line, name = DataSpec(source="digits"), "source: digits", "digits"
    elif path.exists():
        spec, name = DataSpec(path=path), path.resolve().name.partition(".")[0]
        line = f"path: {_quoted(os.path.relpath(path.resolve(), directory.resolve()))}"
    elif where in registry.names() or registry.is_function(where):
        spec, line, name = _named(where), f"source: {_quoted(where)}", where.rpartition(":")[2]
    else:
        raise InputError(
            f"--data {where!r} does not exist; give a folder of pictures, a file, or one of "
            f"{', '.join(registry.names())}"
        )
    return _data_file(name, line, _summary(spec), frameworks)


def _named(source: str) -> DataSpec:
    if not registry.is_function(source) and registry.load(source).locate is None:
        raise InputError(f"--data {source}: this source needs a path; give the path instead")
    return DataSpec(source=source)


def _summary(spec: DataSpec) -> _Summary | None:
    """None for data that would be downloaded."""
    if spec.path is None and spec.source != "digits":
        return None
    kind, path = sources.resolve(spec)
    labelled = sources.read(kind, path, spec)
    train = labelled.train
    places = np.linspace(0, len(train.labels) - 1, min(_SAMPLED, len(train.labels))).astype(int)
    with labelled.scratch or contextlib.nullcontext():
        shapes = decoding.shapes(train.take(places), spec)
    if not shapes:
        raise InputError(f"{spec.path}: none of {len(places)} images can be read; tandem check names them")
    images = (
        len(train.labels)
        * (0.8 if labelled.test is None else 1)
        * (0.9 if labelled.validation is None else 1)
    )
    counts = Counter(train.labels.tolist()).values()
    return _Summary(
        training_images=int(images),
        sizes=sorted({(height, width) for height, width, _ in shapes}),
        has_colour=any(channels == 3 for *_, channels in shapes),
        is_unbalanced=max(counts) > _IMBALANCE * min(counts),
    )


def _data_file(name: str, data: str, summary: _Summary | None, frameworks: Sequence[str]) -> str:
    smallest, has_colour, batch_size = 32, True, 64
    size = _line("  # image_size: 64", "needed if pictures differ in size")
    weights = _line(
        "  # loss: {class_weights: balanced}", "every class counts alike, however few images it has"
    )
    if summary is not None:
        keeps_size = len(summary.sizes) == 1 and max(summary.sizes[0]) <= _SMALL
        smallest = min(summary.sizes[0]) if keeps_size else 64
        has_colour = summary.has_colour
        batch_size = 2 ** int(np.clip(np.log2(max(summary.training_images / 8, 1)), 2, 6))
        low, high = (f"{width}x{height}" for height, width in (summary.sizes[0], summary.sizes[-1]))
        size = _line("  # image_size: 64", f"pixels a side; when left out, the pictures keep their {low}")
        if not keeps_size:
            size = _line(
                "  image_size: 64", f"pixels a side, of {low} to {high}; more show more, and train longer"
            )
        if summary.is_unbalanced:
            weights = _line(
                "  loss: {class_weights: balanced}", "the classes differ much in size; all count alike"
            )
    augmentation = [
        *(["flip: true"] if has_colour else []),
        *([f"crop: {smallest // 8}"] if smallest >= 16 else []),
    ]
    first, *others = frameworks
    sgd = f"{first}-sgd: {{extends: {first}, optimizer: {{name: sgd, learning_rate: 0.05, momentum: 0.9}}}}"
    return _with_header(
        [
            f"name: {_slug(name)}",
            "data:",
            f"  {data}",
            size,
            _line("  # group_by: '/([^/_]+)_'", "hold out together what belongs together: docs/data.md"),
            _line("defaults:", "every arm starts from these"),
            _line(
                f"  model: {'resnet9' if smallest >= 16 else 'tutorial_cnn'}",
                "or yours: package.module:function",
            ),
            "  optimizer: {name: adamw, learning_rate: 0.003}",
            "  schedule: one_cycle",
            *([f"  augmentation: {{{', '.join(augmentation)}}}"] if augmentation else []),
            weights,
            _line(f"  batch_size: {batch_size}", "over all workers"),
            "  epochs: 15",
            _line("  seeds: 3", "a verdict needs at least three"),
            _line("arms:", "what is compared"),
            f"  {first}: {{framework: {first}}}",
            *(
                _line(f"  {other}: {{extends: {first}, framework: {other}}}", "the same recipe")
                for other in others
            ),
            f"  # {sgd}" if others else f"  {sgd}",
            _line("# scale: {workers: 2}", "data-parallel workers that share one run"),
        ]
    )


def for_train_loop(name: str, *, directory: Path) -> str:
    """The experiment file for a training function of the user's own.

    Args:
        name: package.module:function.
        directory: of the experiment file, in which the module is looked for first.

    Raises:
        InputError: there is no such function.
    """
    module, _, function = name.partition(":")
    if not re.fullmatch(registry.FUNCTION, name):
        raise InputError(f"--train-loop {name!r}: write package.module:function")
    file = train_loop_source.file_of(module, directory)
    if file is None or file.suffix != ".py":
        raise InputError(f"--train-loop {name!r}: there is no module {module!r} in {directory} or installed")
    try:
        tree = ast.parse(file.read_text(), str(file))
    except SyntaxError as error:
        raise InputError(f"--train-loop {name!r}: {file}, line {error.lineno}: {error.msg}") from error
    found = next(
        (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == function), None
    )
    if found is None:
        raise InputError(f"--train-loop {name!r}: {file} has no function {function!r}")
    imported = set(_imports(tree))
    trainer = next((trainer for package, trainer in _TRAINERS.items() if package in imported), "none")
    metrics = [*_reported(tree)]
    metric = next(
        (each for each in metrics if "val" in each or "test" in each), metrics[0] if metrics else None
    )
    goal = "minimize" if re.search("loss|err|mse|mae|perplexity", metric or "") else "maximize"
    arm = _slug(module.rpartition(".")[2])
    config = dict(_config_keys(found))
    values = ", ".join(f"{key}: {json.dumps(value)}" for key, value in config.items())
    reported = f"it reports {', '.join(metrics)}" if metrics else "change it to what the function reports"
    return _with_header(
        [
            f"name: {arm}",
            _line("arms:", "what is compared"),
            f"  {arm}:",
            f"    train_loop: {name}",
            _line(
                f"    trainer: {trainer}",
                "how its workers are connected: torch, tensorflow, keras, jax or none",
            ),
            _line(f"    config: {{{values}}}", "passed to the function, with the seed added"),
            _line("    seeds: 3", "a verdict needs at least three"),
            _line(f"  # other: {{extends: {arm}, config: {{}}}}", "the same function with other values"),
            _line(f"metric: {{name: {metric or 'val_accuracy'}, goal: {goal}}}", reported),
            _line("# scale: {workers: 2}", "workers that share one run"),
        ]
    )


def _line(text: str, comment: str) -> str:
    return f"{text:{_WIDTH}}  # {comment}"


def _with_header(lines: Sequence[str]) -> str:
    header = [
        "# tandem check FILE checks this file and trains nothing; tandem run FILE trains and writes the report.",
        "# All fields are in docs/experiment-file.md. tandem schema prints the JSON schema, for editors.",
    ]
    return "\n".join([*header, *lines]) + "\n"


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name.partition(".")[0] for alias in names)
            case ast.ImportFrom(module=str(module)):
                yield module.partition(".")[0]


def _reported(tree: ast.AST) -> Iterator[str]:
    """The metrics in calls of `report({...})`."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Name(id="report") | ast.Attribute(attr="report"), args=[ast.Dict(keys=keys), *_]
            ):
                yield from (
                    key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)
                )


def _config_keys(function: ast.FunctionDef) -> Iterator[tuple[str, object]]:
    """The keys that a function reads from its argument, but for the seed, with their defaults or usual values."""
    if not function.args.args:
        return
    config = function.args.args[0].arg
    for node in ast.walk(function):
        match node:
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str(key))) if name == config:
                if key != "seed":
                    yield key, _CONFIG.get(key)
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=name), attr="get"),
                args=[ast.Constant(value=str(key)), ast.Constant(value=default)],
            ) if name == config and key != "seed":
                yield key, default


def _slug(text: str) -> str:
    """A name that an experiment may have."""
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")[:40].rstrip("-") or "experiment"


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"[\w./-]+", text) and not text.startswith("-") else json.dumps(text)
