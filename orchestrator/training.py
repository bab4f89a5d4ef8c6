"""One session on Ray Train: a group of workers that trains several runs one after another.

Workers stay warm between runs, so that only the first pays for imports. What is done, and from
where to go on, is read from the records alone: a group that was lost and started again, or a
driver that was, takes up the first run that is neither done nor given up.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import time
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.plan import Run, Session
from orchestrator.records import ExperimentRecords, RunRecords, Storage, StorageError
from orchestrator.spec import Scale
from trainers.data import DataSpec, open_dataset
from trainers.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainers.contract import EpochMetrics
    from trainers.data import Dataset


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assignment:
    """Everything that a worker of a session needs to know."""

    session: Session
    scale: Scale
    data: DataSpec
    data_fingerprint: str
    storage_url: str
    driver_session: str
    """Which start of the driver this belongs to."""
    launched_at: float
    """When the driver asked for the workers, in seconds since the epoch."""
    module_path: str
    """Directory that users' own models are imported from."""


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why the workers of a session stopped before they were done."""

    kind: Literal["lost", "error", "storage"]
    """A worker died, the code raised an error, or the storage could not be written."""
    cause: str
    """One sentence."""
    detail: str = ""
    """The traceback, where there is one."""


def fit(assignment: Assignment) -> Failure | None:
    """Launch the workers of a session on Ray and wait until they have nothing left to train.

    Runs as a Ray task: PyTorch and TensorFlow cannot live in one process, and Ray's trainers
    import theirs.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.v2.api.config import LoggingConfig

    scale = assignment.scale
    framework = assignment.session.framework
    trainer_class = importlib.import_module(f"trainers.{framework}.trainer").Trainer
    resources: dict[str, float] = {"CPU": scale.cpus_per_worker}
    if scale.gpus_per_worker:
        resources["GPU"] = scale.gpus_per_worker
    trainer = trainer_class(
        work,
        train_loop_config={"assignment": assignment},
        scaling_config=ScalingConfig(
            num_workers=scale.workers,
            use_gpu=scale.gpus_per_worker > 0,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name=f"{framework}-{assignment.driver_session}-{assignment.session.runs[0].id}",
            storage_path=Storage(assignment.storage_url).at("ray").url,
            failure_config=FailureConfig(max_failures=0),
            logging_config=LoggingConfig(log_level="ERROR"),  # type: ignore[call-arg]
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        return diagnose(error)
    return None


def work(config: dict[str, Any]) -> None:
    """What every worker of a session does."""
    import ray.train
    from ray.train.collective import broadcast_from_rank_zero

    entered = time.time()
    assignment: Assignment = config["assignment"]
    scale = assignment.scale
    sys.path.insert(0, assignment.module_path)
    engines = importlib.import_module(f"trainers.{assignment.session.framework}.engine")
    runtime = engines.Runtime(threads=scale.cpus_per_worker, use_gpu=scale.gpus_per_worker > 0)
    imported = time.time()
    dataset = open_dataset(assignment.data)
    if dataset.fingerprint != assignment.data_fingerprint:
        raise InputError("the data on this node differ from the driver's; copy the same files there")
    startup = {
        "workers_seconds": entered - assignment.launched_at,
        "import_seconds": imported - entered,
        "data_seconds": time.time() - imported,
    }
    rank = ray.train.get_context().get_world_rank()
    records = ExperimentRecords(Storage(assignment.storage_url))
    while True:
        todo = None
        if rank == 0:
            ids = (run.id for run in assignment.session.runs)
            open_ids = (id for id in ids if is_open(records.run(id), assignment.driver_session))
            todo = next(open_ids, None)
        run_id = broadcast_from_rank_zero(todo)
        if run_id is None:
            return
        run = next(run for run in assignment.session.runs if run.id == run_id)
        _train_run(assignment, run, runtime, dataset, records.run(run.id), startup)
        startup = {"workers_seconds": 0.0, "import_seconds": 0.0, "data_seconds": 0.0}


def is_open(records: RunRecords, driver_session: str) -> bool:
    """Whether a run still has something to train: neither done nor given up by this driver."""
    return records.result() is None and not any(
        failure["given_up"] and failure["driver_session"] == driver_session for failure in records.failures()
    )


def _train_run(
    assignment: Assignment,
    run: Run,
    runtime: Any,
    dataset: Dataset,
    records: RunRecords,
    startup: dict[str, float],
) -> None:
    import ray.train

    from orchestrator import environment
    from trainers.contract import Task
    from trainers.loop import train

    started = time.time()
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    input_scale, input_offset = dataset.input_scaling(run.recipe.inputs)
    task = Task(
        recipe=run.recipe,
        seed=run.seed,
        rank=rank,
        world_size=world_size,
        image_shape=dataset.image_shape,
        num_classes=len(dataset.class_names),
        input_scale=input_scale,
        input_offset=input_offset,
    )
    engine = runtime.engine(task)
    position = records.position()
    if position.state is not None:
        engine.load_state(position.state)
    if rank == 0:
        records.add_attempt(
            {
                "driver_session": assignment.driver_session,
                "started_at": started,
                "first_epoch": position.epoch + 1,
                "workers": world_size,
                "environment": environment.describe(),
                "startup": startup | {"build_seconds": time.time() - started},
            }
        )

    final = train(
        task,
        dataset,
        engine,
        first_epoch=position.epoch + 1,
        report=_reporter(records, engine, rank, started),
    )
    if rank == 0:
        records.finish(
            {
                "test_loss": final.evaluation.loss,
                "test_accuracy": final.evaluation.accuracy,
                "confusion": final.evaluation.confusion.tolist(),
                "test_images": len(dataset.test_labels),
                "test_seconds": final.seconds,
                "parameters": engine.parameter_count(),
                "finished_at": time.time(),
            },
            {"answers": final.answers, "confidences": final.confidences.astype("float32")},
        )
    ray.train.report({"run": run.id, "test_accuracy": final.evaluation.accuracy})


def _reporter(records: RunRecords, engine: Any, rank: int, started: float) -> Callable[[EpochMetrics], None]:
    """What follows each epoch: checkpoint and record, by the first worker.

    Ray Train hears of a run only at its end: a report waits for the controller's next look at the
    workers, and looking often takes time from the training threads.
    """
    checkpoint_seconds = 0.0

    def report(metrics: EpochMetrics) -> None:
        nonlocal checkpoint_seconds
        if rank != 0:
            return
        start = time.perf_counter()
        extra = {
            "seconds_since_start": time.time() - started,
            "checkpoint_seconds": checkpoint_seconds,
        }
        records.add_epoch(metrics, engine.state(), extra)
        checkpoint_seconds = time.perf_counter() - start

    return report


def diagnose(error: Exception) -> Failure:
    """Tell lost workers, which are worth another try, from errors, which are not.

    When one worker dies, the others fail in the exchange of gradients: that is a consequence, so
    one dead worker outweighs any number of errors.

    Args:
        error: a `ray.train.TrainingFailedError`.
    """
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    for failure in failures.values():
        if isinstance(failure, StorageError):
            return Failure("storage", str(failure))
    dead = sorted(rank for rank, failure in failures.items() if _is_death(failure))
    if dead:
        ranks = ", ".join(str(rank) for rank in dead)
        return Failure("lost", f"the worker of rank {ranks} died", str(error))
    if failures:
        _, failure = sorted(failures.items())[0]
        return Failure("error", f"{type(failure).__name__}: {_last_line(failure)}", str(error))
    return Failure("lost", _last_line(error), str(error))


def _is_death(failure: Exception) -> bool:
    from ray.exceptions import RayActorError

    return isinstance(getattr(failure, "health_check_failure", failure), RayActorError)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
