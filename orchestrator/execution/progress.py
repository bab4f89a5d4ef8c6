"""Progress of runs while they train: a table on a terminal, a line for each epoch on a pipe."""

from __future__ import annotations

import datetime
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from orchestrator.execution.driver import Prepared
from orchestrator.planning.run_plan import Run
from orchestrator.store.records import RunRecords
from orchestrator.store.storage import Record


def open_console(file: TextIO, *, width: int | None = None) -> Console:
    """A console that prints text unchanged: names of files and classes may look like markup."""
    return Console(file=file, width=width, markup=False, emoji=False, highlight=False)


def clock(seconds: float) -> str:
    """`0:03:20`"""
    return str(datetime.timedelta(seconds=round(seconds)))


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
        self._began_at = time.time()
        self._failures_reported: Counter[str] = Counter()

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
        self.redraw(table)

    def _report_epochs(self, run: Run, epochs: list[Record]) -> None:
        """Without a terminal, print each epoch once."""
        for record in epochs[self._announced.get(run.id, 0) :]:
            self.say(
                f"{run.arm} seed {run.seed}: epoch {record['epoch']}/{run.recipe.epochs}, "
                f"{_accuracy(record)}, {record['images_per_second']:,.0f} images/s"
            )
        self._announced[run.id] = max(self._announced.get(run.id, 0), len(epochs))

    def _report_failures(self, run: Run, records: RunRecords) -> None:
        """Print each failure since this command began once; on a terminal, above the table."""
        failures = [failure for failure in records.failures() if failure["failed_at"] > self._began_at]
        for failure in failures[self._failures_reported[run.id] :]:
            outcome = "failed permanently" if failure["permanent"] else "retried"
            line = f"{run.arm} seed {run.seed} failed: {failure['cause']}; {outcome}"
            self._console.print(line, soft_wrap=True)
        self._failures_reported[run.id] = len(failures)

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
            clock(left),
        ]


def _accuracy(record: Record) -> str:
    if record["validation_accuracy"] is None:
        return f"training accuracy {record['train_accuracy']:.2%}"
    return f"validation accuracy {record['validation_accuracy']:.2%}"
