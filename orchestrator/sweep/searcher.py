"""An arm's trials: Optuna suggests them, the log records them. `tune.py` connects this to Ray Tune.

Recorded trials come first, in their old order and with their old parameters. A driver that starts again so
brings the sampler and the scheduler to the state in which the last one left them.
"""

from __future__ import annotations

import itertools
import json
import time
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import optuna
from optuna.trial import TrialState

from orchestrator.analysis.sweeps import cause_kind
from orchestrator.experiment import search_space as spaces
from orchestrator.experiment.search_space import allows, propose, recipe_with
from orchestrator.experiment.sweep import Budget, Params, Space, Sweep
from orchestrator.store.storage import Record
from orchestrator.store.trial_records import SearchHistory, SearchRecords, TrialRecord, busy_seconds
from orchestrator.sweep.studies import fixed, make_sampler, make_study, tell
from orchestrator.sweep.trial import Search

_REJECTIONS = 200
_SAME_FAILURES = 3
_KEEP_STATES_SECONDS = 5

FINISHED: Literal["FINISHED"] = "FINISHED"
"""What Ray Tune's searchers return when there are no more trials."""


class Spending:
    """What an arm's search has spent, against its budget."""

    def __init__(self, budget: Budget, history: SearchHistory, price_per_hour: float | None) -> None:
        self._budget = budget
        self._price_per_hour = price_per_hour
        self._earlier_seconds = history.seconds
        self._began = time.monotonic()
        self.trials = 0
        self.epochs = 0
        self.busy_seconds = 0.0

    def count(self, metrics: Record) -> None:
        """Count an epoch."""
        self.epochs += 1
        self.busy_seconds += busy_seconds(metrics)

    @property
    def seconds(self) -> float:
        """Wall time over all starts of the driver."""
        return self._earlier_seconds + time.monotonic() - self._began

    @property
    def seconds_left(self) -> float | None:
        """A guess from the share of the budget that is spent; None before anything was."""
        budget, now = self._budget, time.monotonic() - self._began
        shares = [
            spent / limit
            for spent, limit in (
                (self.trials - 1, budget.trials),
                (self.epochs, budget.epochs),
                (self.seconds / 60, budget.minutes),
            )
            if limit and spent > 0
        ]
        return now / max(shares) - now if shares else None

    @property
    def is_over(self) -> bool:
        """Whether nothing more may be trained."""
        budget = self._budget
        return bool(
            (budget.epochs and self.epochs >= budget.epochs)
            or (budget.minutes and self.seconds >= budget.minutes * 60)
            or (
                budget.cost
                and self._price_per_hour
                and self.busy_seconds / 3600 * self._price_per_hour >= budget.cost
            )
        )

    @property
    def allows_another_trial(self) -> bool:
        """Whether one more trial may begin."""
        return not self.is_over and (self._budget.trials is None or self.trials < self._budget.trials)


class ArmSearcher:
    """Suggests an arm's trials and records their results; Ray Tune's id of a trial is its key."""

    def __init__(
        self,
        sweep: Sweep,
        search: Search,
        space: Space,
        *,
        records: SearchRecords,
        history: SearchHistory,
        known: list[TrialRecord],
        spending: Spending,
        release: Callable[[str], None],
    ) -> None:
        """Set up.

        Args:
            sweep: from the experiment.
            search: what the arm's trials share.
            space: of the arm.
            records: where to log to.
            history: what earlier starts of the driver logged.
            known: finished trials of an earlier sweep, for the sampler only.
            spending: kept up to date.
            release: called with the run of a trial that pauses or ends.
        """
        self._sweep = sweep
        self._search = search
        self._space = space
        self._records = records
        self.at_once = 1
        """Trials that may be under way at a time."""
        self._release = release
        self.spending = spending
        self._old = {trial.number: trial for trial in history.trials}
        self._replay = deque(history.trials)
        grid = filter(self._fits, spaces.grid(search.recipe, space)) if sweep.search == "grid" else ()
        self._given = itertools.chain(sweep.points, grid)
        self._study = make_study(sweep, search.arm)
        for trial in known:
            self._add_known(trial)
        self._asked: dict[str, optuna.Trial] = {}
        self.trials: dict[str, TrialRecord] = {}
        """By Tune's id."""
        self._paused: set[str] = set()
        self._next_number = 0
        self._ended: deque[tuple[float, str]] = deque()
        self._untold: list[TrialRecord] = []
        self._first_failures: list[str] | None = []
        self.same_failure: str | None = None
        """Why the sweep was stopped: its first trials all failed in this way."""

    def _add_known(self, trial: TrialRecord) -> None:
        params = {name: value for name, value in trial.params.items() if name in self._space}
        if params:
            self._study.enqueue_trial(fixed(params))
            told = self._study.ask()
            propose(told, self._search.recipe, self._space)
            tell(self._study, told, trial, self._sweep)

    def suggest(self, trial_id: str) -> Any:
        """The next trial's config, None while enough are under way, FINISHED at the end."""
        if self.same_failure or not self.spending.allows_another_trial:
            return FINISHED
        if len(self._asked) - len(self._paused) >= self.at_once:
            return None
        number = self._next_number
        recorded = self._replay.popleft() if self._replay else None
        asked, params = self._ask(number, recorded)
        if params is None:
            return FINISHED
        self._next_number = number + 1
        self.spending.trials += 1
        run = self._search.run(number, params)
        self._asked[trial_id] = asked
        self.trials[trial_id] = TrialRecord(number=number, params=params, run=run.id)
        if recorded is None:
            self._records.start(number, run.id, params)
        return {"number": number, "params": params}

    def population(self) -> list[Record]:
        """The configs of all trials of the budget, each suggested under its number as a trial's id."""
        self.at_once = self._sweep.budget_of(self._search.arm).trials or 1
        configs: list[Record] = []
        while (config := self.suggest(str(len(configs)))) != FINISHED:
            configs.append(config)
        return configs

    def _ask(self, number: int, recorded: TrialRecord | None) -> tuple[Any, Params | None]:
        """A trial of the study, and its parameters unless the space is used up."""
        seed = _mixed(self._sweep.seed, number)
        self._study.sampler = make_sampler(self._sweep.search, seed)
        for attempt in range(_REJECTIONS):
            given = next(self._given, None)
            if recorded is not None:
                given = recorded.params
            if given is not None:
                self._study.enqueue_trial(fixed(given))
            elif self._sweep.search == "grid":
                break
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                asked = self._study.ask()
                params = propose(asked, self._search.recipe, self._space)
            if recorded is not None:
                return asked, recorded.params
            if self._fits(params):
                return asked, params
            self._study.tell(asked, state=TrialState.FAIL)
            if attempt == _REJECTIONS // 2:
                self._study.sampler = make_sampler("random", seed)
        return None, None

    def _fits(self, params: Params) -> bool:
        try:
            return allows(self._sweep.constraints, recipe_with(self._search.recipe, params))
        except ValueError:
            return False

    def on_trial_result(self, trial_id: str, result: Record) -> None:
        """Log an epoch."""
        trial = self.trials[trial_id]
        if "epoch" not in result:
            return
        metrics = {
            name: value for name, value in result.items() if name in _METRICS and value is not None
        } | {"epoch": result["epoch"]}
        if result["run"] != trial.run:
            change = json.loads(result["change"])
            trial.run, trial.params = result["run"], change["params"]
            del trial.epochs[change["epoch"] :]
            self._records.change(trial.number, trial.run, **change)
        if result["epoch"] <= len(trial.epochs):
            return  # told again by a trial whose process was lost
        is_new = not self._is_replayed(trial, result)
        trial.epochs.append(metrics | {"time": time.time()})
        self.spending.count(metrics)
        if is_new:
            self._records.epoch(trial.number, trial.run, metrics)

    def _is_replayed(self, trial: TrialRecord, result: Record) -> bool:
        old = self._old.get(trial.number)
        return old is not None and old.run == result["run"] and result["epoch"] <= len(old.epochs)

    def on_trial_complete(self, trial_id: str, result: Record | None = None, error: bool = False) -> None:
        """Log a trial's end and tell the sampler."""
        trial, asked = self.trials[trial_id], self._asked.pop(trial_id)
        self._paused.discard(trial_id)
        result = result or {}
        self.on_trial_result(trial_id, result)
        trial.state = "failed" if error else result.get("end", "stopped")
        trial.cause = result.get("cause") or ("Ray Tune could not run the trial's process" if error else None)
        old = self._old.get(trial.number)
        if old is None or old.state is None:
            self._records.end(trial.number, trial.state, trial.cause)
        self._untold.append(trial)
        tell(self._study, asked, trial, self._sweep)
        self._release(trial.run)
        self._drop_states(trial)
        self._give_up_if_all_fail(trial)

    def take_ended(self) -> list[TrialRecord]:
        """The trials that ended since the last time this was asked."""
        ended, self._untold = self._untold, []
        return ended

    def _drop_states(self, trial: TrialRecord) -> None:
        """Delete the checkpoints of trials that ended a while ago, when their slot is done writing."""
        self._ended.append((time.monotonic(), trial.run))
        while self._ended and time.monotonic() - self._ended[0][0] > _KEEP_STATES_SECONDS:
            self._search.records(self._ended.popleft()[1]).drop_states()

    def _give_up_if_all_fail(self, trial: TrialRecord) -> None:
        """Count the first trials' failures for as long as all of them fail, and in the same way."""
        if self._first_failures is None:
            return
        if trial.state == "failed" and trial.cause is not None:
            self._first_failures.append(trial.cause)
        kinds = {cause_kind(cause) for cause in self._first_failures}
        if trial.state != "failed" or len(kinds) > 1:
            self._first_failures = None
        elif len(self._first_failures) >= _SAME_FAILURES:
            self.same_failure = self._first_failures[0]

    @property
    def is_over(self) -> bool:
        """Whether even what is under way should end."""
        return self.same_failure is not None or self.spending.is_over

    def close(self) -> None:
        """At the end of the search: write what is not written, delete what is not needed."""
        if self.is_over:
            for trial_id in list(self._asked):
                self.on_trial_complete(trial_id)
        self._records.flush()
        while self._ended:
            self._search.records(self._ended.popleft()[1]).drop_states()

    def on_pause(self, trial_id: str) -> None:
        """HyperBand pauses a trial: its slot is free."""
        self._paused.add(trial_id)
        self._release(self.trials[trial_id].run)

    def on_unpause(self, trial_id: str) -> None:
        """HyperBand goes on with a trial."""
        self._paused.discard(trial_id)


_METRICS = (
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "validation_balanced_accuracy",
    "images_per_second",
    "data_seconds",
    "step_seconds",
    "evaluation_seconds",
    "slot",
)


def _mixed(seed: int, number: int) -> int:
    """A seed for each trial, so that a sampler goes on the same after a new start."""
    return (seed * 1_000_003 + number) % 2**31
