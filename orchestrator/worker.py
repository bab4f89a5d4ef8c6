"""What a worker process of a session does: set up once, trace parity, train the open runs one by one.

What is done, and from where to go on, is read from the records alone: a group that was lost and
started again, or a driver that was, takes up the first run that is neither done nor given up.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from orchestrator import environment
from orchestrator.parity import recipe_key
from orchestrator.plan import Run
from orchestrator.recorder import Recorder
from orchestrator.records import ExperimentRecords, Record, RunRecords, Storage
from orchestrator.watchdog import Watchdog
from trainers.contract import Task
from trainers.data import Dataset, open_dataset
from trainers.errors import InputError
from trainers.inputs import input_transform
from trainers.loop import DivergedError, train
from trainers.memory import OutOfMemoryError, fitting_batch_size, is_out_of_memory
from trainers.parity import trace
from trainers.recipes import Recipe

if TYPE_CHECKING:
    from orchestrator.training import Assignment

PARITY_STEPS = 4


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


def make_task(dataset: Dataset, recipe: Recipe, *, seed: int, rank: int, world_size: int) -> Task:
    """One worker's part of a run on a data set."""
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
        return make_task(self.dataset, recipe, seed=seed, rank=self.rank, world_size=self.world_size)

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
