"""Where a group of workers gets its runs from: a protocol, and the runs that were planned for the group.

A sweep has a source of its own, whose runs come from trials: `orchestrator/sweep/trial_source.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from contextlib import AbstractContextManager
from typing import Protocol

from orchestrator.planning.run_plan import Run
from orchestrator.store.records import ExperimentRecords, RunRecords
from trainers.contract import EpochMetrics


class OpenRunSource(Protocol):
    """One worker's end of a source. All workers of a group call the same methods in the same order."""

    is_search: bool
    """Whether a scheduler ends the runs: they are then neither stopped early nor tested, and engines are reused."""

    def next_run(self) -> Run | None:
        """Wait for a run to train, the same on every worker; None when there will be none."""

    def attempt(self, run: Run, records: RunRecords) -> AbstractContextManager[None]:
        """Surround the training of a run; may record an error of the run and suppress it."""

    def is_wanted(self, run: Run, records: RunRecords, *, done: int) -> bool:
        """Whether more epochs than those done are wanted."""

    def goes_on(self, run: Run, metrics: EpochMetrics) -> bool:
        """Whether another epoch is wanted after this one."""


class RunSource(Protocol):
    """A source as it is sent to the workers of a group."""

    def open(self, records: ExperimentRecords, *, rank: int, world_size: int) -> OpenRunSource:
        """Called once on each worker."""


@dataclasses.dataclass(frozen=True)
class PlannedRuns:
    """Runs in their order; each is trained unless its records say that it is done or failed permanently."""

    runs: tuple[Run, ...]
    driver_session: str

    def open(self, records: ExperimentRecords, *, rank: int, world_size: int) -> OpenRunSource:
        """Called once on each worker."""
        return _OpenPlannedRuns(self, records, rank=rank)


class _OpenPlannedRuns:
    is_search = False

    def __init__(self, planned: PlannedRuns, records: ExperimentRecords, *, rank: int) -> None:
        self._planned = planned
        self._records = records
        self._leads = rank == 0

    def next_run(self) -> Run | None:
        from ray.train.collective import broadcast_from_rank_zero

        runs, session = self._planned.runs, self._planned.driver_session
        open_runs = (run.id for run in runs if self._records.run(run.id).is_open(session))
        run_id = broadcast_from_rank_zero(next(open_runs, None) if self._leads else None)
        return next((run for run in runs if run.id == run_id), None)

    def attempt(self, run: Run, records: RunRecords) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def is_wanted(self, run: Run, records: RunRecords, *, done: int) -> bool:
        return True

    def goes_on(self, run: Run, metrics: EpochMetrics) -> bool:
        return True
