"""Trains the arms that are training functions of the user's own: one Ray Train `fit()` for each run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent import futures
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.execution import driver
from orchestrator.execution.workers import worker_group
from orchestrator.experiment.metric import KNOWN
from orchestrator.experiment.spec import Experiment
from orchestrator.experiment.train_loop import TrainLoopArm
from orchestrator.planning.preflight import Prepared
from orchestrator.planning.run_plan import LoopRun, in_blocks
from orchestrator.store.records import RunRecords
from orchestrator.store.storage import Record, Storage
from trainers.errors import InputError

_WATCH_SECONDS = 0.5
_CPUS_OF_DATASETS = 1
"""What Ray Data needs beside the workers."""
_SHOWN_METRICS = 12
TRAINING_SECONDS = "training_seconds"
"""A metric that every run of a training function has, whatever it reports."""


def execute(prepared: Prepared, driver_session: str, *, module_path: Path, watch: Callable[[], None]) -> None:
    """Train every open run of the user's functions on the Ray cluster that this process is connected to.

    Args:
        prepared: from `preflight.prepare`.
        driver_session: from `driver.begin`.
        module_path: directory that the user's modules are imported from.
        watch: called about twice a second while runs train, to show progress.

    Raises:
        InputError: the cluster is too small.
        StorageError: the storage failed.
        ClusterError: a process of Ray's was lost.
    """
    waiting = open_runs(prepared, driver_session)
    if not waiting:
        return
    uses_datasets = any(run.loop.datasets for run in waiting)
    at_once = driver.cluster_capacity(
        prepared.experiment.scale, spare_cpus=_CPUS_OF_DATASETS if uses_datasets else 0
    )
    if prepared.experiment.measure_speed:
        at_once, waiting = 1, in_blocks(waiting)
    training_now: dict[futures.Future[Exception | None], LoopRun] = {}
    while waiting or training_now:
        while waiting and len(training_now) < at_once:
            run = waiting.pop(0)
            training_now[_launch(prepared, run, driver_session, module_path)] = run
        ended, _ = futures.wait(training_now, timeout=_WATCH_SECONDS, return_when=futures.FIRST_COMPLETED)
        for future in ended:
            run = training_now.pop(future)
            records = prepared.records.run(run.id)
            error = worker_group.outcome(future)
            if error is not None:
                failure = worker_group.diagnose(error)
                driver.add_failure(prepared.experiment, records, failure, driver_session)
                if records.is_open(driver_session):
                    waiting.insert(0, run)
                continue
            mistake = _finish(prepared.experiment, run, records)
            if mistake is not None:
                _fail(records, mistake, driver_session)
                for other in [other for other in waiting if other.arm == run.arm]:
                    waiting.remove(other)
                    _fail(
                        prepared.records.run(other.id),
                        f"not trained, since {run.arm} seed {run.seed} showed a mistake: {mistake}",
                        driver_session,
                    )
        watch()


def open_runs(prepared: Prepared, driver_session: str) -> list[LoopRun]:
    """The runs of the user's functions that still have something to train."""
    return [run for run in prepared.loop_runs if prepared.records.run(run.id).is_open(driver_session)]


def _launch(
    prepared: Prepared, run: LoopRun, driver_session: str, module_path: Path
) -> futures.Future[Exception | None]:
    from orchestrator.execution.workers.report_recorder import AttemptRecorder, ReportRecorder
    from trainers.ray_train import launch, train_loop

    scale, url, launched_at = prepared.experiment.scale, prepared.records.storage.url, time.time()
    attempt = AttemptRecorder(url, run.id, driver_session, launched_at)
    loop = train_loop.TrainLoop(
        name=run.id,
        storage_url=Storage(url).at("runs").url,
        function=prepared.functions.get(run.arm, run.loop.train_loop),
        config=run.loop.loop_config(run.seed),
        seed=run.seed,
        trainer=run.loop.trainer,
        datasets=run.loop.datasets,
        module_path=str(module_path),
        workers=scale.workers if isinstance(scale.workers, int) else (scale.workers.min, scale.workers.max),
        resources=scale.resources_per_worker,
        accelerator_type=scale.accelerator_type,
        label_selector=scale.label_selector,
        checkpoints=checkpoint_config(prepared.experiment, run.loop),
        hang_seconds=scale.hang_seconds,
        callback=ReportRecorder(url, run.id, launched_at=launched_at),
        on_start=attempt.start,
        on_end=attempt.end,
    )
    return launch.call_fit(partial(train_loop.fit, loop))


def checkpoint_config(experiment: Experiment, arm: TrainLoopArm) -> dict[str, Any]:
    """The arguments of Ray Train's `CheckpointConfig`."""
    kept, compared = arm.checkpoint, experiment.metric
    goal = kept.goal
    if goal is None and compared is not None and compared.name == kept.metric:
        goal = compared.goal
    if goal is None and kept.metric in KNOWN:
        goal, _ = KNOWN[kept.metric]
    return {
        "num_to_keep": kept.keep,
        "checkpoint_score_attribute": kept.metric,
        "checkpoint_score_order": "min" if goal == "minimize" else "max",
    }


def _finish(experiment: Experiment, run: LoopRun, records: RunRecords) -> str | None:
    """Write the result of a run whose function returned, or say what is wrong with its reports."""
    reports, attempts = records.reports(), records.attempts()
    predictions, note = _predictions(records, reports)
    compared = experiment.metric
    is_reported = compared is not None and any(compared.name in report["metrics"] for report in reports)
    # A metric that is not reported may be computed from predictions.
    if compared is not None and (is_reported or predictions is None):
        mistake = _find_mistake(run, reports, compared.name)
        if mistake is not None:
            return mistake if note is None else f"{mistake}; {note}"
    training_seconds = _training_seconds(reports, attempts, records.returned_at())
    last: Record = {TRAINING_SECONDS: training_seconds}
    for report in reports:
        last |= report["metrics"]
    records.finish_loop(
        {
            "metrics": last,
            "reports": len(reports),
            "training_seconds": training_seconds,
            "startup_seconds": sum(attempts[0]["startup"].values()),
            "workers": attempts[-1]["workers"],
            "trainer": run.loop.trainer,
            "note": note,
            "finished_at": time.time(),
        },
        predictions,
    )
    return None


def _find_mistake(run: LoopRun, reports: Sequence[Record], metric: str) -> str | None:
    """What is wrong with the reports of a function that returned; None where they hold the metric."""
    function = run.loop.train_loop
    if metric == TRAINING_SECONDS:
        return None
    if not reports:
        return (
            f"{function} returned without a call of ray.train.report, so there is no {metric} to compare; without "
            f"reports, {TRAINING_SECONDS} is the only metric"
        )
    holding = [report for report in reports if metric in report["metrics"]]
    if not holding:
        others = {name for report in reports for name in report["other_ranks"]}
        if metric in others:
            return (
                f"{function} reported {metric} on other workers than rank 0, and only the reports of rank 0 count; "
                "report it on all workers"
            )
        names = list(dict.fromkeys(name for report in reports for name in report["metrics"]))
        shown = ", ".join(names[:_SHOWN_METRICS]) or "no numbers"
        return f"{function} never reported the metric {metric}; it reported {shown}"
    last = holding[-1]
    if last["metrics"][metric] is None:
        return f"{function} reported {metric} as {last['not_finite'][metric]} in its last report, which is no number"
    return None


def _training_seconds(
    reports: Sequence[Record], attempts: Sequence[Record], returned_at: float | None
) -> float:
    """From the call of the function to its return, or to the last report of an attempt that was lost, in all."""
    ends: dict[int, float] = {}
    for report in reports:
        ends[report["attempt"]] = max(report["reported_at"], ends.get(report["attempt"], 0.0))
    if returned_at is not None:
        ends[len(attempts)] = returned_at
    return float(sum(end - attempts[number - 1]["started_at"] for number, end in ends.items()))


def _predictions(
    records: RunRecords, reports: Sequence[Record]
) -> tuple[dict[str, np.ndarray] | None, str | None]:
    """What the function left in its last checkpoint, or why that cannot be used."""
    checkpoint = next((report["checkpoint"] for report in reversed(reports) if report["checkpoint"]), None)
    if checkpoint is None:
        return None, None
    try:
        arrays = records.handed_over(checkpoint)
    except InputError as error:
        return None, str(error)
    if arrays is not None and not arrays.keys() >= {"predictions", "labels"}:
        return None, f"{checkpoint}/predictions.npz needs the arrays predictions and labels"
    return arrays, None


def _fail(records: RunRecords, cause: str, driver_session: str) -> None:
    records.add_failure(
        {
            "driver_session": driver_session,
            "failed_at": time.time(),
            "cause": cause,
            "detail": "",
            "permanent": True,
        }
    )
