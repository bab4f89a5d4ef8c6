"""The live table of a command that trains: every run's epoch, accuracy, speed and time left."""

from __future__ import annotations

import datetime
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from orchestrator.execution.driver import Prepared
from orchestrator.planning.run_plan import Run
from orchestrator.store.records import RunRecords
from orchestrator.store.storage import Record
from orchestrator.store.trial_records import TrialRecord, best_trial

if TYPE_CHECKING:
    from orchestrator.sweep.searcher import ArmSearcher

_REDRAW_SECONDS = 0.5


def open_console(file: TextIO, *, width: int | None = None) -> Console:
    """A console that shows words as they are: what files, classes and errors are called may look like markup."""
    return Console(file=file, width=width, markup=False, emoji=False, highlight=False)


class _Live:
    """A table on a terminal, plain lines on a pipe."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the table until the block ends; on a plain pipe, a line for each finished epoch."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False) as self._live:
            yield

    def _say(self, line: str) -> None:
        """Without a terminal, print a line."""
        if self._live is None:
            self._console.print(line, soft_wrap=True)

    def _redraw(self, table: Table) -> None:
        if self._live is not None:
            self._live.update(table, refresh=True)


class Progress(_Live):
    """Reads the records of runs that are not done and redraws the table."""

    def __init__(self, prepared: Prepared, console: Console) -> None:
        super().__init__(console)
        self._prepared = prepared
        self._done: dict[str, Record] = {}
        self._announced: dict[str, int] = {}
        self._began_at = time.time()
        self._failures_told: Counter[str] = Counter()

    def refresh(self) -> None:
        """Read what is new and show it."""
        table = Table("run", "epoch", "validation", "train", "images/s", "left", box=None)
        for run in self._prepared.runs:
            records = self._prepared.records.run(run.id)
            moves = run.id not in self._done
            if moves and (result := records.result()):
                self._done[run.id] = result
            epochs = records.epochs() if moves else []
            self._announce(run, epochs)
            if run.id not in self._done:
                self._tell_failures(run, records)
            table.add_row(*self._row(run, records, epochs))
        self._redraw(table)

    def _announce(self, run: Run, epochs: list[Record]) -> None:
        """Without a terminal, say each epoch once."""
        for record in epochs[self._announced.get(run.id, 0) :]:
            self._say(
                f"{run.arm} seed {run.seed}: epoch {record['epoch']}/{run.recipe.epochs}, "
                f"{_accuracy(record)}, {record['images_per_second']:,.0f} images/s"
            )
        self._announced[run.id] = max(self._announced.get(run.id, 0), len(epochs))

    def _tell_failures(self, run: Run, records: RunRecords) -> None:
        """Say once what went wrong since this command began, on a terminal above the table."""
        failures = [failure for failure in records.failures() if failure["failed_at"] > self._began_at]
        for failure in failures[self._failures_told[run.id] :]:
            outcome = "given up" if failure["given_up"] else "tried again"
            line = f"{run.arm} seed {run.seed} failed: {failure['cause']}; {outcome}"
            self._console.print(line, soft_wrap=True)
        self._failures_told[run.id] = len(failures)

    def _row(self, run: Run, records: RunRecords, epochs: list[Record]) -> list[str]:
        name = f"{run.arm} seed {run.seed}"
        if result := self._done.get(run.id):
            accuracy = f"test {result['test_accuracy']:.2%}"
            return [name, f"{self._announced[run.id]}/{run.recipe.epochs}", accuracy, "", "", "done"]
        if not epochs:
            state = "starting" if records.attempts() else "waiting"
            return [name, f"0/{run.recipe.epochs}", "", "", "", state]
        last = epochs[-1]
        validation = last["validation_accuracy"]
        attempt = (records.attempts() or [{"started_at": time.time(), "first_epoch": 1}])[-1]
        trained = last["epoch"] - attempt["first_epoch"] + 1
        seconds = (time.time() - attempt["started_at"]) / max(trained, 1)
        left = seconds * (run.recipe.epochs - last["epoch"])
        return [
            name,
            f"{last['epoch']}/{run.recipe.epochs}",
            "" if validation is None else f"{validation:.2%}",
            f"{last['train_accuracy']:.2%}",
            f"{last['images_per_second']:,.0f}",
            _clock(left),
        ]


class SweepProgress(_Live):
    """Each arm's search: best so far, how many trials run, ended, were stopped early or failed."""

    def __init__(self, prepared: Prepared, console: Console) -> None:
        super().__init__(console)
        assert prepared.experiment.sweep is not None
        self._sweep = prepared.experiment.sweep
        self._arms = list(prepared.experiment.arms)
        self._rows: dict[str, list[str]] = {}
        self._refreshed_at = 0.0

    def refresh(self, arm: str, searcher: ArmSearcher) -> None:
        """Show what one arm's search has come to."""
        for trial in searcher.take_ended():
            self._say(f"{arm} trial {trial.number}: {self._ending(trial)}; {trial.describe()}")
        if self._live is None or time.monotonic() - self._refreshed_at < _REDRAW_SECONDS:
            return
        self._refreshed_at = time.monotonic()
        self._rows[arm] = self._row(arm, searcher)
        goal = self._sweep.objective[0].replace("_", " ")
        table = Table("arm", f"best {goal}", "running", "done", "stopped", "failed", "left", box=None)
        for name in self._arms:
            table.add_row(*self._rows.get(name, [name, "", "", "", "", "", "waiting"]))
        self._redraw(table)

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
            "" if left is None else _clock(left),
        ]

    def _ending(self, trial: TrialRecord) -> str:
        if trial.state in ("failed", "diverged"):
            return f"{trial.state}, {trial.cause}"
        values = [
            f"{goal.replace('_', ' ')} {value:.4g}"
            for goal in self._sweep.objective
            if (value := trial.value(goal)) is not None
        ]
        epochs = f"{len(trial.epochs)} epoch{'s' if len(trial.epochs) != 1 else ''}"
        return f"{trial.state} after {epochs}, {', '.join(values) or 'nothing measured'}"


def _accuracy(record: Record) -> str:
    if record["validation_accuracy"] is None:
        return f"training accuracy {record['train_accuracy']:.2%}"
    return f"validation accuracy {record['validation_accuracy']:.2%}"


def _clock(seconds: float) -> str:
    """`0:03:20`"""
    return str(datetime.timedelta(seconds=round(seconds)))
