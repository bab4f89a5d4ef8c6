"""One arm's search on Ray Tune, and the warm lanes that train its trials."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from orchestrator import training
from orchestrator.driver import Prepared
from orchestrator.plan import Session
from orchestrator.records import StorageError
from orchestrator.sweep.desk import Desk
from orchestrator.sweep.records import SearchRecords, TrialRecord
from orchestrator.sweep.spec import TRIAL_SEED, Pbt, Sweep
from trainers.errors import TandemError

if TYPE_CHECKING:
    from orchestrator.sweep.searcher import ArmSearcher
    from orchestrator.sweep.trial import Search

_ON_THE_HEAD = {"node:__internal_head__": 0.001}
"""Where the driver runs; Ray Tune's processes share its scratch directory."""

_LANE_LOSSES_IN_A_ROW = 3
_WATCH_SECONDS = 0.5
_CLOSE_SECONDS = 20
_TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


class SweepError(TandemError):
    """A sweep that cannot go on."""


def directory(prepared: Prepared, arm: str) -> str:
    """Name of the directory of an arm's search: the same for everything that decides its trials."""
    experiment = prepared.experiment
    sweep = _sweep(prepared)
    identity = {
        "data": prepared.dataset.fingerprint,
        "framework": experiment.arms[arm].framework,
        "recipe": experiment.arms[arm].recipe().model_dump(mode="json"),
        "scale": experiment.scale.model_dump(include={"workers", "cpus_per_worker", "gpus_per_worker"}),
        "sweep": sweep.model_dump(mode="json", exclude={"budget", "arms", "log_to", "start_from"}),
        "space": {name: parameter.model_dump() for name, parameter in sweep.space_of(arm).items()},
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    return f"{arm}-{digest}"


def records_of(prepared: Prepared, arm: str) -> SearchRecords:
    """Where an arm's search is logged."""
    return SearchRecords(prepared.records.storage.at("sweep", directory(prepared, arm)))


def _sweep(prepared: Prepared) -> Sweep:
    assert prepared.experiment.sweep is not None
    return prepared.experiment.sweep


def search_arm(
    prepared: Prepared,
    arm: str,
    *,
    driver_session: str,
    module_path: str,
    lanes: int,
    known: list[TrialRecord],
    watch: Callable[[ArmSearcher], None],
) -> None:
    """Search one arm's space until its budget is spent, on the Ray cluster this process is connected to.

    Args:
        prepared: the experiment, with a sweep.
        arm: its name.
        driver_session: from `driver.begin`.
        module_path: directory that users' own models are imported from.
        lanes: trials that are trained at a time.
        known: finished trials of an earlier sweep.
        watch: called about twice a second, to show progress.

    Raises:
        SweepError: the first trials all failed in the same way, or workers keep being lost.
        StorageError: the storage failed.
    """
    import ray
    from ray import tune

    for name, value in _TUNE_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from orchestrator.sweep.searcher import ArmSearcher, Spending
    from orchestrator.sweep.trial import Search, Trial
    from orchestrator.sweep.tune import EveryStep, StopWhen, make_loggers, make_scheduler

    sweep, experiment = _sweep(prepared), prepared.experiment
    records = records_of(prepared, arm)
    history = records.history()
    price = experiment.scale.price_per_worker_hour
    price_of_trial = None if price is None else price * experiment.scale.max_workers
    spending = Spending(sweep.budget_of(arm), history, price_of_trial)
    records.begin(price_of_trial)
    is_population = isinstance(sweep.scheduler, Pbt)
    search = Search(
        arm=arm,
        framework=experiment.arms[arm].framework,
        recipe=experiment.arms[arm].recipe(),
        seed=TRIAL_SEED + sweep.seed,
        storage_url=records.storage.url,
        replays_epochs=not is_population,
    )
    slice_epochs = sweep.scheduler.interval if isinstance(sweep.scheduler, Pbt) else None
    desk: Any = (
        ray.remote(Desk)
        .options(num_cpus=0, max_concurrency=1000, resources=_ON_THE_HEAD)
        .remote(slice_epochs=slice_epochs)
    )
    budget = sweep.budget_of(arm)
    searcher = ArmSearcher(
        sweep,
        search,
        sweep.space_of(arm),
        records=records,
        history=history,
        known=known,
        spending=spending,
        at_once=(budget.trials or lanes) if is_population else lanes,
        release=desk.release.remote,
    )
    group = _Lanes(prepared, desk, search, driver_session, module_path, lanes)
    with tempfile.TemporaryDirectory() as scratch:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(
                    Trial, search=search, desk=desk, recorded={t.number: t for t in history.trials}
                ),
                {"cpu": 0, **_ON_THE_HEAD},
            ),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=make_scheduler(sweep, search.recipe, sweep.space_of(arm)),
                num_samples=-1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=driver_session,
                storage_path=records.storage.at("logs").url if sweep.log_to else scratch,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=experiment.scale.retries),
                stop=StopWhen(lambda: group.failure is not None or searcher.is_over),
                callbacks=[
                    EveryStep(group.tend, records.flush_sometimes, lambda: watch(searcher)),
                    *make_loggers(sweep, f"{experiment.name}-{arm}"),
                ],
            ),
        )
        try:
            group.start()
            tuner.fit()
        finally:
            searcher.close()
            group.close()
    if group.failure is not None:
        raise group.failure
    if searcher.same_failure is not None:
        raise SweepError(
            f"sweep: the first trials of arm {arm} all failed in the same way, so it was stopped: "
            f"{searcher.same_failure}"
        )
    records.finish(budget)


class _Lanes:
    """Groups of workers that train what the desk hands them, started again when they are lost."""

    def __init__(
        self,
        prepared: Prepared,
        desk: Any,
        search: Search,
        driver_session: str,
        module_path: str,
        count: int,
    ) -> None:
        self._prepared = prepared
        self._desk = desk
        self._search = search
        self._driver_session = driver_session
        self._module_path = module_path
        self._count = count
        self._lanes: dict[Any, str] = {}
        self._tended_at = 0.0
        self._idle_losses = 0
        self.failure: TandemError | None = None
        """Why the search cannot go on."""

    def start(self) -> None:
        """Ask Ray for every lane's workers."""
        for number in range(self._count):
            self._launch(f"{number}")

    def _launch(self, place: str) -> None:
        import ray

        fit = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(training.fit)
        name = f"{place}-{uuid.uuid4().hex[:6]}"
        assignment = training.Assignment(
            session=Session(framework=self._search.framework, runs=()),
            scale=self._prepared.experiment.scale,
            data=self._prepared.experiment.data,
            data_fingerprint=self._prepared.dataset.fingerprint,
            storage_url=self._search.storage_url,
            driver_session=self._driver_session,
            launched_at=time.time(),
            module_path=self._module_path,
            desk=self._desk,
            lane=name,
        )
        self._lanes[fit.remote(assignment)] = name

    def tend(self) -> None:
        """Start again what was lost, a run of theirs being tried again or given up."""
        import ray

        if time.monotonic() - self._tended_at < _WATCH_SECONDS or self.failure is not None:
            return
        self._tended_at = time.monotonic()
        ended, _ = ray.wait(list(self._lanes), num_returns=len(self._lanes), timeout=0)
        for reference in ended:
            name = self._lanes.pop(reference)
            try:
                failure = ray.get(reference)
            except ray.exceptions.RayError as error:
                failure = training.Failure("lost", "the process leading the workers died", str(error))
            if failure is None:
                failure = training.Failure("lost", "the workers ended without being told to")
            self._replace(name, failure)

    def _replace(self, name: str, failure: training.Failure) -> None:
        import ray

        if failure.kind == "storage":
            self.failure = StorageError(failure.cause)
            return
        retries = self._prepared.experiment.scale.retries if failure.kind == "lost" else None
        told = {"failure": failure.cause, "diverged": failure.kind == "diverged"}
        had_run = ray.get(self._desk.lose.remote(name, told, retries=retries))
        self._idle_losses = 0 if had_run else self._idle_losses + 1
        if self._idle_losses >= _LANE_LOSSES_IN_A_ROW:
            self.failure = SweepError(f"sweep: workers cannot be started: {failure.cause}")
            return
        self._launch(name.partition("-")[0])

    def close(self) -> None:
        """Send the workers home, and end those that do not go."""
        import ray

        self._desk.close.remote()
        _, staying = ray.wait(list(self._lanes), num_returns=len(self._lanes), timeout=_CLOSE_SECONDS)
        for reference in staying:
            ray.cancel(reference, force=True)
        ray.kill(self._desk)
