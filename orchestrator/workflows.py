"""What the commands that train do, for the command line and for Python."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console

from orchestrator import crossings
from orchestrator.execution import driver, environment, lease
from orchestrator.execution.driver import Prepared
from orchestrator.execution.progress import Progress, SweepProgress
from orchestrator.execution.prometheus import Metrics
from orchestrator.execution.ray_runtime import local_ray
from orchestrator.experiment.spec import Experiment, Scale
from orchestrator.planning import estimate
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Record, Storage
from orchestrator.sweep import sweep
from trainers.data.labelled import in_words
from trainers.errors import InputError


def local_capacity(scale: Scale) -> int:
    """How many runs this machine holds at once.

    Raises:
        InputError: not even one; says what would fit.
    """
    return driver.check_capacity(scale, cpus=environment.available_cpus(), gpus=len(environment.gpus()))


def check(experiment: Experiment, *, fit: int) -> Iterator[str]:
    """What is to be done, line by line, with how long it will take if earlier runs tell.

    Args:
        experiment: as it was read.
        fit: runs that there is room for at once.

    Raises:
        InputError: something that would make the runs fail.
    """
    experiment, _ = _crossed(experiment, searches=False)
    prepared = driver.prepare(experiment, driver.open_records(experiment))
    data, at_once = prepared.dataset, min(fit, len(prepared.runs))
    height, width, channels = data.image_shape
    yield (
        f"{len(prepared.runs)} runs, {at_once} at a time; "
        f"{len(data.train_labels)} training, {len(data.validation_labels)} validation and "
        f"{len(data.test_labels)} test images of {width}x{height}x{channels} in "
        f"{len(data.class_names)} classes"
    )
    if data.groups is not None:
        yield f"groups by {experiment.data.group_by!r}: {in_words(data.groups)}"
    if experiment.sweep is not None:
        for name in experiment.arms:
            limits = experiment.sweep.budget_of(name).model_dump(exclude_none=True)
            listed = ", ".join(f"{value:g} {limit}" for limit, value in limits.items())
            yield f"sweep of {name}: {', '.join(experiment.sweep.space_of(name))}; {listed}"
    for warning in data.warnings:
        yield f"note: {warning}"
    expected = estimate.from_records(
        experiment,
        Storage(experiment.storage),
        train_images=len(data.train_labels),
        image_shape=data.image_shape,
        fit=fit,
    )
    if expected is None:
        yield (
            "time: no earlier run of every arm's framework, model, batch size and scale in "
            f"{experiment.storage} to go by; two epochs of it are enough: --set arms.*.epochs=2 --set name=calibration"
        )
        return
    error = f"± {expected.relative_error:.0%}"
    if expected.search_seconds is not None:
        yield (
            f"time of the search: at most {_duration(expected.search_seconds)} {error}{_money(expected.search_cost)}, "
            "if no trial takes longer than its arm's own recipe"
        )
    what = "time after the search" if experiment.sweep else "time"
    about = "at most" if any(arm.early_stopping for arm in experiment.arms.values()) else "about"
    yield (
        f"{what}: {about} {_duration(expected.seconds)} {error}{_money(expected.cost)}, "
        f"by {expected.runs_seen} earlier runs"
    )


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
    connect: Callable[[], AbstractContextManager[None]] = local_ray,
) -> None:
    """Train what is open of an experiment, after searching its arms if they are swept.

    Args:
        experiment: as it was read.
        records: where it is kept.
        module_path: directory that users' own models are imported from.
        console: where progress is shown.
        searches: whether to search the arms first.
        command: the words after `tandem` that led here, for the records.
        connect: starts Ray on this machine, or joins a cluster.
    """
    if connect is local_ray:
        local_capacity(experiment.scale)
    crossed, origin = _crossed(experiment, searches=searches)
    with console.status("reading the data"):
        prepared = dataclasses.replace(driver.prepare(crossed, records), attribution=origin)
    for warning in prepared.dataset.warnings:
        console.print(f"note: {warning}", soft_wrap=True)

    with _alone(records, console):
        _train_prepared(prepared, module_path, console, searches=searches, command=command, connect=connect)


def measure_scaling(
    experiment: Experiment,
    records: ExperimentRecords,
    module_path: Path,
    console: Console,
    *,
    workers: Sequence[int],
    connect: Callable[[], AbstractContextManager[None]] = local_ray,
) -> Record:
    """Measure an experiment's arms on each number of workers, and keep what that says of them and of larger scales.

    Args:
        experiment: as it was read.
        records: where it is kept; what was measured earlier is taken from there.
        module_path: directory that users' own models are imported from.
        console: where progress is shown.
        workers: numbers of workers, ascending.
        connect: starts Ray on this machine, or joins a cluster.

    Returns:
        As `scaling.summary`.
    """
    from orchestrator.analysis import scaling
    from orchestrator.report import figures

    plan = scaling.variants(experiment, workers)
    largest = experiment.scale.model_copy(update={"workers": workers[-1]})
    if connect is local_ray:
        local_capacity(largest)
    with _alone(records, console):
        with connect():
            driver.await_capacity(largest, seconds=_patience(experiment))
            points = scaling.measure(plan, module_path=module_path, tell=console.print)
        scales = scaling.summary(points, predict=[workers[-1] * 2**power for power in range(4)])
        storage = records.storage.at("scaling")
        storage.write_json("scaling.json", scales)
        storage.write("scaling.svg", figures.save(figures.scaling(scales), "svg"))
    return scales


def _alone(records: ExperimentRecords, console: Console) -> AbstractContextManager[None]:
    """Hold the experiment's lease, and stop as at Ctrl-C when another driver takes it."""

    def stop() -> None:
        console.print("another driver has taken the experiment over; this one stops")
        os.kill(os.getpid(), signal.SIGTERM)

    return lease.held(records.storage, on_loss=stop)


def _crossed(experiment: Experiment, *, searches: bool) -> tuple[Experiment, Record | None]:
    """The experiment with the arms that an attribution needs, and where they come from."""
    if experiment.attribution is None:
        return experiment, None
    if searches:
        raise InputError(
            "attribution: a sweep changes the arms; search them first, then take the winners apart"
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
    connect: Callable[[], AbstractContextManager[None]],
) -> None:
    experiment = prepared.experiment
    exports = connect is not local_ray
    if searches:
        driver_session = sweep.begin(prepared, module_path=module_path, command=command)
        progress = SweepProgress(prepared, console)
        with connect():
            driver.await_capacity(experiment.scale, seconds=_patience(experiment))
            with progress.shown():
                won = sweep.search(prepared, driver_session, module_path=module_path, watch=progress.refresh)
            _train(won, driver_session, module_path, console, exports=exports)
        return
    driver_session = driver.begin(prepared, module_path=module_path, command=command)
    if driver.open_runs(prepared, driver_session):
        with connect():
            driver.await_capacity(experiment.scale, seconds=_patience(experiment))
            _train(prepared, driver_session, module_path, console, exports=exports)


def _patience(experiment: Experiment) -> float:
    """How long to wait for workers that an autoscaler may still be making."""
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
