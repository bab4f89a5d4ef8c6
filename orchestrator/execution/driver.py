"""From an experiment to records, on the head node: check, plan, train what is open, note failures."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from concurrent import futures
from pathlib import Path

import numpy as np

from orchestrator.execution import lockstep
from orchestrator.execution.assignment import Assignment, Failure
from orchestrator.execution.monitoring import environment
from orchestrator.execution.run_source import PlannedRuns
from orchestrator.execution.workers import worker_group
from orchestrator.experiment.spec import Experiment, Scale
from orchestrator.planning import nodes, parity_plan, run_plan
from orchestrator.planning.parity_plan import Work
from orchestrator.planning.preflight import Prepared, check_capacity
from orchestrator.planning.run_plan import Run, RunQueue
from orchestrator.store.records import RunRecords
from orchestrator.store.storage import Record, StorageError
from trainers.contract import FRAMEWORKS
from trainers.data import Dataset
from trainers.errors import InputError
from trainers.recipes import Recipe

_WATCH_SECONDS = 0.5
_CAPACITY_SECONDS = 2


def begin(prepared: Prepared, *, module_path: Path, command: list[str], sweep: Record | None = None) -> str:
    """Write what the experiment is and that a driver starts; returns the name of this start.

    Args:
        prepared: from `prepare`.
        module_path: directory that users' own models are imported from.
        command: the words after `tandem` that led here, with which a reader can do the same.
        sweep: where the arms' recipes come from, if they were searched for.
    """
    driver_session = uuid.uuid4().hex[:8]
    describe(prepared, module_path=module_path, sweep=sweep)
    prepared.records.add_session(
        {
            "driver_session": driver_session,
            "started_at": time.time(),
            "command": ["tandem", *command],
            "environment": environment.describe(),
        }
    )
    return driver_session


def describe(prepared: Prepared, *, module_path: Path, sweep: Record | None = None) -> None:
    """Write what the experiment is.

    Args:
        prepared: from `prepare`.
        module_path: directory that users' own models are imported from.
        sweep: where the arms' recipes come from, if they were searched for.
    """
    experiment = prepared.experiment
    entries = [
        {"id": run.id, "arm": run.arm, "framework": run.framework, "seed": run.seed} for run in prepared.runs
    ]
    entries += [{"id": run.id, "arm": run.arm, "seed": run.seed} for run in prepared.loop_runs]
    places = {name: place for place, name in enumerate(experiment.arms)}
    prepared.records.begin(
        {
            "experiment": experiment.model_dump(mode="json"),
            "module_path": str(module_path),
            "sweep": sweep,
            "attribution": prepared.attribution,
            "runs": sorted(entries, key=lambda entry: places[str(entry["arm"])]),
            "data": None if prepared.dataset is None else _data_record(prepared.dataset),
        }
    )
    for run in prepared.runs:
        prepared.records.run(run.id).describe(
            {
                "id": run.id,
                "arm": run.arm,
                "framework": run.framework,
                "seed": run.seed,
                "recipe": run.recipe.model_dump(mode="json"),
                "scale": experiment.scale.model_dump(mode="json"),
            }
        )
    for loop_run in prepared.loop_runs:
        prepared.records.run(loop_run.id).describe(
            {
                "id": loop_run.id,
                "arm": loop_run.arm,
                "seed": loop_run.seed,
                "train_loop": loop_run.loop.train_loop,
                "trainer": loop_run.loop.trainer,
                "config": loop_run.loop.loop_config(loop_run.seed),
                "scale": experiment.scale.model_dump(mode="json"),
            }
        )


def _data_record(dataset: Dataset) -> Record:
    return {
        "fingerprint": dataset.fingerprint,
        "class_names": dataset.class_names,
        "image_shape": list(dataset.image_shape),
        "train_images": len(dataset.train_labels),
        "validation_images": len(dataset.validation_labels),
        "test_images": len(dataset.test_labels),
        "groups": dataset.groups,
        "warnings": dataset.warnings,
    }


def execute(
    prepared: Prepared,
    driver_session: str,
    *,
    module_path: Path,
    watch: Callable[[], None],
    checks_parity: bool = True,
) -> None:
    """Train every open run on the Ray cluster that this process is connected to.

    A run that fails is recorded and the others go on; runs that failed for good in an earlier start are
    tried again. An interrupt loses nothing that is recorded.

    Args:
        prepared: from `prepare`.
        driver_session: from `begin`.
        module_path: directory that users' own models are imported from.
        watch: called about twice a second while runs train, to show progress.
        checks_parity: whether to trace first that both frameworks do the same work.

    Raises:
        InputError: the cluster is too small.
        StorageError: the storage failed while runs were training.
        ClusterError: a process of Ray's was lost. Workers that still train end with Ray, as after every error.
    """
    groups, apart = cluster_capacity(prepared.experiment.scale), prepared.experiment.measure_speed
    if apart:
        groups = 1
    traced = parity_plan.traced_recipes(prepared.experiment) if checks_parity else []
    waiting = run_plan.queues(open_runs(prepared, driver_session), groups=groups, apart=apart)
    training_now: dict[futures.Future[Exception | None], RunQueue] = {}
    while waiting or training_now:
        while waiting and len(training_now) < groups:
            queue = waiting.pop(0)
            assignment = _assignment(prepared, queue, driver_session, module_path, traced)
            training_now[worker_group.launch(assignment)] = queue
        ended, _ = futures.wait(training_now, timeout=_WATCH_SECONDS, return_when=futures.FIRST_COMPLETED)
        for future in ended:
            queue = training_now.pop(future)
            error = worker_group.outcome(future)
            if error is not None:
                _note_failure(prepared, queue, worker_group.diagnose(error), driver_session)
                if _first_open(prepared, queue, driver_session) is not None:
                    waiting.insert(0, queue)
        watch()


def cluster_capacity(scale: Scale, *, spare_cpus: int = 0) -> int:
    """How many runs the Ray cluster that this process is connected to holds at once, beside some CPUs that stay free.

    Raises:
        InputError: not even one.
    """
    size = _cluster_size(scale)
    return check_capacity(scale, cpus=size["cpus"] - spare_cpus, gpus=size["gpus"])


def runs_that_fit(scale: Scale) -> int:
    """As `cluster_capacity`, but 0 where not even one fits."""
    return run_plan.concurrent_runs(scale, **_cluster_size(scale))


def _cluster_size(scale: Scale) -> dict[str, float]:
    """CPUs and GPUs of the nodes that the workers may run on."""
    import ray

    suitable = [
        node["Resources"]
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"] and nodes.suits(scale, resources=node["Resources"], labels=node.get("Labels", {}))
    ]
    return {
        "cpus": sum(resources.get("CPU", 0) for resources in suitable),
        "gpus": sum(resources.get("GPU", 0) for resources in suitable),
    }


def ask_for_room(scale: Scale, *, runs: int) -> None:
    """Tell an autoscaling cluster that so many runs at once can be used; 0 takes the request back."""
    from ray.autoscaler.sdk import request_resources

    bundle = {"CPU": float(scale.cpus_per_worker), "GPU": float(scale.gpus_per_worker)}
    if scale.accelerator_type is not None:
        bundle[nodes.accelerator_resource(scale.accelerator_type)] = 0.001
    workers = runs * scale.min_workers
    selectors = None if scale.label_selector is None else [scale.label_selector] * workers
    request_resources(bundles=[bundle] * workers, bundle_label_selectors=selectors)


def await_capacity(scale: Scale, *, seconds: float) -> None:
    """Ask an autoscaling cluster for room for one run, and wait until there is.

    Raises:
        InputError: there is not after so many seconds; says what would fit.
    """
    limit = time.monotonic() + seconds
    while True:
        try:
            cluster_capacity(scale)
            return
        except InputError:
            if time.monotonic() >= limit:
                raise
        ask_for_room(scale, runs=1)
        time.sleep(_CAPACITY_SECONDS)


def open_runs(prepared: Prepared, driver_session: str) -> list[Run]:
    """The runs that still have something to train."""
    records = prepared.records
    return [run for run in prepared.runs if records.run(run.id).is_open(driver_session)]


def _assignment(
    prepared: Prepared, queue: RunQueue, driver_session: str, module_path: Path, traced: list[Recipe]
) -> Assignment:
    return Assignment(
        name=queue.runs[0].id,
        framework=queue.framework,
        runs=PlannedRuns(queue.runs, driver_session),
        scale=prepared.experiment.scale,
        data=prepared.experiment.data,
        data_fingerprint=prepared.data_fingerprint,
        storage_url=prepared.records.storage.url,
        driver_session=driver_session,
        launched_at=time.time(),
        module_path=str(module_path),
        corruption_robustness=prepared.experiment.corruption_robustness,
        parity_recipes=tuple(traced),
    )


def trace_parity(
    prepared: Prepared, works: list[Work], *, module_path: Path, steps: int
) -> list[list[dict[str, np.ndarray]]]:
    """Train each work in both frameworks side by side; returns the traces of Keras and PyTorch for each.

    Keras leads; PyTorch starts every step from Keras' weights and optimizer state. As many workers and GPUs are used
    as the experiment says, or one worker without a GPU where there are fewer. What the records already hold is not
    traced again.

    Args:
        prepared: from `prepare`.
        works: from `parity_plan.works`.
        module_path: directory that users' own models are imported from.
        steps: to train for.

    Raises:
        InputError: the weights of a user's own models do not correspond, or a model draws random numbers.
    """
    scale = prepared.experiment.scale
    fits = runs_that_fit(scale) > 0
    workers = scale.min_workers if fits else 1
    traced = []
    for work in works:
        key = work.key(prepared.data_fingerprint)
        traces = prepared.records.parity(key, FRAMEWORKS, steps=steps, workers=workers)
        if traces is None:
            traces = lockstep.traces(
                work,
                prepared.experiment.data,
                module_path=module_path,
                workers=workers,
                threads=scale.cpus_per_worker,
                gpus=scale.gpus_per_worker if fits else 0.0,
                steps=steps,
            )
            for framework, trace in zip(FRAMEWORKS, traces, strict=True):
                prepared.records.keep_parity(key, framework, trace)
        traced.append(traces)
    return traced


def _first_open(prepared: Prepared, queue: RunQueue, driver_session: str) -> RunRecords | None:
    """The run that the queue's workers were training, or would train next."""
    records = (prepared.records.run(run.id) for run in queue.runs)
    return next((run for run in records if run.is_open(driver_session)), None)


def _note_failure(prepared: Prepared, queue: RunQueue, failure: Failure, driver_session: str) -> None:
    """Record a failure of the run under way.

    Raises:
        StorageError: it was the storage that failed.
    """
    run = _first_open(prepared, queue, driver_session)
    if run is not None:
        add_failure(prepared.experiment, run, failure, driver_session)


def add_failure(experiment: Experiment, run: RunRecords, failure: Failure, driver_session: str) -> None:
    """Record a failure of a run and decide whether the run has failed permanently.

    Raises:
        StorageError: it was the storage that failed, which no other try can mend.
    """
    if failure.kind == "storage":
        raise StorageError(failure.cause)
    hang = run.take_hang()
    cause, detail = failure.cause, failure.detail
    if hang is not None and failure.kind == "lost":
        cause = f"the worker of rank {hang['rank']} hung: nothing was done for {hang['seconds']:g} s"
        detail = hang["stack"]
    earlier = [record for record in run.failures() if record["driver_session"] == driver_session]
    out_of_retries = len(earlier) >= experiment.scale.retries
    run.add_failure(
        {
            "driver_session": driver_session,
            "failed_at": time.time(),
            "cause": cause,
            "detail": detail,
            "permanent": failure.kind != "lost" or out_of_retries,
        }
    )
