"""Trains an experiment, after a search if it has one, and writes its report."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from orchestrator.analysis import compare, results
from orchestrator.execution import driver, model_checks, train_loops
from orchestrator.execution.monitoring.progress import Progress, waiting
from orchestrator.execution.monitoring.prometheus import Metrics
from orchestrator.execution.ray_runtime import local_ray
from orchestrator.experiment.spec import Experiment
from orchestrator.planning import preflight
from orchestrator.planning.job import JobSpec, Outcome
from orchestrator.planning.preflight import Prepared
from orchestrator.store.records import ExperimentRecords
from orchestrator.sweep import sweep
from orchestrator.sweep.progress import SweepProgress
from trainers.data import Dataset

if TYPE_CHECKING:
    from orchestrator.analysis.compare import Comparison

from orchestrator.workflows.checking import check_metrics, with_crossings
from orchestrator.workflows.resources import Connect, capacity_seconds, check_machine, held_lease

_IMAGES_KEPT = 48
"""Test images of a kind that are kept for the report: disputed ones, and ones that all arms classify wrongly."""


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
        from orchestrator.workflows.scaling import measure_scaling

        scales = measure_scaling(
            spec.experiment, records, module_path, console, workers=spec.scaling, connect=connect
        )
        lines = scaling.sentences(scales, results=records.storage.url)
        return Outcome(exit_code=0, lines=tuple(lines), results=json.dumps(scales, indent=1))
    if spec.profiles_gpu:
        from orchestrator.analysis import gpu_profile
        from orchestrator.workflows.gpu import profile_gpu

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
        functions: as for `preflight.prepare`.
    """
    check_machine(experiment, experiment.scale, connect)
    check_metrics(experiment)
    crossed, origin = with_crossings(experiment, searches=searches)
    with waiting(console, "reading the data"):
        prepared = preflight.prepare(crossed, records, module_path=module_path, functions=functions)
        prepared = dataclasses.replace(prepared, attribution=origin)
    for warning in [*(prepared.dataset.warnings if prepared.dataset else []), *prepared.notes]:
        console.print(f"note: {warning}", soft_wrap=True)
    with waiting(console, "trying own models"):
        models = model_checks.check_once(prepared, module_path=module_path)
    for note in (*models.notes, *models.left_out):
        console.print(f"note: {note}", soft_wrap=True)
    with held_lease(records, console):
        _train_prepared(prepared, module_path, console, searches=searches, command=command, connect=connect)
    from orchestrator import report  # loads the plotting libraries, which training does not need

    with waiting(console, "writing the report"):
        return report.write(records)


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
        with connected(experiment, console, connect):
            with progress.shown():
                won = sweep.search(prepared, driver_session, module_path=module_path, watch=progress.refresh)
            _train(won, driver_session, module_path, console, exports=exports)
        return
    driver_session = driver.begin(prepared, module_path=module_path, command=command)
    if driver.open_runs(prepared, driver_session) or train_loops.open_runs(prepared, driver_session):
        with connected(experiment, console, connect):
            _train(prepared, driver_session, module_path, console, exports=exports)


@contextlib.contextmanager
def connected(experiment: Experiment, console: Console, connect: Connect) -> Iterator[None]:
    """Ray, with room for a run."""
    with contextlib.ExitStack() as stack:
        with waiting(console, "starting Ray and waiting for workers"):
            prints = bool(experiment.train_loop_arms)
            stack.enter_context(local_ray(prints=prints) if connect is local_ray else connect())
            driver.await_capacity(experiment.scale, seconds=capacity_seconds(experiment))
        yield
        with waiting(console, "stopping Ray"):
            stack.close()


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
