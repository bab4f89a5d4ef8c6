"""The broker between trials and workers: a Ray actor that warm groups of workers ask for the next run.

Ray Tune decides about trials, one process each; slots, which are groups of Ray Train workers, train
them one after another. A trial asks the broker for the outcome of an epoch, which puts its run into
the queue; a slot takes the run, reports each epoch and waits to hear whether another is wanted.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from typing import Any

from orchestrator.planning.run_plan import Run
from orchestrator.store.storage import Record


@dataclasses.dataclass
class _Job:
    """A run as the broker knows it."""

    run: Run
    results: dict[int, Record] = dataclasses.field(default_factory=dict)
    wanted: int = 0
    """The latest epoch that its trial has asked for."""
    released: bool = False
    """Whether its slot is to leave it after the epoch under way."""
    slot: str | None = None
    failure: Record | None = None
    losses: int = 0
    """How often its workers were lost."""


class Broker:
    """Made a Ray actor by the driver; every method is a coroutine of one process."""

    def __init__(self, *, slice_epochs: int | None) -> None:
        """Open the broker.

        Args:
            slice_epochs: after so many epochs a slot leaves a run for another that waits; None: never.
        """
        self._slice_epochs = slice_epochs
        self._jobs: dict[str, _Job] = {}
        self._waiting: deque[str] = deque()
        self._numbers: dict[str, int] = {}
        self._placement_groups: dict[str, Any] = {}
        self._gone: set[str] = set()
        self._closed = False
        self._changed = asyncio.Condition()

    async def number(self, trial_id: str, configured: int) -> int:
        """For a trial: its own number.

        Args:
            trial_id: Ray Tune's.
            configured: in its config, which later is a copy of another trial's under population based training.
        """
        return self._numbers.setdefault(trial_id, configured)

    async def outcome(self, run: Run, epoch: int) -> Record:
        """For a trial: wait for an epoch of its run.

        Returns the epoch's metrics, or `{"failure": ..., "diverged": bool}`.
        """
        async with self._changed:
            job = self._jobs.setdefault(run.id, _Job(run))
            job.wanted = max(job.wanted, epoch)
            job.released = False
            if epoch not in job.results and job.failure is None:
                self._queue(job)
            self._changed.notify_all()
            await self._changed.wait_for(lambda: epoch in job.results or job.failure is not None)
            return job.failure or job.results[epoch]

    async def release(self, run_id: str, epoch: int | None = None) -> None:
        """For the driver and the trial: no more of this run is wanted for now.

        Args:
            run_id: of the run.
            epoch: the latest that the trial had. The trial may go on in another process already, which wants more.
        """
        async with self._changed:
            job = self._jobs.get(run_id)
            if job is not None and (epoch is None or job.wanted <= epoch):
                job.released = True
                if run_id in self._waiting:
                    self._waiting.remove(run_id)
                self._changed.notify_all()

    def _queue(self, job: _Job) -> None:
        if job.slot is None and job.run.id not in self._waiting:
            self._waiting.append(job.run.id)

    async def arrive(self, slot: str, placement_group: Any) -> None:
        """For a slot: its workers are up, on the resources of this placement group."""
        self._placement_groups[slot] = placement_group

    async def next_run(self, slot: str) -> str | None:
        """For a slot: the id of the run to train now, or None when the sweep is over."""
        async with self._changed:
            for job in self._jobs.values():
                if job.slot == slot:  # the group was lost and started again
                    return job.run.id
            await self._changed.wait_for(lambda: self._closed or slot in self._gone or bool(self._waiting))
            if self._closed or slot in self._gone:
                return None
            job = self._jobs[self._waiting.popleft()]
            job.slot = slot
            return job.run.id

    async def run(self, run_id: str) -> Run:
        """For each worker of a slot: what to train."""
        return self._jobs[run_id].run

    async def report(self, run_id: str, epochs: list[Record]) -> None:
        """For a slot: metrics of finished epochs, each with its number under `epoch`."""
        async with self._changed:
            job = self._jobs[run_id]
            for metrics in epochs:
                job.results[metrics["epoch"]] = metrics | {"slot": job.slot}
            self._changed.notify_all()

    async def wants(self, run_id: str, epoch: int) -> bool:
        """For each worker of a slot: wait to hear whether more than so many epochs are wanted."""
        async with self._changed:
            job = self._jobs[run_id]
            await self._changed.wait_for(
                lambda: job.wanted > epoch or job.released or self._closed or epoch >= job.run.recipe.epochs
            )
            return job.wanted > epoch and not job.released and not self._closed

    async def goes_on(self, run_id: str, epoch: int) -> bool:
        """For each worker of a slot, after an epoch: as `wants`, but a slot's time may be over."""
        if not await self.wants(run_id, epoch):
            return False
        its_turn_is_over = self._slice_epochs and epoch % self._slice_epochs == 0
        return not (its_turn_is_over and self._waiting)

    async def leave(self, run_id: str, failure: Record | None) -> None:
        """For a slot: it is no longer on the run, which failed if there is a failure."""
        async with self._changed:
            job = self._jobs[run_id]
            job.slot, job.failure = None, failure
            if failure is None and not job.released and job.wanted not in job.results:
                self._queue(job)
            self._changed.notify_all()

    async def lose(self, slot: str, failure: Record, *, retries: int | None) -> bool:
        """For the driver: a slot ended without being told to; returns whether it had a run.

        The run is queued again unless it was lost more often than `retries`; None: give it up.
        """
        had_run = False
        async with self._changed:
            self._gone.add(slot)
            for job in self._jobs.values():
                if job.slot == slot:
                    had_run = True
                    job.slot = None
                    job.losses += 1
                    if retries is None or job.losses > retries:
                        job.failure = failure
                    elif not job.released and job.wanted not in job.results:
                        self._waiting.appendleft(job.run.id)
            self._changed.notify_all()
        return had_run

    async def close(self) -> dict[str, Any]:
        """For the driver: end the slots; returns the placement group of each that was up."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()
            return self._placement_groups
