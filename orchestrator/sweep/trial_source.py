"""A lane's side of the desk: how a warm group of workers gets runs and reports their epochs."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import traceback
from collections.abc import Iterator
from typing import Any

from orchestrator.planning.run_plan import Run
from orchestrator.store.records import RunRecords
from orchestrator.store.storage import Record, StorageError
from trainers.contract import EpochMetrics
from trainers.errors import one_line
from trainers.loop import DivergedError


class Lane:
    """One worker's view of the desk. All workers of a group call the same methods in the same order."""

    def __init__(self, desk: Any, name: str, *, rank: int) -> None:
        from ray.util import get_current_placement_group

        self._desk = desk
        self._name = name
        self._leads = rank == 0
        if self._leads:
            desk.arrive.remote(name, get_current_placement_group())

    def next_run(self) -> Run | None:
        """Wait for a run to train; None when there will be none."""
        import ray
        from ray.train.collective import broadcast_from_rank_zero

        told = ray.get(self._desk.next_run.remote(self._name)) if self._leads else None
        run_id = broadcast_from_rank_zero(told)
        run: Run | None = None if run_id is None else ray.get(self._desk.run.remote(run_id))
        return run

    def is_wanted(self, run: Run, records: RunRecords, *, done: int) -> bool:
        """Report the epochs that the records hold of a run; whether more than those done are wanted."""
        import ray

        if self._leads and (epochs := records.epochs()):
            ray.get(self._desk.report.remote(run.id, epochs))
        return not done or bool(ray.get(self._desk.wants.remote(run.id, done)))

    def goes_on(self, run: Run, metrics: EpochMetrics) -> bool:
        """Report an epoch and wait to hear whether another is wanted."""
        import ray

        if self._leads:
            self._desk.report.remote(run.id, [dataclasses.asdict(metrics)])
        return bool(ray.get(self._desk.goes_on.remote(run.id, metrics.epoch)))

    @contextlib.contextmanager
    def on(self, run: Run, records: RunRecords, *, alone: bool) -> Iterator[None]:
        """Leave the run at the end of the block.

        A worker that is alone reports an error as the run's and goes on with the next one. Several
        may be left waiting for each other, so the whole group ends and the driver starts another.
        """
        import ray

        failure: Record | None = None
        try:
            yield
        except StorageError:
            raise
        except Exception as error:
            if not alone:
                raise
            failure = describe(error)
            records.add_failure(
                {"failed_at": time.time(), "cause": failure["failure"], "detail": traceback.format_exc()}
            )
        if self._leads:
            ray.get(self._desk.leave.remote(run.id, failure))


def describe(error: Exception) -> Record:
    """An error as the desk hands it to the trial."""
    return {"failure": one_line(error), "diverged": isinstance(error, DivergedError)}
