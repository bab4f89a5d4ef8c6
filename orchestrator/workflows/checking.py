"""What is known of an experiment before it is trained: its runs, its data and its expected time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from orchestrator.analysis import wording
from orchestrator.analysis.statistics import prediction_metrics
from orchestrator.execution import model_checks
from orchestrator.execution.monitoring import environment
from orchestrator.experiment.spec import Experiment
from orchestrator.planning import crossings, estimate, preflight
from orchestrator.store.storage import Record, Storage
from orchestrator.workflows.resources import local_capacity
from trainers.data import Dataset
from trainers.data.labelled import IN_WORDS, in_words
from trainers.errors import InputError

_MOST_CLASSES = 20
"""Classes that `check` prints each."""


def check_here(experiment: Experiment, module_path: Path) -> Iterator[str]:
    """As `check`, of what this machine has room for.

    Raises:
        InputError: something that would make the runs fail on any machine, or this machine is too small.
    """
    yield from check(experiment, fit=local_capacity(experiment.scale), module_path=module_path)
    if missing := environment.missing_frameworks(environment.frameworks_of(experiment)):
        names = " and ".join(environment.FRAMEWORK_NAMES[name] for name in missing)
        yield f"note: to train here, install {names}: {environment.install_command(missing)}"


def summary(experiment: Experiment, *, fit: int, module_path: Path) -> Record:
    """What is known of an experiment before it is trained: its runs, its data, and its time if earlier runs tell.

    Args:
        experiment: as it was read.
        fit: how many runs fit at once.
        module_path: directory that users' own modules are imported from.

    Raises:
        InputError: something would make the runs fail.
    """
    check_metrics(experiment)
    experiment, _ = with_crossings(experiment, searches=False)
    prepared = preflight.prepare(experiment, preflight.open_records(experiment), module_path=module_path)
    data = prepared.dataset
    expected = estimate.from_records(
        experiment,
        Storage(experiment.storage),
        train_images=0 if data is None else len(data.train_labels),
        image_shape=() if data is None else data.image_shape,
        fit=fit,
    )
    sweep = experiment.sweep
    models = model_checks.check(prepared, module_path=module_path)
    runs = len(prepared.runs) + len(prepared.loop_runs)
    return {
        "runs": runs,
        "at_once": min(fit, runs),
        "data": None if data is None else _data_summary(data),
        "notes": prepared.notes,
        "own_parts": models.to_json(),
        "sweep": None
        if sweep is None
        else {
            name: {
                "parameters": [*sweep.space_of(name)],
                "budget": sweep.budget_of(name).model_dump(exclude_none=True),
            }
            for name in experiment.arms
        },
        "time": None if expected is None else dataclasses.asdict(expected),
    }


def _data_summary(data: Dataset) -> Record:
    labels = {"train": data.train_labels, "validation": data.validation_labels, "test": data.test_labels}
    counts = {
        split: np.bincount(of_split, minlength=len(data.class_names)).tolist()
        for split, of_split in labels.items()
    }
    return {
        "image_shape": [*data.image_shape],
        "images": {split: len(of_split) for split, of_split in labels.items()},
        "classes": [
            {"name": name} | {split: counts[split][place] for split in labels}
            for place, name in enumerate(data.class_names)
        ],
        "groups": data.groups,
        "notes": data.warnings,
    }


def check(
    experiment: Experiment, *, fit: int, module_path: Path = preflight.WORKING_DIRECTORY
) -> Iterator[str]:
    """The same line by line.

    Args:
        experiment: as it was read.
        fit: runs that there is room for at once.
        module_path: directory that users' own modules are imported from.

    Raises:
        InputError: something that would make the runs fail.
    """
    known = summary(experiment, fit=fit, module_path=module_path)
    data, expected = known["data"], known["time"]
    runs = f"{known['runs']} runs, {known['at_once']} at a time"
    yield runs if data is None else f"{runs}; {_images(data)}"
    if data is not None:
        yield from _classes(data["classes"])
        if data["groups"] is not None:
            yield f"groups by {experiment.data.group_by!r}: {in_words(data['groups'])}"
    for name, searched in (known["sweep"] or {}).items():
        limits = ", ".join(f"{value:g} {limit}" for limit, value in searched["budget"].items())
        yield f"sweep of {name}: {', '.join(searched['parameters'])}; {limits}"
    for note in [*(data or {"notes": []})["notes"], *known["notes"]]:
        yield f"note: {note}"
    if tried := known["own_parts"]["arms"]:
        yield f"own parts of {', '.join(tried)}: each took a training step and made a prediction"
    for note in (*known["own_parts"]["notes"], *known["own_parts"]["left_out"]):
        yield f"note: {note}"
    if expected is None and experiment.train_loop_arms:
        yield f"time: no earlier run in {experiment.storage} has every arm's training function, config and scale"
        return
    if expected is None:
        yield (
            f"time: no earlier run in {experiment.storage} has every arm's framework, model, batch size and scale; "
            "to measure it, train two epochs: --set arms.*.epochs=2 --set name=calibration"
        )
        return
    error = f"± {expected['relative_error']:.0%}"
    if expected["search_seconds"] is not None:
        yield (
            f"time of the search: at most {wording.duration(expected['search_seconds'])} {error}"
            f"{_money(expected['search_cost'])}, if no trial takes longer than its arm's own recipe"
        )
    what = "time after the search" if experiment.sweep else "time"
    about = "at most" if any(arm.early_stopping for arm in experiment.recipe_arms.values()) else "about"
    yield (
        f"{what}: {about} {wording.duration(expected['seconds'])} {error}{_money(expected['cost'])}, "
        f"from {expected['runs_seen']} earlier runs"
    )


def _images(data: Record) -> str:
    height, width, channels = data["image_shape"]
    images = data["images"]
    return (
        f"{images['train']} training, {images['validation']} validation and {images['test']} test images of "
        f"{width}x{height}x{channels} in {len(data['classes'])} classes"
    )


def _classes(classes: list[Record]) -> Iterator[str]:
    """Each class with its images in each split; of many classes the first, the last, the largest and the smallest."""
    shown = {entry["name"]: entry for entry in classes}
    if len(classes) > _MOST_CLASSES:
        by_size = sorted(classes, key=lambda entry: int(entry["train"]))
        shown = {
            f"{which}: {entry['name']}": entry
            for which, entry in (
                ("first", classes[0]),
                ("last", classes[-1]),
                ("largest", by_size[-1]),
                ("smallest", by_size[0]),
            )
        }
    wide = max(map(len, shown))
    for name, entry in shown.items():
        yield f"  {name:{wide}}  {in_words({split: entry[split] for split in IN_WORDS})}"


def _money(cost: float | None) -> str:
    return "" if cost is None else f", cost {cost:.2f}"


def check_metrics(experiment: Experiment) -> None:
    """Refuse a metric that built-in arms will not have. What training functions report is known only when they run.

    Raises:
        InputError: names the metric, and those that there are.
    """
    if experiment.recipe_arms:
        compared = [] if experiment.metric is None else [experiment.metric.name]
        shown = [] if experiment.train_loop_arms else [metric.name for metric in experiment.metrics]
        prediction_metrics.require([*compared, *shown])


def with_crossings(experiment: Experiment, *, searches: bool) -> tuple[Experiment, Record | None]:
    """The experiment with the arms that an attribution needs, and the plan that they come from."""
    if experiment.attribution is None:
        return experiment, None
    if searches:
        raise InputError(
            "attribution: a sweep changes the arms; run the sweep first, then attribute the gap between the winners"
        )
    crossed, plan = crossings.expand(experiment, most_recipes=experiment.attribution.most_recipes)
    return crossed, {"plan": plan.to_json(), "experiment": experiment.model_dump(mode="json")}
