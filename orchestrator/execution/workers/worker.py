"""What each worker of a group does: set up once, trace parity, then train the runs of its source one by one.

What is done, and from where to go on, is read from the records alone: a group that was lost and
started again, or a driver that was, continues with the first run that is neither done nor failed permanently.
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
from typing import Any, TypeVar

import numpy as np

from orchestrator.execution.assignment import Assignment
from orchestrator.execution.monitoring import environment
from orchestrator.execution.monitoring.resource_usage import Meter
from orchestrator.execution.monitoring.watchdog import Watchdog
from orchestrator.execution.run_source import OpenRunSource
from orchestrator.execution.workers.recorder import Recorder
from orchestrator.planning.parity_plan import recipe_key
from orchestrator.planning.run_plan import Run
from orchestrator.store.records import ExperimentRecords, ResumePoint
from orchestrator.store.storage import Record, Storage
from trainers.contract import State, Task
from trainers.corruption_robustness import corruption_robustness
from trainers.data import Dataset, open_dataset
from trainers.early_stopping import Patience
from trainers.errors import ForeignError, InputError, TandemError, one_line
from trainers.inference_speed import InferenceSpeed, inference_speed
from trainers.loop import DivergedError, final_test, gather, train
from trainers.machine import preset
from trainers.machine.memory import OutOfMemoryError, fitting_batch_size, is_out_of_memory
from trainers.parity.trace import trace
from trainers.recipes import Recipe
from trainers.tasks import make_task

Measured = TypeVar("Measured")

PARITY_STEPS = 4
_ENGINES_KEPT = 4
_NOT_COMPILED = {
    "schedule",
    "augmentation",
    "batch_size",
    "epochs",
    "early_stopping",
    "test_time_augmentation",
    "stop_on_divergence",
}


def work(config: dict[str, Any]) -> None:
    """What every worker of a group does.

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
    engines = importlib.import_module(f"trainers.{assignment.framework}.engine")
    runtime = engines.Runtime(threads=scale.cpus_per_worker, use_gpu=scale.gpus_per_worker > 0)
    imported = time.time()
    dataset = open_dataset(assignment.data)
    if dataset.fingerprint != assignment.data_fingerprint:
        raise InputError("the data on this node differ from the driver's; copy the same files there")
    startup = {
        "workers_seconds": max(0.0, entered - assignment.launched_at),  # clocks of two nodes may differ
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
    records = ExperimentRecords(Storage(assignment.storage_url))
    place = {"rank": context.get_world_rank(), "world_size": context.get_world_size()}
    worker = _Worker(
        assignment=assignment,
        runtime=runtime,
        dataset=dataset,
        records=records,
        source=assignment.runs.open(records, **place),
        **place,
        **together,
        environment=environment.describe(),
        meter=Meter(first_on_node=context.get_local_rank() == 0),
    )
    worker.trace_parity()
    while (run := worker.source.next_run()) is not None:
        worker.attempt(run, startup)
        startup = dict.fromkeys(startup, 0.0)


def _alive_nodes() -> int:
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return sum(node["Alive"] for node in nodes)


def _compiled_for(task: Task) -> str:
    """What an engine is built for; the rest of a recipe reaches it with each step."""
    recipe = task.recipe.model_dump(mode="json", exclude=_NOT_COMPILED)
    recipe["optimizer"].pop("learning_rate", None)
    return json.dumps([recipe, task.seed], sort_keys=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Worker:
    """One worker process, warm between runs."""

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
    source: OpenRunSource
    engines: dict[str, tuple[Any, State]] = dataclasses.field(default_factory=dict)
    """In a sweep, engines to use again, each with the state that it began with."""
    known: dict[tuple[str, str], Any] = dataclasses.field(default_factory=dict)
    """What `measured` found."""

    def settings(self, recipe: Recipe) -> Record:
        """The variables of this process, and what the framework computes a recipe with."""
        framework = importlib.import_module(f"trainers.{self.assignment.framework}.settings")
        on_gpu = self.assignment.scale.gpus_per_worker > 0
        deterministic = recipe.is_deterministic(on_gpu=on_gpu)
        return {**preset.observed(), **framework.observed(), "deterministic": deterministic}

    def attempt(self, run: Run, startup: dict[str, float]) -> None:
        """Train a run from its resume point, for as long as its source wants."""
        records = self.records.run(run.id)
        with self.source.attempt(run, records):
            resume_point = records.resume_point()
            if self.source.is_wanted(run, records, done=resume_point.epoch):
                self.on_split(run.seed).train(run, resume_point, startup)

    def on_split(self, seed: int) -> _Worker:
        """This worker, with the images of a seed."""
        data = self.assignment.data.of_seed(seed)
        return self if data == self.assignment.data else dataclasses.replace(self, dataset=open_dataset(data))

    def task(self, recipe: Recipe, seed: int) -> Task:
        """This worker's part of a run."""
        resolved = recipe.resolved(bfloat16=self.bfloat16)
        return make_task(self.dataset, resolved, seed=seed, rank=self.rank, world_size=self.world_size)

    def trace_parity(self) -> None:
        """Trace a few steps of every recipe that was not traced in this framework before."""
        from ray.train.collective import broadcast_from_rank_zero

        framework = self.assignment.framework
        for recipe in self.assignment.parity_recipes:
            key = recipe_key(recipe, self.assignment.data_fingerprint)
            known = self.rank == 0 and self.records.has_parity(
                key, framework, steps=PARITY_STEPS, workers=self.world_size
            )
            if broadcast_from_rank_zero(known):
                continue
            task = self.task(recipe, seed=0)
            traced = trace(task, self.dataset, self.runtime.engine(task), steps=PARITY_STEPS)
            if self.rank == 0:
                self.records.keep_parity(key, framework, traced)

    def patience(self, run: Run, resume_point: ResumePoint) -> Patience:
        """What ends a run before its last epoch; a trial's scheduler alone ends a trial."""
        stopping = None if self.source.is_search else run.recipe.early_stopping
        patience = Patience(None if stopping is None else stopping.patience)
        for epoch in resume_point.trained:
            patience.see(epoch["epoch"], epoch["validation_accuracy"], epoch["validation_loss"])
        return patience

    def engine(self, task: Task) -> Any:
        """A model to train. In a sweep, one that was compiled for an earlier trial, where it fits."""
        if not self.source.is_search:
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

    def train(self, run: Run, resume_point: ResumePoint, startup: dict[str, float]) -> None:
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
        patience = self.patience(run, resume_point)
        try:
            engine = self.engine(task)
            if resume_point.state is not None:
                engine.load_state(resume_point.state)
            recorder = Recorder(
                records,
                engine,
                watchdog,
                task=task,
                meter=self.meter,
                started=started,
                expects_preemption=self.expects_preemption,
                goes_on=partial(self.source.goes_on, run),
                patience=patience,
            )
            if self.rank == 0:
                records.add_attempt(
                    {
                        "driver_session": self.assignment.driver_session,
                        "started_at": started,
                        "first_epoch": resume_point.epoch + 1,
                        "first_step": resume_point.step,
                        "workers": self.world_size,
                        "precision": task.recipe.precision,
                        "environment": self.environment | {"settings": self.settings(task.recipe)},
                        "startup": startup | {"build_seconds": time.time() - started},
                    }
                )
            if not patience.is_over:
                train(
                    task,
                    self.dataset,
                    engine,
                    first_epoch=resume_point.epoch + 1,
                    first_step=resume_point.step,
                    validation_losses=[
                        epoch["validation_loss"]
                        for epoch in resume_point.trained
                        if epoch["validation_loss"] is not None
                    ],
                    prefetch=scale.cpus_per_worker > 1 or scale.gpus_per_worker > 0,
                    hooks=recorder.hooks,
                )
            recorder.wait_for_writes()
            if self.source.is_search:
                return
            tested_epoch = patience.last
            if patience.best != patience.last:
                gather(task, engine, [0.0])  # the first worker has written what all read
                if (best := records.state(patience.best)) is not None:
                    engine.load_state(best)
                    tested_epoch = patience.best
            result, predictions = self.test(run, task, engine, watchdog.heartbeat)
        except DivergedError as error:
            recorder.wait_for_writes()
            healthy = records.resume_point().epoch
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
            if self.assignment.data.has_many_splits:
                predictions = {}  # of other images than other seeds'
            records.finish(result | ending, predictions, task.inputs)

    def test(
        self, run: Run, task: Task, engine: Any, heartbeat: Callable[[], None]
    ) -> tuple[Record, dict[str, np.ndarray]]:
        """Evaluate a trained model on the test images and measure what it costs to run; each worker does its part.

        The model is evaluated in float32, as it is saved.

        Returns:
            Of rank 0, the result as it is kept, and each test image's predicted class, int64 [n], with its confidence,
            float32 [n].
        """
        device_memory = engine.device_memory_peak()
        reached = self.measured(("matrix product", task.recipe.precision), engine.matmul_flops)
        if task.recipe.precision != "float32":
            task, state = task.in_float32(), engine.state()
            engine = self.runtime.engine(task)
            engine.load_state(state)
        final = final_test(task, self.dataset, engine, heartbeat)
        held = (
            corruption_robustness(task, self.dataset, engine, final.predicted, heartbeat)
            if self.assignment.corruption_robustness
            else None
        )
        speed: InferenceSpeed | None = None
        forward_flops: float | None = None
        if self.rank == 0:
            speed = self.measured(
                ("inference speed", run.arm), lambda: inference_speed(task, engine, self.dataset.test_images)
            )
            forward_flops = self.measured(("forward pass", run.arm), engine.forward_flops)
        rates, peaks = gather(task, engine, [math.nan if reached is None else reached, device_memory]).T
        return {
            "test_loss": final.evaluation.loss,
            "test_accuracy": final.evaluation.accuracy,
            "confusion": final.evaluation.confusion.tolist(),
            "test_images": len(self.dataset.test_labels),
            "test_seconds": final.seconds,
            "corruption_robustness": held,
            "parameters": engine.parameter_count(),
            "forward_flops": forward_flops,
            "latency_seconds": speed.seconds if speed else None,
            "predictions_per_second": speed.images_per_second if speed else None,
            "matmul_flops": float(rates.sum()) if np.isfinite(rates).all() else None,
            "device_memory_peak_bytes": int(peaks.max()) or None,
        }, {"predicted": final.predicted, "confidences": final.confidences.astype("float32")}

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
