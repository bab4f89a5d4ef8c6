"""Progress of a search: a table of the arms on a terminal, a line for each ended trial on a pipe."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from orchestrator.execution.monitoring.progress import LiveTable, clock
from orchestrator.planning.preflight import Prepared
from orchestrator.store.trial_records import TrialRecord, best_trial

if TYPE_CHECKING:
    from orchestrator.sweep.searcher import ArmSearcher

_REDRAW_SECONDS = 0.5


class SweepProgress(LiveTable):
    """Shows for each arm its best trial and how many trials run, ended, were stopped early or failed."""

    def __init__(self, prepared: Prepared, console: Console) -> None:
        super().__init__(console)
        assert prepared.experiment.sweep is not None
        self._sweep = prepared.experiment.sweep
        self._arms = list(prepared.experiment.arms)
        self._rows: dict[str, list[str]] = {}
        self._refreshed_at = 0.0

    def refresh(self, arm: str, searcher: ArmSearcher) -> None:
        """Show the state of one arm's search."""
        for trial in searcher.take_ended():
            self.say(f"{arm} trial {trial.number}: {self._ending(trial)}; {trial.describe()}")
        if not self.is_drawn or time.monotonic() - self._refreshed_at < _REDRAW_SECONDS:
            return
        self._refreshed_at = time.monotonic()
        self._rows[arm] = self._row(arm, searcher)
        goal = self._sweep.objective[0].title
        table = Table("arm", f"best {goal}", "running", "done", "stopped", "failed", "left", box=None)
        for name in self._arms:
            table.add_row(*self._rows.get(name, [name, "", "", "", "", "", "waiting"]))
        self.redraw(table)

    def _row(self, arm: str, searcher: ArmSearcher) -> list[str]:
        trials = list(searcher.trials.values())
        states = Counter(trial.state for trial in trials)
        best = best_trial(trials, self._sweep)
        left = searcher.spending.seconds_left
        return [
            arm,
            "" if best is None else f"{best.value(self._sweep.objective[0]):.4g} ({best.describe()})",
            str(states[None]),
            str(states["done"]),
            str(states["stopped"]),
            str(states["failed"] + states["diverged"]),
            "" if left is None else clock(left),
        ]

    def _ending(self, trial: TrialRecord) -> str:
        if trial.state in ("failed", "diverged"):
            return f"{trial.state}, {trial.cause}"
        values = [
            f"{goal.title} {value:.4g}"
            for goal in self._sweep.objective
            if (value := trial.value(goal)) is not None
        ]
        epochs = f"{len(trial.epochs)} epoch{'s' if len(trial.epochs) != 1 else ''}"
        return f"{trial.state} after {epochs}, {', '.join(values) or 'no metrics'}"
