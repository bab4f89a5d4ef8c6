"""Everything that is Optuna's: samplers by name, studies, and trials in its terms."""

from __future__ import annotations

import datetime
import math
import warnings
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from orchestrator.analysis.sweeps import summarise
from orchestrator.experiment.search_space import label
from orchestrator.experiment.sweep import Parameter, Params, Space, Sweep
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.trial_records import TrialRecord
from trainers.errors import InputError

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

optuna.logging.set_verbosity(optuna.logging.ERROR)

_STARTUP_TRIALS = 10


def make_sampler(search: str, seed: int) -> BaseSampler:
    """Optuna's sampler of a name."""
    samplers = optuna.samplers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match search:
            case "grid" | "random":
                return samplers.RandomSampler(seed=seed)
            case "cmaes":
                return samplers.CmaEsSampler(seed=seed, n_startup_trials=_STARTUP_TRIALS)
            case "nsga2":
                return samplers.NSGAIISampler(seed=seed)
        return samplers.TPESampler(
            seed=seed, n_startup_trials=_STARTUP_TRIALS, multivariate=True, group=True, constant_liar=True
        )


def make_study(sweep: Sweep, name: str, storage: Any = None) -> optuna.Study:
    """An empty Optuna study of a sweep's objectives."""
    return optuna.create_study(
        study_name=name,
        storage=storage,
        directions=[objective.goal for objective in sweep.objective],
    )


def values_of(trial: TrialRecord, sweep: Sweep) -> list[float] | None:
    """A trial's objectives; a diverged trial has the worst there are, a failed one none."""
    if trial.state == "diverged":
        return [objective.worst for objective in sweep.objective]
    values = [trial.value(goal) for goal in sweep.objective]
    if trial.state == "failed" or any(value is None for value in values):
        return None
    return [
        objective.worst if value is None or not math.isfinite(value) else value
        for objective, value in zip(sweep.objective, values, strict=True)
    ]


def tell(study: optuna.Study, told: optuna.Trial, trial: TrialRecord, sweep: Sweep) -> None:
    """Tell a study how a trial ended."""
    values = values_of(trial, sweep)
    if values is None:
        study.tell(told, state=TrialState.FAIL)
    elif trial.state == "stopped" and len(sweep.objective) == 1:
        for epoch in trial.epochs:
            told.report(float(epoch.get(sweep.objective[0].name, values[0])), epoch["epoch"])
        study.tell(told, state=TrialState.PRUNED)
    else:
        study.tell(told, values)


def fixed(params: Params) -> dict[str, Any]:
    """Parameters as Optuna is told them."""
    return {name: label(value) for name, value in params.items()}


def study_of(
    trials: list[TrialRecord],
    sweep: Sweep,
    arm: str,
    *,
    storage: Any = None,
    name: str | None = None,
    complete_stopped: bool = False,
) -> optuna.Study:
    """A study that holds one arm's trials as they ended.

    Args:
        trials: those without an end are left out.
        sweep: from the experiment.
        arm: whose space it was.
        storage: Optuna's storage or its URL, as its dashboard opens; None keeps the study in memory.
        name: of the study, the arm's unless given.
        complete_stopped: call stopped trials complete, with their last values, as pictures need.
    """
    study = make_study(sweep, name or arm, storage)
    space = sweep.space_of(arm)
    frozen = [_frozen(trial, sweep, space) for trial in trials if trial.state is not None]
    if complete_stopped:
        for trial in frozen:
            trial.state = TrialState.COMPLETE if trial.state == TrialState.PRUNED else trial.state
    study.add_trials(frozen)
    return study


def export(records: ExperimentRecords, url: str) -> list[str]:
    """Write each arm's trials into an Optuna storage; returns the names of the studies.

    Raises:
        InputError: there is no sweep, the storage cannot be opened or has such a study already.
    """
    document = records.document()
    summary = summarise(records, document)
    if summary is None:
        raise InputError(f"{records.storage.url} holds no sweep that can be read; tandem sweep makes one")
    names = []
    for search in summary.arms:
        name = f"{document['experiment']['name']}-{search.arm}"
        try:
            study_of(search.history.trials, summary.sweep, search.arm, storage=url, name=name)
        except optuna.exceptions.DuplicatedStudyError:
            raise InputError(f"{url} has a study called {name} already; give another storage") from None
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{url!r} cannot be opened as an Optuna storage: {reason}") from error
        names.append(name)
    return names


def _frozen(trial: TrialRecord, sweep: Sweep, space: Space) -> FrozenTrial:
    params = {name: value for name, value in trial.params.items() if name in space}
    times = [datetime.datetime.fromtimestamp(epoch["time"]) for epoch in trial.epochs]
    values = values_of(trial, sweep)
    state = TrialState.COMPLETE if values is not None else TrialState.FAIL
    if trial.state == "stopped" and values is not None and len(sweep.objective) == 1:
        state = TrialState.PRUNED
    goal = sweep.objective[0]
    frozen = optuna.trial.create_trial(
        state=state,
        values=values,
        params=fixed(params),
        distributions={name: _distribution(space[name]) for name in params},
        intermediate_values={
            epoch["epoch"]: epoch[goal.name] for epoch in trial.epochs if goal.name in epoch
        },
        user_attrs={"run": trial.run, "number": trial.number},
    )
    if times:
        frozen.datetime_start, frozen.datetime_complete = times[0], times[-1]
    return frozen


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.choice is not None:
        return CategoricalDistribution([label(value) for value in parameter.choice])
    low, high = parameter.bounds
    if parameter.integer is not None:
        return IntDistribution(int(low), int(high), log=parameter.log, step=int(parameter.step or 1))
    return FloatDistribution(low, high, log=parameter.loguniform is not None, step=parameter.step)
