"""A worker slot's side of the trial broker: how warm workers get runs and report their epochs."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import traceback
from collections.abc import Iterator
from typing import Any

from orchestrator.execution.run_source import OpenRunSource
from orchestrator.planning.run_plan import Run
from orchestrator.store.records import ExperimentRecords, RunRecords
from orchestrator.store.storage import Record, StorageError
from trainers.contract import EpochMetrics
from trainers.errors import one_line
from trainers.loop import DivergedError


@dataclasses.dataclass(frozen=True)
class TrialSource:
    """The source of a worker slot: the broker's actor, and the slot's name there."""

    broker: Any
    slot: str

    def open(self, records: ExperimentRecords, *, rank: int, world_size: int) -> OpenRunSource:
        """Called once on each worker; says to the broker that the workers are up."""
        from ray.util import get_current_placement_group

        if rank == 0:
            self.broker.arrive.remote(self.slot, get_current_placement_group())
        return _OpenTrialSource(self.broker, self.slot, leads=rank == 0, alone=world_size == 1)


class _OpenTrialSource:
    is_search = True

    def __init__(self, broker: Any, slot: str, *, leads: bool, alone: bool) -> None:
        self._broker = broker
        self._name = slot
        self._leads = leads
        self._alone = alone

    def next_run(self) -> Run | None:
        """Wait for a run to train; None when there will be none."""
        import ray
        from ray.train.collective import broadcast_from_rank_zero

        told = ray.get(self._broker.next_run.remote(self._name)) if self._leads else None
        run_id = broadcast_from_rank_zero(told)
        run: Run | None = None if run_id is None else ray.get(self._broker.run.remote(run_id))
        return run

    def is_wanted(self, run: Run, records: RunRecords, *, done: int) -> bool:
        """Report the epochs that the records hold of a run; whether more than those done are wanted."""
        import ray

        if self._leads and (epochs := records.epochs()):
            ray.get(self._broker.report.remote(run.id, epochs))
        return not done or bool(ray.get(self._broker.wants.remote(run.id, done)))

    def goes_on(self, run: Run, metrics: EpochMetrics) -> bool:
        """Report an epoch and wait to hear whether another is wanted."""
        import ray

        if self._leads:
            self._broker.report.remote(run.id, [dataclasses.asdict(metrics)])
        return bool(ray.get(self._broker.goes_on.remote(run.id, metrics.epoch)))

    @contextlib.contextmanager
    def attempt(self, run: Run, records: RunRecords) -> Iterator[None]:
        """Leave the run at the end of the block.

        A single worker records an error as the run's and goes on with the next run. Of several workers some may
        wait for each other, so the whole group ends and the driver starts another.
        """
        import ray

        failure: Record | None = None
        try:
            yield
        except StorageError:
            raise
        except Exception as error:
            if not self._alone:
                raise
            failure = describe(error)
            records.add_failure(
                {"failed_at": time.time(), "cause": failure["failure"], "detail": traceback.format_exc()}
            )
        if self._leads:
            ray.get(self._broker.leave.remote(run.id, failure))


def describe(error: Exception) -> Record:
    """An error as the broker hands it to the trial."""
    return {"failure": one_line(error), "diverged": isinstance(error, DivergedError)}
