"""Ray Tune's parts by the names of the experiment file: schedulers, mutations, callbacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune import schedulers

from orchestrator.records import Record
from orchestrator.sweep.spec import OBJECTIVES, Asha, Hyperband, Median, Parameter, Pbt, Space, Sweep
from trainers.recipes import Recipe


def make_scheduler(sweep: Sweep, recipe: Recipe, space: Space) -> schedulers.TrialScheduler:
    """The scheduler that a sweep names, with time counted in epochs."""
    goal = sweep.objective[0]
    common: dict[str, Any] = {"time_attr": "epoch", "metric": goal, "mode": OBJECTIVES[goal]}
    match sweep.scheduler:
        case Asha() as asha:
            return schedulers.ASHAScheduler(
                **common,
                max_t=max(longest_trial(recipe, space), asha.grace_epochs),
                grace_period=asha.grace_epochs,
                reduction_factor=asha.reduction_factor,
            )
        case Hyperband() as hyperband:
            return schedulers.HyperBandForBOHB(
                **common,
                max_t=longest_trial(recipe, space),
                reduction_factor=hyperband.reduction_factor,
            )
        case Median() as median:
            return schedulers.MedianStoppingRule(
                **common, grace_period=median.grace_epochs, min_samples_required=median.min_trials
            )
        case Pbt() as pbt:
            return schedulers.PopulationBasedTraining(
                **common,
                perturbation_interval=pbt.interval,
                quantile_fraction=pbt.quantile,
                hyperparam_mutations={
                    "params": {name: _mutation(parameter) for name, parameter in space.items()}
                },
            )
    return schedulers.FIFOScheduler()  # type: ignore[no-untyped-call]


def longest_trial(recipe: Recipe, space: Space) -> int:
    """The most epochs that a trial may train for."""
    epochs = space.get("epochs")
    if epochs is None:
        return recipe.epochs
    return max(int(value) for value in (epochs.choice or epochs.bounds))


def _mutation(parameter: Parameter) -> Any:
    if parameter.choice is not None:
        return list(parameter.choice)
    low, high = parameter.bounds
    if parameter.integer is not None:
        return tune.randint(int(low), int(high) + 1)
    return tune.loguniform(low, high) if parameter.loguniform is not None else tune.uniform(low, high)


class _LeftOutOfTunesState:
    """Ray Tune pickles its parts to restore them; tandem starts again from its own log."""

    def __getstate__(self) -> Record:
        return {}


class StopWhen(_LeftOutOfTunesState, tune.Stopper):
    """Ends the whole search once something says so."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        self._is_over = is_over

    def __call__(self, trial_id: str, result: Record) -> bool:
        """Ray Tune's question about one trial."""
        return False

    def stop_all(self) -> bool:
        """Ray Tune's question about the search."""
        return self._is_over()


class EveryStep(_LeftOutOfTunesState, tune.Callback):
    """Things to do at every turn of Ray Tune's own loop."""

    def __init__(self, *things: Callable[[], None]) -> None:
        self._things = things

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called by Ray Tune."""
        for do in self._things:
            do()
