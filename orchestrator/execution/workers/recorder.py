"""What follows the steps and epochs of a run: checkpoints, records, signs of life."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from orchestrator.execution.monitoring.resource_usage import Meter
from orchestrator.execution.monitoring.watchdog import Watchdog
from orchestrator.store.records import RunRecords
from orchestrator.store.storage import Record
from trainers.contract import EpochMetrics, State, Task
from trainers.early_stopping import Patience
from trainers.loop import DivergedError, Hooks, gather

_PARTIAL_SECONDS = 120
_PREEMPTION_CHECK_SECONDS = 2


class Recorder:
    """Hooks of one run. The first worker writes, in a thread, while all go on with the next epoch."""

    def __init__(
        self,
        records: RunRecords,
        engine: Any,
        watchdog: Watchdog,
        *,
        task: Task,
        meter: Meter,
        started: float,
        expects_preemption: bool,
        goes_on: Callable[[EpochMetrics], bool],
        patience: Patience,
    ) -> None:
        self._records = records
        self._engine = engine
        self._task = task
        self._meter = meter
        meter.read()  # what came before is not this run's
        self._writes = task.rank == 0
        self._started = started
        self._expects_preemption = expects_preemption
        self._goes_on = goes_on
        self._patience = patience
        self._saved_for_preemption = False
        self._asked_at = self._kept_at = time.monotonic()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="records")
        self._writing: Future[None] | None = None
        self.hooks = Hooks(
            after_epoch=self._after_epoch,
            after_steps=self._after_steps,
            heartbeat=watchdog.heartbeat,
        )

    def _after_epoch(self, metrics: EpochMetrics) -> bool:
        peaks, joules, others = gather(self._task, self._engine, list(self._meter.read())).T
        best = self._patience.see(metrics.epoch, metrics.validation_accuracy, metrics.validation_loss)
        if self._writes:
            self._keep_epoch(
                metrics,
                best,
                memory_peak_bytes=peaks.max(),
                energy_joules=joules.sum(),
                others_share=others.max(),
            )
        return self._goes_on(metrics) and not self._patience.is_over

    def _keep_epoch(self, metrics: EpochMetrics, best: int, **used: float) -> None:
        start = time.perf_counter()
        self.wait_for_writes()
        state = self._healthy_state(f"epoch {metrics.epoch}")
        extra: Record = {
            "seconds_since_start": time.time() - self._started,
            "checkpoint_seconds": time.perf_counter() - start,
        } | {name: float(value) if np.isfinite(value) else None for name, value in used.items()}
        self._writing = self._thread.submit(self._records.add_epoch, metrics, state, extra, best=best)
        self._kept_at = time.monotonic()

    def _after_steps(self, epoch: int, step: int) -> None:
        due = time.monotonic() - self._kept_at > _PARTIAL_SECONDS
        if self._expects_preemption and self._is_preempted() and not self._saved_for_preemption:
            self._saved_for_preemption = due = True
        if due and self._writes:
            self.wait_for_writes()
            state = self._healthy_state(f"step {step} of epoch {epoch}")
            self._writing = self._thread.submit(self._records.keep_partial, epoch, step, state)
            self._kept_at = time.monotonic()
            if self._saved_for_preemption:
                self.wait_for_writes()

    def _is_preempted(self) -> bool:
        """Whether a worker's node is about to go. All workers ask at the same steps, as Ray needs."""
        import ray.train

        waited = self._engine.all_reduce(np.array([time.monotonic() - self._asked_at]))
        if waited[0] < _PREEMPTION_CHECK_SECONDS * self._task.world_size:
            return False
        self._asked_at = time.monotonic()
        return ray.train.get_preemption_info() is not None

    def _healthy_state(self, when: str) -> State:
        state: State = self._engine.state()
        for name, value in state.items():
            if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
                raise DivergedError(f"weights became NaN by {when} ({name}); lower optimizer.learning_rate")
        return state

    def wait_for_writes(self) -> None:
        """Wait until what was to be written is.

        Raises:
            StorageError: it could not be.
        """
        if self._writing is not None:
            self._writing.result()
            self._writing = None
