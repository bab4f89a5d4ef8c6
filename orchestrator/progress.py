"""The live table of a command that trains: every run's epoch, accuracy, speed and time left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table

from orchestrator.driver import Prepared
from orchestrator.plan import Run
from orchestrator.records import Record, RunRecords


class Progress:
    """Reads the records of runs that are not done and redraws the table."""

    def __init__(self, prepared: Prepared, console: Console) -> None:
        self._prepared = prepared
        self._console = console
        self._done: dict[str, Record] = {}
        self._announced: dict[str, int] = {}
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the table until the block ends; on a plain pipe, a line for each finished epoch."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False) as self._live:
            yield

    def refresh(self) -> None:
        """Read what is new and show it."""
        table = Table("run", "epoch", "validation", "train", "images/s", "left", box=None)
        for run in self._prepared.runs:
            records = self._prepared.records.run(run.id)
            if run.id not in self._done and (result := records.result()):
                self._done[run.id] = result
            epochs = records.epochs() if self._is_moving(run) else []
            self._announce(run, epochs)
            table.add_row(*self._row(run, records, epochs))
        if self._live is not None:
            self._live.update(table, refresh=True)

    def _is_moving(self, run: Run) -> bool:
        return run.id not in self._done or self._announced.get(run.id, 0) < run.recipe.epochs

    def _announce(self, run: Run, epochs: list[Record]) -> None:
        """Without a terminal, say each epoch once."""
        for record in epochs[self._announced.get(run.id, 0) :]:
            if self._live is None:
                self._console.print(
                    f"{run.arm} seed {run.seed}: epoch {record['epoch']}/{run.recipe.epochs}, "
                    f"{_accuracy(record)}, {record['images_per_second']:,.0f} images/s"
                )
        self._announced[run.id] = max(self._announced.get(run.id, 0), len(epochs))

    def _row(self, run: Run, records: RunRecords, epochs: list[Record]) -> list[str]:
        name = f"{run.arm} seed {run.seed}"
        if result := self._done.get(run.id):
            accuracy = f"test {result['test_accuracy']:.2%}"
            return [name, f"{run.recipe.epochs}/{run.recipe.epochs}", accuracy, "", "", "done"]
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
            f"{left // 60:.0f}:{left % 60:02.0f}",
        ]


def _accuracy(record: Record) -> str:
    if record["validation_accuracy"] is None:
        return f"training accuracy {record['train_accuracy']:.2%}"
    return f"validation accuracy {record['validation_accuracy']:.2%}"
