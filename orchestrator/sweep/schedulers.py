"""Ray Tune's parts by the names of the experiment file: schedulers, mutations, callbacks."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune import logger, schedulers
from ray.tune.search import Searcher

from orchestrator.experiment.sweep import Asha, Hyperband, Median, Parameter, Pbt, Space, Sweep
from orchestrator.store.storage import Record
from orchestrator.sweep.searcher import ArmSearcher
from trainers.recipes import Recipe


def make_scheduler(sweep: Sweep, recipe: Recipe, space: Space) -> schedulers.TrialScheduler:
    """The scheduler that a sweep names, with time counted in epochs."""
    goal = sweep.objective[0]
    common: dict[str, Any] = {"time_attr": "epoch", "metric": goal.name, "mode": goal.mode}
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
            random.seed(sweep.seed)  # Ray Tune draws the better trial from the global generator
            return schedulers.PopulationBasedTraining(
                **common,
                perturbation_interval=pbt.interval,
                synch=True,
                quantile_fraction=pbt.quantile,
                custom_explore_fn=Explorer(space, seed=sweep.seed),
            )
    return schedulers.FIFOScheduler()  # type: ignore[no-untyped-call]


def longest_trial(recipe: Recipe, space: Space) -> int:
    """The most epochs that a trial may train for."""
    epochs = space.get("epochs")
    if epochs is None:
        return recipe.epochs
    return max(int(value) for value in (epochs.choice or epochs.bounds))


def make_loggers(sweep: Sweep, name: str) -> list[tune.Callback]:
    """Ray Tune's own loggers, by the names of the experiment file.

    Args:
        sweep: from the experiment.
        name: of MLflow's experiment.
    """
    loggers: list[tune.Callback] = []
    if "tensorboard" in sweep.log_to:
        loggers.append(logger.TBXLoggerCallback())  # type: ignore[no-untyped-call]
    if "mlflow" in sweep.log_to:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        loggers.append(MLflowLoggerCallback(experiment_name=name))
    return loggers


class Explorer:
    """How population based training changes the parameters that a trial takes over; it stays within the space."""

    _FACTORS = (0.8, 1.2)
    _RESAMPLED = 0.25

    def __init__(self, space: Space, *, seed: int) -> None:
        self._space = space
        self._rng = random.Random(seed)

    def __call__(self, config: Record) -> Record:
        """Called by Ray Tune with a copy of the better trial's config."""
        params = {
            name: self.explored(self._space[name], value) for name, value in config["trial"]["params"].items()
        }
        return config | {"trial": config["trial"] | {"params": params}}

    def explored(self, parameter: Parameter, value: Any) -> Any:
        """A value near a good one, or now and then any other."""
        if self._rng.random() < self._RESAMPLED:
            return self._drawn(parameter)
        factor = self._rng.choice(self._FACTORS)
        if parameter.choice is not None:
            values = parameter.choice
            place = min(range(len(values)), key=lambda index: (values[index] != value, index))
            place += 1 if factor > 1 else -1
            return values[min(max(place, 0), len(values) - 1)]
        if parameter.is_finite:
            onward = [other for other in parameter.values if (other > value if factor > 1 else other < value)]
            return min(onward, key=lambda other: abs(other - value * factor), default=value)
        low, high = parameter.bounds
        return min(max(value * factor, low), high)

    def _drawn(self, parameter: Parameter) -> Any:
        if parameter.is_finite and not parameter.log:
            return self._rng.choice(parameter.values)
        low, high = parameter.bounds
        if parameter.loguniform is None and not parameter.log:
            return self._rng.uniform(low, high)
        drawn = math.exp(self._rng.uniform(math.log(low), math.log(high)))
        return round(drawn) if parameter.log else drawn


class _LeftOutOfTunesState:
    """Ray Tune pickles its parts to restore them; tandem starts again from its own log."""

    def __getstate__(self) -> Record:
        return {}


class TuneSearcher(_LeftOutOfTunesState, Searcher):
    """Ray Tune's side of an arm's searcher."""

    def __init__(self, arm: ArmSearcher) -> None:
        super().__init__()
        self._arm = arm

    def suggest(self, trial_id: str) -> Any:
        """The next trial's config, None while enough are under way, FINISHED at the end."""
        suggested = self._arm.suggest(trial_id)
        return {"trial": suggested} if isinstance(suggested, dict) else suggested

    def on_trial_result(self, trial_id: str, result: Record) -> None:
        """Called by Ray Tune after an epoch."""
        self._arm.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: Record | None = None, error: bool = False) -> None:
        """Called by Ray Tune at a trial's end."""
        self._arm.on_trial_complete(trial_id, result, error)

    def on_pause(self, trial_id: str) -> None:
        """Called by HyperBand."""
        self._arm.on_pause(trial_id)

    def on_unpause(self, trial_id: str) -> None:
        """Called by HyperBand."""
        self._arm.on_unpause(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Ray Tune's own state is not used: a later driver reads the log."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""


class PopulationRecorder(_LeftOutOfTunesState, tune.Callback):
    """Records the trials of population based training, which Ray Tune allows no searcher."""

    def __init__(self, arm: ArmSearcher) -> None:
        self._arm = arm
        self._keys: dict[str, str] = {}

    def _key(self, trial: Any) -> str:
        """A trial's own number; its config has that of the trial whose weights it took over last."""
        return self._keys.setdefault(trial.trial_id, str(trial.config["trial"]["number"]))

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Ray Tune before anything is taken over."""
        self._key(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: Record, **info: Any
    ) -> None:
        """Called by Ray Tune after an epoch."""
        self._arm.on_trial_result(self._key(trial), result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Ray Tune at a trial's end."""
        self._arm.on_trial_complete(self._key(trial), trial.last_result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Ray Tune when a trial's process fails for good."""
        self._arm.on_trial_complete(self._key(trial), error=True)


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
