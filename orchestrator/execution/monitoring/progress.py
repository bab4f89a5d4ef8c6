"""Progress of runs while they train: a table on a terminal, a line for each epoch on a pipe."""

from __future__ import annotations

import datetime
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from orchestrator.planning.preflight import Prepared
from orchestrator.planning.run_plan import LoopRun, Run
from orchestrator.store.records import RunRecords
from orchestrator.store.storage import Record

_SHOWN_METRICS = 3
_MOST_SILENT_SECONDS = 10.0
"""On a pipe, after which a line says what is waited for."""


class LineConsole(Console):
    """A console that prints text unchanged, and knows when it last printed."""

    def __init__(self, file: TextIO, *, width: int | None = None) -> None:
        super().__init__(file=file, width=width, markup=False, emoji=False, highlight=False)
        self._printed_at = time.monotonic()

    def print(self, *objects: Any, **options: Any) -> None:
        """As `Console.print`."""
        super().print(*objects, **options)
        self._printed_at = time.monotonic()

    @property
    def silent_seconds(self) -> float:
        """Since it last printed."""
        return time.monotonic() - self._printed_at


def open_console(file: TextIO, *, width: int | None = None) -> LineConsole:
    """A console for names of files and classes, which may look like markup."""
    return LineConsole(file, width=width)


def _is_silent(console: Console) -> bool:
    """Whether a pipe had no line for some time."""
    if console.is_terminal or not isinstance(console, LineConsole):
        return False
    return console.silent_seconds > _MOST_SILENT_SECONDS


def clock(seconds: float) -> str:
    """`0:03:20`"""
    return str(datetime.timedelta(seconds=round(seconds)))


@contextmanager
def waiting(console: Console, what: str) -> Iterator[None]:
    """Show what is waited for until the block ends: a spinner on a terminal; on a pipe a line after 10 s of silence."""
    if console.is_terminal:
        with console.status(what):
            yield
        return
    is_over = threading.Event()

    def report() -> None:
        began = time.monotonic()
        while not is_over.wait(min(1.0, _MOST_SILENT_SECONDS)):
            if _is_silent(console):
                console.print(f"{what}: {clock(time.monotonic() - began)}", soft_wrap=True)

    reporter = threading.Thread(target=report, name="waiting", daemon=True)
    reporter.start()
    try:
        yield
    finally:
        is_over.set()
        reporter.join()


class LiveTable:
    """A table that is redrawn in place on a terminal, and plain lines on a pipe."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None

    @property
    def is_drawn(self) -> bool:
        """Whether a table is on the terminal now."""
        return self._live is not None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the table until the block ends."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False) as self._live:
            yield

    def say(self, line: str) -> None:
        """Print a line if there is no table."""
        if self._live is None:
            self._console.print(line, soft_wrap=True)

    def redraw(self, table: Table) -> None:
        """Replace the table, if there is one."""
        if self._live is not None:
            self._live.update(table, refresh=True)


class Progress(LiveTable):
    """Shows each run's epoch, accuracy, speed and time left, from the records."""

    def __init__(self, prepared: Prepared, console: Console) -> None:
        super().__init__(console)
        self._prepared = prepared
        self._done: dict[str, Record] = {}
        # What earlier drivers trained was printed by them.
        self._announced = {run.id: len(prepared.records.run(run.id).epochs()) for run in prepared.runs}
        self._left: dict[str, float] = {}
        """Seconds of each run that trains."""
        self._epoch_seconds: dict[str, float] = {}
        """Of each arm."""
        self._began_at = time.time()
        self._failures_reported: Counter[str] = Counter()
        self._newest: dict[str, Record | None] = {}

    def refresh(self) -> None:
        """Read new records and show them."""
        table = Table("run", "epoch", "validation", "train", "images/s", "left", box=None)
        for run in self._prepared.runs:
            records = self._prepared.records.run(run.id)
            is_open = run.id not in self._done
            if is_open and (result := records.result()):
                self._done[run.id] = result
            epochs = records.epochs() if is_open else []
            self._report_epochs(run, epochs)
            if run.id not in self._done:
                self._report_failures(run, records)
            table.add_row(*self._row(run, records, epochs))
        for loop_run in self._prepared.loop_runs:
            table.add_row(*self._loop_row(loop_run))
        total = self._total_left()
        table.caption = None if total is None else f"about {clock(total)} left in total"
        self.redraw(table)
        if _is_silent(self._console):
            self.say(self._state(total))

    def _state(self, total: float | None) -> str:
        """How many runs are in which state, in a line."""
        runs: list[Run | LoopRun] = [*self._prepared.runs, *self._prepared.loop_runs]
        counts = Counter(map(self._state_of, runs))
        states = ("training", "testing", "starting", "waiting", "done")
        shown = ", ".join(f"{counts[state]} {state}" for state in states if counts[state])
        is_idle = counts["waiting"] and not any(counts[state] for state in states[:3])
        left = "" if total is None else f"; about {clock(total)} left in total"
        return f"{'workers start; ' if is_idle else ''}runs: {shown}{left}"

    def _state_of(self, run: Run | LoopRun) -> str:
        if run.id in self._done:
            return "done"
        if run.id in self._left:
            return "training" if self._left[run.id] else "testing"  # if no epoch is left
        if self._newest.get(run.id):
            return "training"
        return "starting" if self._prepared.records.run(run.id).attempts() else "waiting"

    def _total_left(self) -> float | None:
        """Seconds until all runs have trained; None before an epoch was timed, and for training functions."""
        if not self._epoch_seconds or self._prepared.loop_runs:
            return None
        usual = sum(self._epoch_seconds.values()) / len(self._epoch_seconds)
        ahead = [
            self._epoch_seconds.get(run.arm, usual) * run.recipe.epochs
            for run in self._prepared.runs
            if run.id not in self._done and run.id not in self._left
        ]
        at_once = max(len(self._left), 1)
        return max([*self._left.values(), (sum(ahead) + sum(self._left.values())) / at_once])

    def _loop_row(self, run: LoopRun) -> list[str]:
        """A run of a training function; without a terminal, its newest report is printed."""
        records = self._prepared.records.run(run.id)
        if run.id not in self._done:
            self._newest[run.id] = next(reversed(records.reports()), None)
            if result := records.result():
                self._done[run.id] = result
            self._report_failures(run, records)
        newest, name = self._newest[run.id], f"{run.arm} seed {run.seed}"
        is_done = run.id in self._done
        if newest is None:
            started = "starting" if records.attempts() else "waiting"
            return [name, "", "", "", "", "done" if is_done else started]
        count, values = newest["report"] + 1, _values(newest["metrics"])
        if count > self._announced.get(run.id, 0):
            self.say(f"{name}: report {count}, {values}")
            self._announced[run.id] = count
        return [name, f"report {count}", values, "", "", "done" if is_done else ""]

    def _report_epochs(self, run: Run, epochs: list[Record]) -> None:
        """Without a terminal, print each epoch once."""
        for record in epochs[self._announced.get(run.id, 0) :]:
            self.say(
                f"{run.arm} seed {run.seed}: epoch {record['epoch']}/{run.recipe.epochs}, "
                f"{_accuracy(record)}, {record['images_per_second']:,.0f} images/s"
            )
        self._announced[run.id] = max(self._announced.get(run.id, 0), len(epochs))

    def _report_failures(self, run: Run | LoopRun, records: RunRecords) -> None:
        """Print each failure since this command began once; on a terminal, above the table."""
        failures = [failure for failure in records.failures() if failure["failed_at"] > self._began_at]
        for failure in failures[self._failures_reported[run.id] :]:
            outcome = "failed permanently" if failure["permanent"] else "retried"
            line = f"{run.arm} seed {run.seed} failed: {failure['cause']}; {outcome}"
            self._console.print(line, soft_wrap=True)
        self._failures_reported[run.id] = len(failures)

    def _row(self, run: Run, records: RunRecords, epochs: list[Record]) -> list[str]:
        name = f"{run.arm} seed {run.seed}"
        self._left.pop(run.id, None)
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
        if trained > 0:
            self._left[run.id], self._epoch_seconds[run.arm] = left, seconds
        return [
            name,
            f"{last['epoch']}/{run.recipe.epochs}",
            "" if validation is None else f"{validation:.2%}",
            f"{last['train_accuracy']:.2%}",
            f"{last['images_per_second']:,.0f}",
            clock(left),
        ]


def _values(metrics: Record) -> str:
    """The first metrics of a report."""
    shown = [f"{name} {value:.4g}" for name, value in metrics.items() if value is not None]
    return ", ".join(shown[:_SHOWN_METRICS])


def _accuracy(record: Record) -> str:
    if record["validation_accuracy"] is None:
        return f"training accuracy {record['train_accuracy']:.2%}"
    return f"validation accuracy {record['validation_accuracy']:.2%}"
