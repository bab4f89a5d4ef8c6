"""What a worker process of a session does: set up once, trace parity, train the open runs one by one.

What is done, and from where to go on, is read from the records alone: a group that was lost and
started again, or a driver that was, takes up the first run that is neither done nor given up.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from orchestrator.analysis.parity import recipe_key
from orchestrator.execution import environment
from orchestrator.execution.recorder import Recorder
from orchestrator.execution.resource_usage import Meter
from orchestrator.execution.watchdog import Watchdog
from orchestrator.planning.run_plan import Run
from orchestrator.store.records import ExperimentRecords, Position, RunRecords
from orchestrator.store.storage import Record, Storage
from orchestrator.sweep.trial_source import Lane
from trainers import preset
from trainers.answering import AnswerSpeed, answer_speed
from trainers.contract import EpochMetrics, State, Task
from trainers.data import Dataset, open_dataset
from trainers.early_stopping import Patience
from trainers.errors import ForeignError, InputError, TandemError, one_line
from trainers.inputs import input_transform
from trainers.loop import DivergedError, final_test, gather, train
from trainers.memory import OutOfMemoryError, fitting_batch_size, is_out_of_memory
from trainers.parity import trace
from trainers.recipes import Recipe, class_weights
from trainers.robustness import robustness

if TYPE_CHECKING:
    from orchestrator.execution.worker_group import Assignment

Measured = TypeVar("Measured")

PARITY_STEPS = 4
_ENGINES_KEPT = 4
_NOT_COMPILED = {
    "schedule",
    "augmentation",
    "batch_size",
    "epochs",
    "early_stopping",
    "flip_averaging",
    "shift_averaging",
}


def work(config: dict[str, Any]) -> None:
    """What every worker of a session does.

    Raises:
        TandemError: told in words of its own.
        ForeignError: anything else, for the driver, which has neither the frameworks nor users' modules.
    """
    try:
        _work(config)
    except Exception as error:
        if isinstance(error, TandemError) or type(error).__module__.startswith("ray."):
            raise
        raise ForeignError(one_line(error)).with_traceback(error.__traceback__) from None


def _work(config: dict[str, Any]) -> None:
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
    together = broadcast_from_rank_zero(
        {
            "bfloat16": runtime.computes_bfloat16(),
            # On a single node the driver ends with its workers, so that there is nothing to prepare for.
            "expects_preemption": _alive_nodes() > 1,
        }
    )
    worker = _Worker(
        assignment=assignment,
        runtime=runtime,
        dataset=dataset,
        records=ExperimentRecords(Storage(assignment.storage_url)),
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        **together,
        environment=environment.describe(),
        meter=Meter(first_on_node=context.get_local_rank() == 0),
        lane=Lane(assignment.desk, assignment.lane, rank=context.get_world_rank())
        if assignment.desk
        else None,
    )
    worker.trace_parity()
    while (run := worker.next_run()) is not None:
        worker.take(run, startup)
        startup = dict.fromkeys(startup, 0.0)


def _alive_nodes() -> int:
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return sum(node["Alive"] for node in nodes)


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
        class_weights=class_weights(recipe.loss, dataset.train_labels, len(dataset.class_names)),
    )


def _compiled_for(task: Task) -> str:
    """What an engine is built for; the rest of a recipe reaches it with each step."""
    recipe = task.recipe.model_dump(mode="json", exclude=_NOT_COMPILED)
    del recipe["optimizer"]["learning_rate"]
    return json.dumps([recipe, task.seed], sort_keys=True)


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
    bfloat16: bool
    """Whether the first worker's processors compute it themselves, which resolves `precision: auto` for all."""
    expects_preemption: bool
    """Whether to ask Ray Train if a worker's node is about to go."""
    environment: Record
    meter: Meter
    lane: Lane | None
    """In a sweep, where runs come from and epochs are reported to."""
    engines: dict[str, tuple[Any, State]] = dataclasses.field(default_factory=dict)
    """In a sweep, engines to use again, each with the state that it began with."""
    known: dict[tuple[str, str], Any] = dataclasses.field(default_factory=dict)
    """What `measured` found."""

    def settings(self) -> Record:
        """The variables of this process, and what the framework computes with."""
        framework = importlib.import_module(f"trainers.{self.assignment.session.framework}.settings")
        return {**preset.observed(), **framework.observed()}

    def next_run(self) -> Run | None:
        """What to train next, the same on every worker."""
        from ray.train.collective import broadcast_from_rank_zero

        if self.lane is not None:
            return self.lane.next_run()
        runs, session = self.assignment.session.runs, self.assignment.driver_session
        open_runs = (run.id for run in runs if is_open(self.records.run(run.id), session))
        run_id = broadcast_from_rank_zero(next(open_runs, None) if self.rank == 0 else None)
        return next((run for run in runs if run.id == run_id), None)

    def take(self, run: Run, startup: dict[str, float]) -> None:
        """Train a run and test it; in a sweep, train it for as long as its trial wants."""
        records = self.records.run(run.id)
        if self.lane is None:
            self.train(run, records.position(), startup, goes_on=lambda metrics: True)
            return
        with self.lane.on(run, records, alone=self.world_size == 1):
            position = records.position()
            if self.lane.is_wanted(run, records, done=position.epoch):
                self.train(run, position, startup, goes_on=partial(self.lane.goes_on, run))

    def task(self, recipe: Recipe, seed: int) -> Task:
        """This worker's part of a run."""
        settled = recipe.settled(bfloat16=self.bfloat16)
        return make_task(self.dataset, settled, seed=seed, rank=self.rank, world_size=self.world_size)

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

    def patience(self, run: Run, position: Position) -> Patience:
        """What ends a run before its last epoch; a trial's scheduler alone ends a trial."""
        stopping = run.recipe.early_stopping if self.lane is None else None
        patience = Patience(None if stopping is None else stopping.patience)
        for epoch in position.trained:
            patience.see(epoch["epoch"], epoch["validation_accuracy"], epoch["validation_loss"])
        return patience

    def engine(self, task: Task) -> Any:
        """A model to train. In a sweep, one that was compiled for an earlier trial, where it fits."""
        if self.lane is None:
            return self.runtime.engine(task)
        key = _compiled_for(task)
        if key not in self.engines:
            if len(self.engines) == _ENGINES_KEPT:
                del self.engines[next(iter(self.engines))]
            engine = self.runtime.engine(task)
            self.engines[key] = engine, engine.state()
            return engine
        engine, initial = self.engines[key]
        engine.load_state(initial)
        return engine

    def train(
        self,
        run: Run,
        position: Position,
        startup: dict[str, float],
        *,
        goes_on: Callable[[EpochMetrics], bool],
    ) -> None:
        """Train a run from where it stands; outside a sweep, test it.

        Raises:
            DivergedError: names the last healthy checkpoint.
            OutOfMemoryError: names a batch size that fits.
        """
        started = time.time()
        scale = self.assignment.scale
        records = self.records.run(run.id)
        watchdog = Watchdog(scale.hang_seconds, rank=self.rank, last_words=records.add_hang)
        task = self.task(run.recipe, run.seed)
        patience = self.patience(run, position)
        try:
            engine = self.engine(task)
            if position.state is not None:
                engine.load_state(position.state)
            recorder = Recorder(
                records,
                engine,
                watchdog,
                task=task,
                meter=self.meter,
                started=started,
                expects_preemption=self.expects_preemption,
                goes_on=goes_on,
                patience=patience,
            )
            if self.rank == 0:
                records.add_attempt(
                    {
                        "driver_session": self.assignment.driver_session,
                        "started_at": started,
                        "first_epoch": position.epoch + 1,
                        "first_step": position.step,
                        "workers": self.world_size,
                        "precision": task.recipe.precision,
                        "environment": self.environment | {"settings": self.settings()},
                        "startup": startup | {"build_seconds": time.time() - started},
                    }
                )
            if not patience.is_over:
                train(
                    task,
                    self.dataset,
                    engine,
                    first_epoch=position.epoch + 1,
                    first_step=position.step,
                    prefetch=scale.cpus_per_worker > 1 or scale.gpus_per_worker > 0,
                    hooks=recorder.hooks,
                )
            recorder.settle()
            if self.lane is not None:
                return
            tested_epoch = patience.last
            if patience.best != patience.last:
                gather(task, engine, [0.0])  # the first worker has written what all read
                if (best := records.state(patience.best)) is not None:
                    engine.load_state(best)
                    tested_epoch = patience.best
            result, predictions = self.test(run, task, engine, watchdog.heartbeat)
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
            ending = {"tested_epoch": tested_epoch, "finished_at": time.time()}
            records.finish(result | ending, predictions, task.inputs)

    def test(
        self, run: Run, task: Task, engine: Any, heartbeat: Callable[[], None]
    ) -> tuple[Record, dict[str, np.ndarray]]:
        """What the test images say of a trained model, and what it costs to run, each worker doing its part.

        Returns:
            Of rank 0, the result as it is kept, and each test image's answer, int64 [n], with its confidence,
            float32 [n].
        """
        final = final_test(task, self.dataset, engine, heartbeat)
        held = (
            robustness(task, self.dataset, engine, final.answers, heartbeat)
            if self.assignment.robustness
            else None
        )
        answering: AnswerSpeed | None = None
        forward_flops: float | None = None
        if self.rank == 0:
            answering = self.measured(
                ("answers", run.arm), lambda: answer_speed(task, engine, self.dataset.test_images)
            )
            forward_flops = self.measured(("forward pass", run.arm), engine.forward_flops)
        device_memory = engine.device_memory_peak()
        reached = self.measured(("matrix product", task.recipe.precision), engine.matmul_flops)
        rates, peaks = gather(task, engine, [math.nan if reached is None else reached, device_memory]).T
        return {
            "test_loss": final.evaluation.loss,
            "test_accuracy": final.evaluation.accuracy,
            "confusion": final.evaluation.confusion.tolist(),
            "test_images": len(self.dataset.test_labels),
            "test_seconds": final.seconds,
            "robustness": held,
            "parameters": engine.parameter_count(),
            "forward_flops": forward_flops,
            "answer_seconds": answering.seconds if answering else None,
            "answers_per_second": answering.images_per_second if answering else None,
            "matmul_flops": float(rates.sum()) if np.isfinite(rates).all() else None,
            "device_memory_peak_bytes": int(peaks.max()) or None,
        }, {"answers": final.answers, "confidences": final.confidences.astype("float32")}

    def measured(self, key: tuple[str, str], measure: Callable[[], Measured]) -> Measured | None:
        """What is the same for all runs with a key, measured once.

        None where the framework cannot tell, which is no reason to lose a run.
        """
        if key not in self.known:
            try:
                self.known[key] = measure()
            except Exception:
                self.known[key] = None
        known: Measured | None = self.known[key]
        return known

    def _out_of_memory(self, task: Task) -> OutOfMemoryError:
        size = task.recipe.batch_size
        if self.world_size > 1:
            advice = f"batch_size {size // 2} needs about half as much, and so do twice the workers"
        else:
            fits = fitting_batch_size(task, self.dataset, self.runtime)
            advice = f"batch_size {fits} was tried and fits" if fits else "not even one image fits"
        return OutOfMemoryError(f"out of memory with batch_size {size}; {advice}")
