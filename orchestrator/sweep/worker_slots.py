"""The driver's side of the slots: warm groups of workers, as many as the cluster holds."""

from __future__ import annotations

import math
import time
import uuid
from concurrent import futures
from typing import TYPE_CHECKING, Any

from orchestrator.execution import driver
from orchestrator.execution.assignment import Assignment, Failure
from orchestrator.execution.workers import worker_group
from orchestrator.planning.preflight import Prepared
from orchestrator.store.storage import StorageError
from orchestrator.sweep.trial_source import TrialSource
from trainers.errors import TandemError

if TYPE_CHECKING:
    from orchestrator.sweep.trial import Search

_LOSSES_IN_A_ROW = 3
_WATCH_SECONDS = 0.5
_GROW_SECONDS = 5
_CLOSE_SECONDS = 5


class SweepError(TandemError):
    """A sweep that cannot go on."""


class WorkerSlots:
    """Groups of workers that train what the broker hands them, started again when they are lost."""

    def __init__(
        self,
        prepared: Prepared,
        broker: Any,
        search: Search,
        driver_session: str,
        module_path: str,
        *,
        at_most: int | None,
    ) -> None:
        self._prepared = prepared
        self._broker = broker
        self._search = search
        self._driver_session = driver_session
        self._module_path = module_path
        self._at_most = at_most
        self._slots: dict[futures.Future[Exception | None], str] = {}
        self._tended_at = self._grown_at = -math.inf
        self._idle_losses = 0
        self.failure: TandemError | None = None
        """Why the search cannot go on."""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._slots)

    def _grow(self) -> None:
        """Ask an autoscaling cluster for what the sweep can use, and Ray for workers where there is room."""
        scale = self._prepared.experiment.scale
        fit = driver.runs_that_fit(scale)
        usable = scale.concurrent_runs or self._at_most or fit
        driver.ask_for_room(scale, runs=usable)
        for place in range(self.count, min(fit, usable)):
            self._launch(str(place))

    def _launch(self, place: str) -> None:
        name = f"{place}-{uuid.uuid4().hex[:6]}"
        assignment = Assignment(
            name=name,
            framework=self._search.framework,
            runs=TrialSource(self._broker, name),
            scale=self._prepared.experiment.scale,
            data=self._prepared.experiment.data,
            data_fingerprint=self._prepared.data_fingerprint,
            storage_url=self._search.storage_url,
            driver_session=self._driver_session,
            launched_at=time.time(),
            module_path=self._module_path,
        )
        self._slots[worker_group.launch(assignment)] = name

    def tend(self) -> None:
        """Start again what was lost, a run of theirs being tried again or given up."""
        if time.monotonic() - self._tended_at < _WATCH_SECONDS or self.failure is not None:
            return
        self._tended_at = time.monotonic()
        if self._tended_at - self._grown_at > _GROW_SECONDS:
            self._grown_at = self._tended_at
            self._grow()
        for ended in [each for each in self._slots if each.done()]:
            name = self._slots.pop(ended)
            error = worker_group.outcome(ended)
            unasked = Failure("lost", "the workers ended without being told to")
            self._replace(name, worker_group.diagnose(error) if error else unasked)

    def _replace(self, name: str, failure: Failure) -> None:
        import ray

        if failure.kind == "storage":
            self.failure = StorageError(failure.cause)
            return
        retries = self._prepared.experiment.scale.retries if failure.kind == "lost" else None
        told = {"failure": failure.cause, "diverged": failure.kind == "diverged"}
        had_run = ray.get(self._broker.lose.remote(name, told, retries=retries))
        self._idle_losses = 0 if had_run else self._idle_losses + 1
        if self._idle_losses >= _LOSSES_IN_A_ROW:
            self.failure = SweepError(f"sweep: workers cannot be started: {failure.cause}")
            return
        self._launch(name.partition("-")[0])

    def close(self) -> None:
        """End the slots: idle ones end by themselves, those amid an epoch lose their resources."""
        import ray
        from ray.util import remove_placement_group

        driver.ask_for_room(self._prepared.experiment.scale, runs=0)
        placement_groups = ray.get(self._broker.close.remote())
        _, training_still = futures.wait(self._slots, timeout=_CLOSE_SECONDS)
        for ended in training_still:
            name = self._slots[ended]
            if name in placement_groups:  # else its workers are not up yet, and end when they are
                remove_placement_group(placement_groups[name])
        self._slots.clear()
        ray.kill(self._broker)
