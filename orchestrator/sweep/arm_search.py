"""One arm's search on Ray Tune, and the warm slots that train its trials."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from orchestrator.experiment.sweep import TRIAL_SEED, Pbt, Sweep
from orchestrator.planning.preflight import Prepared
from orchestrator.planning.run_plan import short_hash, workers_identity
from orchestrator.store.trial_records import SearchHistory, SearchRecords, TrialRecord
from orchestrator.sweep.broker import Broker
from orchestrator.sweep.worker_slots import SweepError, WorkerSlots

if TYPE_CHECKING:
    from orchestrator.sweep.searcher import ArmSearcher

_ON_THE_HEAD = {"node:__internal_head__": 0.001}
"""Where the driver runs; Ray Tune's processes share its scratch directory."""

_TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def directory(prepared: Prepared, arm: str) -> str:
    """Name of the directory of an arm's search: the same for everything that decides its trials."""
    experiment = prepared.experiment
    sweep = _sweep(prepared)
    identity = {
        "data": prepared.data_fingerprint,
        "framework": experiment.recipe_arms[arm].framework,
        "recipe": experiment.recipe_arms[arm].recipe().model_dump(mode="json"),
        "scale": workers_identity(experiment.scale),
        "sweep": sweep.model_dump(mode="json", exclude={"budget", "arms", "log_to", "start_from"}),
        "space": {name: parameter.model_dump() for name, parameter in sweep.space_of(arm).items()},
    }
    return f"{arm}-{short_hash(identity)}"


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
    history: SearchHistory,
    known: list[TrialRecord],
    watch: Callable[[ArmSearcher], None],
) -> None:
    """Search one arm's space until its budget is spent, on the Ray cluster this process is connected to.

    As many trials run at a time as the cluster holds; when it grows, more do.

    Args:
        prepared: the experiment, with a sweep.
        arm: its name.
        driver_session: from `driver.begin`.
        module_path: directory that users' own models are imported from.
        history: what earlier starts of the driver logged.
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
    from orchestrator.sweep.schedulers import (
        EveryStep,
        PopulationRecorder,
        StopWhen,
        TuneSearcher,
        make_loggers,
        make_scheduler,
    )
    from orchestrator.sweep.searcher import ArmSearcher, Spending
    from orchestrator.sweep.trial import Search, Trial

    sweep, experiment = _sweep(prepared), prepared.experiment
    records = records_of(prepared, arm)
    budget = sweep.budget_of(arm)
    spending = Spending(budget, history, experiment.scale.price_per_hour)
    records.begin()
    population = sweep.scheduler if isinstance(sweep.scheduler, Pbt) else None
    search = Search(
        arm=arm,
        framework=experiment.recipe_arms[arm].framework,
        recipe=experiment.recipe_arms[arm].recipe(),
        seed=TRIAL_SEED + sweep.seed,
        storage_url=records.storage.url,
        replays_epochs=population is None,
    )
    broker: Any = (
        ray.remote(Broker)
        .options(num_cpus=0, max_concurrency=1000, resources=_ON_THE_HEAD)
        .remote(slice_epochs=population and population.interval)
    )
    searcher = ArmSearcher(
        sweep,
        search,
        sweep.space_of(arm),
        records=records,
        history=history,
        known=known,
        spending=spending,
        release=broker.release.remote,
    )
    group = WorkerSlots(prepared, broker, search, driver_session, module_path, at_most=budget.trials)

    def tend() -> None:
        group.tend()
        if not population:
            searcher.at_once = group.count
        records.flush_sometimes()
        watch(searcher)

    with tempfile.TemporaryDirectory() as scratch:
        storage = records.storage.at("logs").url if sweep.log_to else scratch
        recorded = {trial.number: trial for trial in history.trials}
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(Trial, search=search, broker=broker, recorded=recorded),
                {"cpu": 0, **_ON_THE_HEAD},
            ),
            param_space={"trial": tune.grid_search(searcher.population())} if population else None,
            tune_config=tune.TuneConfig(
                search_alg=None if population else TuneSearcher(searcher),
                scheduler=make_scheduler(sweep, search.recipe, sweep.space_of(arm)),
                num_samples=1 if population else -1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=driver_session,
                storage_path=storage,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=experiment.scale.retries),
                stop=StopWhen(lambda: group.failure is not None or searcher.is_over),
                callbacks=[
                    EveryStep(tend),
                    *([PopulationRecorder(searcher)] if population else []),
                    *make_loggers(sweep, f"{experiment.name}-{arm}"),
                ],
            ),
        )
        try:
            tend()
            tuner.fit()
        finally:
            searcher.close()
        group.close()  # after an error or an interrupt the slots end with Ray
    if group.failure is not None:
        raise group.failure
    if searcher.same_failure is not None:
        raise SweepError(
            f"sweep: the first trials of arm {arm} all failed in the same way, so it was stopped: "
            f"{searcher.same_failure}"
        )
    records.finish(budget)
