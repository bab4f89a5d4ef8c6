"""One session on Ray Train: a group of workers that trains several runs one after another.

Workers stay warm between runs, so that only the first pays for imports. What is done, and from
where to go on, is read from the records alone: a group that was lost and started again, or a
driver that was, takes up the first run that is neither done nor given up.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any, Literal

from orchestrator import environment
from orchestrator.parity import recipe_key
from orchestrator.plan import Run, Session
from orchestrator.recorder import Recorder
from orchestrator.records import ExperimentRecords, Record, RunRecords, Storage, StorageError
from orchestrator.spec import Scale
from orchestrator.watchdog import Watchdog
from trainers.contract import Task
from trainers.data import Dataset, DataSpec, open_dataset
from trainers.errors import InputError, TandemError
from trainers.inputs import input_transform
from trainers.loop import DivergedError, train
from trainers.memory import OutOfMemoryError, fitting_batch_size, is_out_of_memory
from trainers.parity import TakenStep, described, single_steps, take_step, trace
from trainers.recipes import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from trainers.initial import Weights

PARITY_STEPS = 4
_RAY_OUT_OF_MEMORY = re.compile(r"low on memory|NODE_OUT_OF_MEMORY")
_RESIZE_SECONDS = 10


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
    parity_recipes: tuple[Recipe, ...] = ()
    """What to trace before training, for the comparison with the other framework."""


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
    from ray.train import RunConfig, TrainingFailedError
    from ray.train.v2.api.config import FailureConfig, LoggingConfig, ScalingConfig

    scale = assignment.scale
    framework = assignment.session.framework
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(scale.hang_seconds)
    trainer_class = importlib.import_module(f"trainers.{framework}.trainer").Trainer
    resources: dict[str, float] = {"CPU": scale.cpus_per_worker}
    if scale.gpus_per_worker:
        resources["GPU"] = scale.gpus_per_worker
    trainer = trainer_class(
        work,
        train_loop_config={"assignment": assignment},
        scaling_config=ScalingConfig(
            num_workers=_num_workers(scale),
            elastic_resize_monitor_interval_s=_RESIZE_SECONDS,
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


def _num_workers(scale: Scale) -> int | tuple[int, int]:
    return scale.workers if isinstance(scale.workers, int) else (scale.workers.min, scale.workers.max)


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
    context = ray.train.get_context()
    worker = _Worker(
        assignment=assignment,
        runtime=runtime,
        dataset=dataset,
        records=ExperimentRecords(Storage(assignment.storage_url)),
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        environment=environment.describe(),
    )
    worker.trace_parity()
    while True:
        todo = next((run.id for run in worker.open_runs()), None) if worker.rank == 0 else None
        run_id = broadcast_from_rank_zero(todo)
        if run_id is None:
            return
        worker.train(next(run for run in assignment.session.runs if run.id == run_id), startup)
        startup = dict.fromkeys(startup, 0.0)


class LockstepSide:
    """One framework of a lockstep, in a process of its own. For a Ray actor."""

    def __init__(self, framework: str, recipe: Recipe, data: DataSpec, *, threads: int, steps: int) -> None:
        engines = importlib.import_module(f"trainers.{framework}.engine")
        runtime = engines.Runtime(threads=threads, use_gpu=False)
        dataset = open_dataset(data)
        task = _task(dataset, recipe, seed=0, rank=0, world_size=1)
        self._engine = runtime.engine(task)
        self._steps = single_steps(task, dataset, steps)
        self._initial = self._engine.weights()
        self._taken: list[TakenStep] = []

    def state(self) -> Weights:
        """What the other side starts its next step from."""
        return self._engine.neutral_state()  # type: ignore[no-any-return]

    def step(self, state: Weights | None) -> bool:
        """Take the next step, from the other side's state if there is one; False after the last."""
        step = next(self._steps, None)
        if step is None:
            return False
        if state is not None:
            self._engine.load_neutral_state(state)
        self._taken.append(take_step(self._engine, step))
        return True

    def trace(self) -> dict[str, np.ndarray]:
        """The steps taken, as `trainers.parity.described`."""
        return described(self._initial, self._taken)


def _task(dataset: Dataset, recipe: Recipe, *, seed: int, rank: int, world_size: int) -> Task:
    return Task(
        recipe=recipe,
        seed=seed,
        rank=rank,
        world_size=world_size,
        image_shape=dataset.image_shape,
        num_classes=len(dataset.class_names),
        inputs=input_transform(dataset, recipe),
    )


def is_open(records: RunRecords, driver_session: str) -> bool:
    """Whether a run still has something to train: neither done nor given up by this driver."""
    return records.result() is None and not any(
        failure["given_up"] and failure["driver_session"] == driver_session for failure in records.failures()
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Worker:
    """One worker process of a session, warm."""

    assignment: Assignment
    runtime: Any
    dataset: Dataset
    records: ExperimentRecords
    rank: int
    world_size: int
    environment: Record

    def open_runs(self) -> Iterator[Run]:
        """The session's runs that still have something to train."""
        for run in self.assignment.session.runs:
            if is_open(self.records.run(run.id), self.assignment.driver_session):
                yield run

    def task(self, recipe: Recipe, seed: int) -> Task:
        """This worker's part of a run."""
        return _task(self.dataset, recipe, seed=seed, rank=self.rank, world_size=self.world_size)

    def trace_parity(self) -> None:
        """Trace a few steps of every recipe that was not traced in this framework before."""
        from ray.train.collective import broadcast_from_rank_zero

        framework = self.assignment.session.framework
        for recipe in self.assignment.parity_recipes:
            key = recipe_key(recipe, self.assignment.data_fingerprint)
            known = self.rank == 0 and self.records.has_parity(key, framework, PARITY_STEPS)
            if broadcast_from_rank_zero(known):
                continue
            task = self.task(recipe, seed=0)
            traced = trace(task, self.dataset, self.runtime.engine(task), steps=PARITY_STEPS)
            if self.rank == 0:
                self.records.keep_parity(key, framework, PARITY_STEPS, traced)

    def train(self, run: Run, startup: dict[str, float]) -> None:
        """Train a run from where its records say it stands.

        Raises:
            DivergedError: names the last healthy checkpoint.
            OutOfMemoryError: names a batch size that fits.
        """
        import ray.train

        started = time.time()
        scale = self.assignment.scale
        records = self.records.run(run.id)
        watchdog = Watchdog(scale.hang_seconds, rank=self.rank, last_words=records.add_hang)
        task = self.task(run.recipe, run.seed)
        position = records.position()
        try:
            engine = self.runtime.engine(task)
            if position.state is not None:
                engine.load_state(position.state)
            recorder = Recorder(
                records,
                engine,
                watchdog,
                rank=self.rank,
                world_size=self.world_size,
                started=started,
                expects_preemption=os.environ.get("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER") != "0",
            )
            if self.rank == 0:
                records.add_attempt(
                    {
                        "driver_session": self.assignment.driver_session,
                        "started_at": started,
                        "first_epoch": position.epoch + 1,
                        "first_step": position.step,
                        "workers": self.world_size,
                        "environment": self.environment,
                        "startup": startup | {"build_seconds": time.time() - started},
                    }
                )
            final = train(
                task,
                self.dataset,
                engine,
                first_epoch=position.epoch + 1,
                first_step=position.step,
                prefetch=scale.cpus_per_worker > 1 or scale.gpus_per_worker > 0,
                hooks=recorder.hooks,
            )
            recorder.settle()
        except DivergedError as error:
            recorder.settle()
            healthy = records.position().epoch
            kept = f"the last healthy checkpoint is that of epoch {healthy}" if healthy else "none was kept"
            raise DivergedError(f"{error}; {kept}") from error
        except Exception as error:
            if is_out_of_memory(error):
                raise self._out_of_memory(task) from error
            raise
        finally:
            watchdog.stop()
        if self.rank == 0:
            records.finish(
                {
                    "test_loss": final.evaluation.loss,
                    "test_accuracy": final.evaluation.accuracy,
                    "confusion": final.evaluation.confusion.tolist(),
                    "test_images": len(self.dataset.test_labels),
                    "test_seconds": final.seconds,
                    "parameters": engine.parameter_count(),
                    "finished_at": time.time(),
                },
                {"answers": final.answers, "confidences": final.confidences.astype("float32")},
            )
        ray.train.report({"run": run.id, "test_accuracy": final.evaluation.accuracy})

    def _out_of_memory(self, task: Task) -> OutOfMemoryError:
        size = task.recipe.batch_size
        if self.world_size > 1:
            advice = f"batch_size {size // 2} needs about half as much, and so do twice the workers"
        else:
            fits = fitting_batch_size(task, self.dataset, self.runtime)
            advice = f"batch_size {fits} was tried and fits" if fits else "not even one image fits"
        return OutOfMemoryError(f"out of memory with batch_size {size}; {advice}")


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
    for failure in failures.values():
        if isinstance(failure, TandemError):
            return Failure("error", str(failure))
    dead = sorted(rank for rank, failure in failures.items() if _is_death(failure))
    if dead:
        ranks = ", ".join(str(rank) for rank in dead)
        killed = any(_RAY_OUT_OF_MEMORY.search(str(failures[rank])) for rank in dead)
        if killed:
            return Failure(
                "error",
                f"out of memory: Ray ended the worker of rank {ranks} to save its node; lower batch_size "
                "(half needs about half as much), run fewer at once, or use a larger node",
                str(error),
            )
        return Failure("lost", f"the worker of rank {ranks} died", str(error))
    silent = sorted(rank for rank, failure in failures.items() if "HealthCheck" in type(failure).__name__)
    if silent:
        ranks = ", ".join(str(rank) for rank in silent)
        return Failure("lost", f"the worker of rank {ranks} hung: it did not answer any more", str(error))
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
