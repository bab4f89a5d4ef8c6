"""A whole sweep: every arm's search, then the winners as an experiment of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.execution import driver
from orchestrator.experiment.search_space import recipe_with
from orchestrator.experiment.spec import Arm
from orchestrator.experiment.sweep import Sweep
from orchestrator.planning import run_plan
from orchestrator.planning.preflight import Prepared
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Record, Storage
from orchestrator.store.trial_records import SearchRecords, TrialRecord, best_trial
from orchestrator.sweep.arm_search import directory, records_of, search_arm
from trainers.errors import InputError

if TYPE_CHECKING:
    from orchestrator.sweep.searcher import ArmSearcher


def begin(prepared: Prepared, *, module_path: Path, command: list[str]) -> str:
    """Write what the sweep is and that a driver starts; returns the name of this start."""
    without_runs = dataclasses.replace(prepared, runs=[])
    provenance = _provenance(prepared, {})
    return driver.begin(without_runs, module_path=module_path, command=command, sweep=provenance)


def search(
    prepared: Prepared,
    driver_session: str,
    *,
    module_path: Path,
    watch: Callable[[str, ArmSearcher], None],
) -> Prepared:
    """Search every arm that is not searched yet, one after another; returns the winners, to be trained.

    Each arm has the whole cluster to itself, so that wall time is the same budget for all.

    Args:
        prepared: an experiment with a sweep.
        driver_session: from `begin`.
        module_path: directory that users' own models are imported from.
        watch: called with the arm about twice a second.

    Raises:
        SweepError: an arm's trials all fail, or workers keep being lost.
    """
    sweep = prepared.experiment.sweep
    assert sweep is not None
    if "mlflow" in sweep.log_to and find_spec("mlflow") is None:
        raise InputError("sweep.log_to: mlflow is not installed here; pip install mlflow")
    driver.cluster_capacity(prepared.experiment.scale)
    known = {arm: _known_trials(sweep, arm) for arm in prepared.experiment.arms}
    for arm in prepared.experiment.arms:
        history = records_of(prepared, arm).history()
        if history.finished == sweep.budget_of(arm).model_dump():
            continue
        search_arm(
            prepared,
            arm,
            driver_session=driver_session,
            module_path=str(module_path),
            history=history,
            known=known[arm],
            watch=lambda searcher, arm=arm: watch(arm, searcher),  # type: ignore[misc]
        )
    return winners(prepared, module_path=module_path)


def winners(prepared: Prepared, *, module_path: Path) -> Prepared:
    """The experiment with each arm's recipe replaced by the best that was found, ready to be trained.

    Raises:
        InputError: an arm has no trial that finished an epoch.
    """
    sweep = prepared.experiment.sweep
    assert sweep is not None
    chosen: dict[str, TrialRecord] = {}
    for arm in prepared.experiment.arms:
        best = best_trial(records_of(prepared, arm).history().trials, sweep)
        if best is None:
            raise InputError(f"sweep: no trial of arm {arm} finished an epoch; raise sweep.budget")
        chosen[arm] = best
    arms = {name: _won(arm, chosen[name]) for name, arm in prepared.experiment.recipe_arms.items()}
    experiment = prepared.experiment.model_copy(update={"arms": arms})
    won = dataclasses.replace(
        prepared, experiment=experiment, runs=run_plan.expand(experiment, prepared.data_fingerprint)
    )
    driver.describe(won, module_path=module_path, sweep=_provenance(prepared, chosen))
    return won


def _won(arm: Arm, trial: TrialRecord) -> Arm:
    recipe = recipe_with(arm.recipe(), trial.params)
    return Arm.model_validate({"framework": arm.framework, "seeds": arm.seeds} | recipe.model_dump())


def _provenance(prepared: Prepared, chosen: dict[str, TrialRecord]) -> Record:
    return {
        "experiment": prepared.experiment.model_dump(mode="json"),
        "searches": {arm: directory(prepared, arm) for arm in prepared.experiment.arms},
        "winners": {arm: {"trial": trial.number, "params": trial.params} for arm, trial in chosen.items()},
    }


def _known_trials(sweep: Sweep, arm: str) -> list[TrialRecord]:
    if sweep.start_from is None:
        return []
    storage = Storage(sweep.start_from)
    earlier = ExperimentRecords(storage).document().get("sweep") or {"searches": {}}
    if arm not in earlier["searches"]:
        raise InputError(f"sweep.start_from: {sweep.start_from} holds no search of an arm called {arm}")
    history = SearchRecords(storage.at("sweep", earlier["searches"][arm])).history()
    return [trial for trial in history.trials if trial.state is not None]
