"""What a job does, from the check of an experiment to its report. For the command line, a job's driver and Python."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from orchestrator.analysis import compare, prediction_metrics, results
from orchestrator.execution import driver, environment, lease, model_checks, train_loops
from orchestrator.execution.driver import Prepared
from orchestrator.execution.progress import Progress, waiting
from orchestrator.execution.prometheus import Metrics
from orchestrator.execution.ray_runtime import local_ray
from orchestrator.experiment.spec import Experiment, Scale
from orchestrator.planning import crossings, estimate
from orchestrator.planning.job import JobSpec, Outcome
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Record, Storage
from orchestrator.sweep import sweep
from orchestrator.sweep.progress import SweepProgress
from trainers.data import Dataset
from trainers.data.labelled import IN_WORDS, in_words
from trainers.errors import InputError

_IMAGES_KEPT = 48
"""Test images of a kind that are kept for the report: disputed ones, and ones that all arms classify wrongly."""
_MOST_CLASSES = 20
"""Classes that `check` prints each."""

if TYPE_CHECKING:
    from orchestrator.analysis.compare import Comparison

Connect = Callable[[], AbstractContextManager[None]]
"""Starts Ray on this machine, or joins the cluster that this process runs on."""


def run(
    spec: JobSpec,
    records: ExperimentRecords,
    module_path: Path,
    console: Console,
    *,
    connect: Connect = local_ray,
) -> Outcome:
    """Train and report, or measure the arms, as a job specifies.

    Args:
        spec: the job.
        records: of its experiment.
        module_path: directory that users' own modules are imported from.
        console: where progress is shown.
        connect: starts or joins Ray.
    """
    if spec.scaling:
        from orchestrator.analysis import scaling

        scales = measure_scaling(
            spec.experiment, records, module_path, console, workers=spec.scaling, connect=connect
        )
        lines = scaling.sentences(scales, results=records.storage.url)
        return Outcome(exit_code=0, lines=tuple(lines), results=json.dumps(scales, indent=1))
    if spec.profiles_gpu:
        from orchestrator.analysis import gpu_profile

        profile = profile_gpu(spec.experiment, records, module_path, console, connect=connect)
        lines = gpu_profile.sentences(profile)
        return Outcome(exit_code=0, lines=tuple(lines), results=json.dumps(profile, indent=1))
    comparison = train(
        spec.experiment,
        records,
        module_path,
        console,
        searches=spec.searches,
        command=spec.command,
        connect=connect,
    )
    return Outcome(
        exit_code=1 if comparison.failed_runs else 0,
        lines=(comparison.conclusion, f"report: {records.storage.url}/report/report.html"),
        results=json.dumps(results.document(comparison), indent=1),
    )


def local_capacity(scale: Scale) -> int:
    """How many runs fit on this machine at once.

    Raises:
        InputError: not even one fits; says what would.
    """
    return driver.check_capacity(scale, cpus=environment.available_cpus(), gpus=len(environment.gpus()))


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
    _check_metrics(experiment)
    experiment, _ = _crossed(experiment, searches=False)
    prepared = driver.prepare(experiment, driver.open_records(experiment), module_path=module_path)
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


def check(experiment: Experiment, *, fit: int, module_path: Path = driver.WORKING_DIRECTORY) -> Iterator[str]:
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
            f"time of the search: at most {_duration(expected['search_seconds'])} {error}"
            f"{_money(expected['search_cost'])}, if no trial takes longer than its arm's own recipe"
        )
    what = "time after the search" if experiment.sweep else "time"
    about = "at most" if any(arm.early_stopping for arm in experiment.recipe_arms.values()) else "about"
    yield (
        f"{what}: {about} {_duration(expected['seconds'])} {error}{_money(expected['cost'])}, "
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


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def train(
    experiment: Experiment,
    records: ExperimentRecords,
    module_path: Path,
    console: Console,
    *,
    searches: bool,
    command: list[str],
    connect: Connect = local_ray,
    functions: Mapping[str, Callable[..., None]] | None = None,
) -> Comparison:
    """Train the open runs of an experiment, after a search of its arms if it has one, and write the report.

    Args:
        experiment: as it was read.
        records: of the experiment.
        module_path: directory that users' own modules are imported from.
        console: where progress is shown.
        searches: whether the arms are searched first.
        command: the words after `tandem` on the command line, for the records.
        connect: starts or joins Ray.
        functions: as for `driver.prepare`.
    """
    if connect is local_ray:
        environment.require_frameworks(environment.frameworks_of(experiment))
        local_capacity(experiment.scale)
    _check_metrics(experiment)
    crossed, origin = _crossed(experiment, searches=searches)
    with waiting(console, "reading the data"):
        prepared = driver.prepare(crossed, records, module_path=module_path, functions=functions)
        prepared = dataclasses.replace(prepared, attribution=origin)
    for warning in [*(prepared.dataset.warnings if prepared.dataset else []), *prepared.notes]:
        console.print(f"note: {warning}", soft_wrap=True)
    with waiting(console, "trying own models"):
        models = model_checks.check_once(prepared, module_path=module_path)
    for note in (*models.notes, *models.left_out):
        console.print(f"note: {note}", soft_wrap=True)
    with _lease(records, console):
        _train_prepared(prepared, module_path, console, searches=searches, command=command, connect=connect)
    from orchestrator import report  # loads the plotting libraries, which training does not need

    with waiting(console, "writing the report"):
        return report.write(records)


def measure_scaling(
    experiment: Experiment,
    records: ExperimentRecords,
    module_path: Path,
    console: Console,
    *,
    workers: Sequence[int],
    connect: Connect = local_ray,
) -> Record:
    """Measure an experiment's arms on each number of workers, and record the efficiency and a prediction.

    Args:
        experiment: as it was read.
        records: of the experiment; earlier measurements in them are reused.
        module_path: directory that users' own modules are imported from.
        console: where progress is shown.
        workers: numbers of workers, ascending.
        connect: starts or joins Ray.

    Returns:
        As `scaling.summary`.
    """
    from orchestrator.analysis import scaling
    from orchestrator.report.figures import performance, static

    plan = scaling.variants(experiment, workers)
    largest = experiment.scale.model_copy(update={"workers": workers[-1]})
    if connect is local_ray:
        environment.require_frameworks(environment.frameworks_of(experiment))
        local_capacity(largest)
    with _lease(records, console):
        with connect():
            driver.await_capacity(largest, seconds=_capacity_seconds(experiment))
            points = scaling.measure(plan, module_path=module_path, tell=console.print)
        scales = scaling.summary(points, predict=[workers[-1] * 2**power for power in range(4)])
        storage = records.storage.at("scaling")
        storage.write_json("scaling.json", scales)
        storage.write("scaling.svg", static.save(static.draw(performance.scaling(scales)), "svg"))
    return scales


def profile_gpu(
    experiment: Experiment,
    records: ExperimentRecords,
    module_path: Path,
    console: Console,
    *,
    connect: Connect = local_ray,
) -> Record:
    """Measure an experiment's arms on one GPU, as they are written and with one change at a time.

    Args:
        experiment: as it was read.
        records: of the experiment; earlier measurements in them are reused.
        module_path: directory that users' own modules are imported from.
        console: where progress is shown.
        connect: starts or joins Ray.

    Returns:
        As `gpu_profile.summary`.
    """
    from orchestrator.analysis import gpu_profile

    plan = gpu_profile.variants(experiment)
    alone = plan[0].experiment.scale
    if connect is local_ray:
        environment.require_frameworks(environment.frameworks_of(experiment))
        local_capacity(alone)
    with _lease(records, console):
        with connect():
            driver.await_capacity(alone, seconds=_capacity_seconds(experiment))
            profile = gpu_profile.summary(
                gpu_profile.measure(plan, module_path=module_path, tell=console.print)
            )
        records.storage.at("gpu").write_json("gpu.json", profile)
    return profile


def _lease(records: ExperimentRecords, console: Console) -> AbstractContextManager[None]:
    """Hold the experiment's lease. If another driver takes it, this process stops as on Ctrl-C."""

    def stop() -> None:
        console.print("another driver has taken the experiment's lease; this one stops")
        os.kill(os.getpid(), signal.SIGTERM)

    return lease.held(records.storage, on_loss=stop)


def _check_metrics(experiment: Experiment) -> None:
    """Refuse a metric that built-in arms will not have. What training functions report is known only when they run.

    Raises:
        InputError: names the metric, and those that there are.
    """
    if experiment.recipe_arms:
        compared = [] if experiment.metric is None else [experiment.metric.name]
        shown = [] if experiment.train_loop_arms else [metric.name for metric in experiment.metrics]
        prediction_metrics.require([*compared, *shown])


def _crossed(experiment: Experiment, *, searches: bool) -> tuple[Experiment, Record | None]:
    """The experiment with the arms that an attribution needs, and the plan that they come from."""
    if experiment.attribution is None:
        return experiment, None
    if searches:
        raise InputError(
            "attribution: a sweep changes the arms; run the sweep first, then attribute the gap between the winners"
        )
    crossed, plan = crossings.expand(experiment, most_recipes=experiment.attribution.most_recipes)
    return crossed, {"plan": plan.to_json(), "experiment": experiment.model_dump(mode="json")}


def _train_prepared(
    prepared: Prepared,
    module_path: Path,
    console: Console,
    *,
    searches: bool,
    command: list[str],
    connect: Connect,
) -> None:
    experiment = prepared.experiment
    exports = connect is not local_ray
    if searches:
        driver_session = sweep.begin(prepared, module_path=module_path, command=command)
        progress = SweepProgress(prepared, console)
        with _connected(experiment, console, connect):
            with progress.shown():
                won = sweep.search(prepared, driver_session, module_path=module_path, watch=progress.refresh)
            _train(won, driver_session, module_path, console, exports=exports)
        return
    driver_session = driver.begin(prepared, module_path=module_path, command=command)
    if driver.open_runs(prepared, driver_session) or train_loops.open_runs(prepared, driver_session):
        with _connected(experiment, console, connect):
            _train(prepared, driver_session, module_path, console, exports=exports)


@contextlib.contextmanager
def _connected(experiment: Experiment, console: Console, connect: Connect) -> Iterator[None]:
    """Ray, with room for a run."""
    with contextlib.ExitStack() as stack:
        with waiting(console, "starting Ray and waiting for workers"):
            prints = bool(experiment.train_loop_arms)
            stack.enter_context(local_ray(prints=prints) if connect is local_ray else connect())
            driver.await_capacity(experiment.scale, seconds=_capacity_seconds(experiment))
        yield
        with waiting(console, "stopping Ray"):
            stack.close()


def _capacity_seconds(experiment: Experiment) -> float:
    """How long to wait for workers, which an autoscaler may still be starting."""
    return 0 if experiment.kubernetes is None else experiment.kubernetes.start_seconds


def _train(
    prepared: Prepared, driver_session: str, module_path: Path, console: Console, *, exports: bool
) -> None:
    progress = Progress(prepared, console)
    metrics = Metrics(prepared) if exports else None

    def watch() -> None:
        progress.refresh()
        if metrics is not None:
            metrics.refresh()

    with progress.shown():
        driver.execute(prepared, driver_session, module_path=module_path, watch=watch)
        train_loops.execute(prepared, driver_session, module_path=module_path, watch=watch)
    if prepared.dataset is not None:
        _keep_disagreements(prepared, prepared.dataset)


def _keep_disagreements(prepared: Prepared, dataset: Dataset) -> None:
    """Put test images that arms classify differently, or that all classify wrongly, into the records."""
    if prepared.experiment.data.has_many_splits:
        return
    if dataset.test_names:
        prepared.records.keep_test_names(dataset.test_names)
    predicted: dict[str, list[np.ndarray]] = {}
    for run in prepared.runs:
        predictions = prepared.records.run(run.id).predictions()
        if predictions is not None:
            predicted.setdefault(run.arm, []).append(predictions["predicted"])
    labels = np.asarray(dataset.test_labels)
    disputed = compare.disagreements(predicted, labels, at_most=_IMAGES_KEPT)
    wrong = compare.jointly_wrong(predicted, labels, at_most=_IMAGES_KEPT)
    indices = np.concatenate([disputed, np.setdiff1d(wrong, disputed)])
    prepared.records.keep_disagreements(
        {
            "indices": indices,
            "labels": labels[indices],
            "images": np.asarray(dataset.test_images[indices]),
            "test_labels": labels,
        }
    )
