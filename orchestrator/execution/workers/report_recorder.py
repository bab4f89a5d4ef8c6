"""Records of a training function's run, written while it trains: by Ray Train's controller and the first worker.

Imported only where Ray Train is.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import time
from typing import Any

from ray.train import UserCallback

from orchestrator.execution.monitoring import environment
from orchestrator.store.records import ExperimentRecords, RunRecords
from orchestrator.store.storage import Record, Storage, StorageError
from trainers.machine import preset
from trainers.ray_train.train_loop import Start, path_below


@dataclasses.dataclass(frozen=True)
class AttemptRecorder:
    """Notes when the function is called and when it returns."""

    storage_url: str
    run_id: str
    driver_session: str
    launched_at: float
    """When the driver asked for the workers, in seconds since the epoch."""

    def _records(self) -> RunRecords:
        return ExperimentRecords(Storage(self.storage_url)).run(self.run_id)

    def start(self, start: Start) -> None:
        """Called by the first worker before the function."""
        self._records().add_attempt(
            {
                "driver_session": self.driver_session,
                "started_at": time.time(),
                "workers": start.workers,
                "checkpoint": start.checkpoint,
                "environment": environment.describe() | {"settings": preset.observed()},
                "startup": {
                    "workers_seconds": start.entered_at - self.launched_at,
                    "import_seconds": start.import_seconds,
                },
            }
        )

    def end(self) -> None:
        """Called by the first worker when the function has returned."""
        self._records().note_return(time.time())


class ReportRecorder(UserCallback):
    """Records each report as it happens. Ray's own result leaves out metrics that come without a checkpoint."""

    def __init__(self, storage_url: str, run_id: str, *, launched_at: float) -> None:
        """Record the reports of one `fit()`.

        Args:
            storage_url: of the experiment.
            run_id: of the run.
            launched_at: when the driver asked for the workers, in seconds since the epoch.
        """
        self._storage_url = storage_url
        self._run_id = run_id
        self._launched_at = launched_at
        self._attempts = 0
        self._next = 0
        self._unwritten: list[Record] = []

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Called by Ray Train's controller when all workers have reported."""
        known, not_finite = scalars(metrics[0])
        others = {name for of_rank in metrics[1:] for name in scalars(of_rank)[0]}
        self._unwritten.append(
            {
                "seconds": time.time() - self._launched_at,
                "reported_at": time.time(),
                "metrics": known,
                "not_finite": not_finite,
                "other_ranks": sorted(others - known.keys()),
                "checkpoint": None if checkpoint is None else path_below(self._run_id, checkpoint.path),
            }
        )
        try:
            self._write()
        except StorageError:  # an error here would start the workers again; the next report tries once more
            return

    def _write(self) -> None:
        records = ExperimentRecords(Storage(self._storage_url)).run(self._run_id)
        attempts = records.attempts()
        if len(attempts) != self._attempts:
            self._attempts = len(attempts)
            self._next = _after(records, attempts[-1]["checkpoint"])
        numbered = [
            {"report": self._next + place, "attempt": self._attempts} | record
            for place, record in enumerate(self._unwritten)
        ]
        records.add_reports(numbered)
        self._next += len(numbered)
        self._unwritten.clear()


def _after(records: RunRecords, checkpoint: str | None) -> int:
    """The number of the first report of workers that start from a checkpoint."""
    numbers = [
        record["report"] for record in records.reports() if checkpoint and record["checkpoint"] == checkpoint
    ]
    return numbers[-1] + 1 if numbers else 0


def scalars(metrics: dict[str, Any]) -> tuple[dict[str, float | None], dict[str, str]]:
    """The numbers among what a worker reported; None for one that is not finite, with what it is beside."""
    known: dict[str, float | None] = {}
    not_finite: dict[str, str] = {}
    for name, value in metrics.items():
        number = _number(value)
        if number is None:
            continue
        known[str(name)] = number if math.isfinite(number) else None
        if not math.isfinite(number):
            not_finite[str(name)] = str(number)
    return known, not_finite


def _number(value: Any) -> float | None:
    """A number, or the one element of an array; None for anything else."""
    if not isinstance(value, numbers.Real) and getattr(value, "shape", None) in ((), (1,)):
        value = value.item()
    return float(value) if isinstance(value, numbers.Real) else None
