"""What a search leaves behind: a log of its trials, below the experiment's storage.

    <storage>/<name>/sweep/<arm>-<hash>/
        log/00000.jsonl        starts, epochs and ends of trials in order, a few hundred to a file
        runs/<run id>/         each trial's own records, from which its training goes on

The hash is of everything that decides which trials come next, so that a changed space is another
search. The log is all that a report reads.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from typing import Literal, get_args

from orchestrator.experiment.spec import describe_value
from orchestrator.experiment.sweep import Budget, Objective, Params, Sweep
from orchestrator.store.storage import SCHEMA_VERSION, Record, Storage

_EVENTS_IN_A_FILE = 500
_FLUSH_SECONDS = 0.5

EndState = Literal["done", "stopped", "diverged", "failed"]
_END_STATES = get_args(EndState)
_FIELDS: dict[str, dict[str, type]] = {
    "begin": {},
    "start": {"trial": int, "run": str, "params": dict},
    "epoch": {"trial": int, "metrics": dict},
    "change": {"trial": int, "run": str, "params": dict, "donor": str, "epoch": int},
    "end": {"trial": int, "state": str},
    "finish": {"budget": dict},
}
"""What each kind of event needs. Checked by hand, since a log has hundreds of thousands of events."""
_SECONDS = ("data_seconds", "step_seconds", "compile_seconds", "evaluation_seconds")
_LARGEST = 1e30


def busy_seconds(epoch: Record) -> float:
    """Time that workers spent on an epoch, compilation and evaluation included."""
    return float(sum(epoch.get(part, 0.0) for part in _SECONDS))


@dataclasses.dataclass(kw_only=True)
class TrialRecord:
    """One trial as the log tells it."""

    number: int
    """From 0, in the order of their starts."""
    params: Params
    """The last ones, where population based training changed them."""
    run: str
    """Id of the run that trained it, the last of them."""
    epochs: list[Record] = dataclasses.field(default_factory=list)
    """Metrics of each epoch in order, with `slot` and `time`, when it ended."""
    state: EndState | None = None
    """done: all epochs; stopped: by the scheduler or the budget; None: not ended."""
    cause: str | None = None
    """Why it failed or diverged."""
    copied_from: list[Record] = dataclasses.field(default_factory=list)
    """Population based training: the epoch and the run whose weights were taken over."""

    def describe(self) -> str:
        """Its parameters: `optimizer.learning_rate 0.003, augmentation.flip none`."""
        return ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {describe_value(value)}"
            for name, value in self.params.items()
        )

    def value(self, objective: Objective) -> float | None:
        """What the last epoch reached."""
        if not self.epochs:
            return None
        if objective.name == "train_seconds":
            return self.train_seconds
        value = self.epochs[-1].get(objective.name)
        return float(value) if isinstance(value, int | float) else None

    def score(self, objective: Objective) -> float | None:
        """The value, negated where less is better; None where it is no number."""
        value = self.value(objective)
        if value is None or not math.isfinite(value):
            return None
        return value if objective.goal == "maximize" else -value

    @property
    def train_seconds(self) -> float:
        """Data and step time over all epochs."""
        return float(sum(epoch["data_seconds"] + epoch["step_seconds"] for epoch in self.epochs))

    @property
    def busy_seconds(self) -> float:
        """Time that workers spent on it, evaluation included."""
        return sum(busy_seconds(epoch) for epoch in self.epochs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchHistory:
    """What a search has done so far."""

    trials: list[TrialRecord]
    """By number."""
    seconds: float
    """Wall time over all starts of the driver."""
    finished: Record | None
    """The budget with which the search came to its end."""
    damaged: int = 0
    """Records of its log that are left out."""

    @property
    def epochs(self) -> int:
        """Epochs trained, over all trials."""
        return sum(len(trial.epochs) for trial in self.trials)


class SearchRecords:
    """One arm's search in the storage. A single driver writes."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._file = len(storage.names("log"))
        self._events: list[str] = []
        self._unwritten = False
        self._flushed_at = 0.0

    def begin(self) -> None:
        """Note a start of the driver."""
        self._add({"event": "begin"})

    def start(self, number: int, run: str, params: Params) -> None:
        """Note a new trial."""
        self._add({"event": "start", "trial": number, "run": run, "params": params})

    def epoch(self, number: int, run: str, metrics: Record) -> None:
        """Note a finished epoch."""
        self._add({"event": "epoch", "trial": number, "run": run, "metrics": metrics})

    def change(self, number: int, run: str, params: Params, donor: str, epoch: int) -> None:
        """Note that a trial took over another's weights and goes on with other parameters."""
        self._add(
            {"event": "change", "trial": number, "run": run, "params": params, "donor": donor, "epoch": epoch}
        )

    def end(self, number: int, state: EndState, cause: str | None) -> None:
        """Note that nothing more comes of a trial."""
        self._add({"event": "end", "trial": number, "state": state, "cause": cause})

    def finish(self, budget: Budget) -> None:
        """Note that the search came to its end under a budget."""
        self._add({"event": "finish", "budget": budget.model_dump()})
        self.flush()

    def _add(self, event: Record) -> None:
        self._events.append(json.dumps({"schema": SCHEMA_VERSION} | event | {"time": round(time.time(), 3)}))
        self._unwritten = True
        self.flush_sometimes()

    def flush_sometimes(self) -> None:
        """Write what is not written yet, at most twice a second."""
        if time.monotonic() - self._flushed_at > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is not written yet."""
        if not self._unwritten:
            return
        self.storage.write(f"log/{self._file:05d}.jsonl", "\n".join(self._events).encode() + b"\n")
        self._flushed_at = time.monotonic()
        self._unwritten = False
        if len(self._events) >= _EVENTS_IN_A_FILE:
            self._file += 1
            self._events = []

    def history(self) -> SearchHistory:
        """Read the whole log; what is damaged is left out."""
        trials: dict[int, TrialRecord] = {}
        seconds, began, latest = 0.0, None, 0.0
        finished, damaged = None, 0
        for name in self.storage.names("log"):
            for event in self.storage.read_lines(f"log/{name}"):
                if not _is_whole(event):
                    damaged += 1
                    continue
                if event["event"] == "finish":
                    finished = event["budget"]
                elif event["event"] == "begin":
                    seconds += latest - began if began is not None else 0.0
                    began = event["time"]
                else:
                    _tell(trials, event)
                latest = event["time"]
        seconds += latest - began if began is not None else 0.0
        return SearchHistory(
            trials=[trials[number] for number in sorted(trials)],
            seconds=seconds,
            finished=finished,
            damaged=damaged,
        )


def _is_whole(event: Record) -> bool:
    """Whether an event has what its kind needs, of the right types and sizes."""
    fields = _FIELDS.get(event["event"]) if isinstance(event.get("event"), str) else None
    if fields is None or not _is_amount(event.get("time")):
        return False
    if not all(isinstance(event.get(name), kind) for name, kind in fields.items()):
        return False
    if event["event"] == "end":
        return event["state"] in _END_STATES and isinstance(event.get("cause"), str | None)
    if event["event"] != "epoch":
        return True
    metrics = event["metrics"]
    return (
        isinstance(metrics.get("epoch"), int)
        and metrics["epoch"] > 0
        and isinstance(metrics.get("slot"), str | None)
        and "data_seconds" in metrics
        and "step_seconds" in metrics
        and all(_is_amount(metrics.get(part, 0.0)) for part in _SECONDS)
        and all(value is None or isinstance(value, int | float | str) for value in metrics.values())
    )


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= _LARGEST


def _tell(trials: dict[int, TrialRecord], event: Record) -> None:
    number = event["trial"]
    if event["event"] == "start":
        if number not in trials:
            trials[number] = TrialRecord(number=number, params=event["params"], run=event["run"])
        return
    trial = trials.get(number)
    if trial is None:
        return
    match event["event"]:
        case "epoch":
            metrics = event["metrics"] | {"time": event["time"]}
            place = metrics["epoch"] - 1
            if place <= len(trial.epochs):  # of an epoch told twice, the later counts
                trial.epochs[place:] = [metrics]
        case "change":
            trial.params, trial.run = event["params"], event["run"]
            trial.copied_from.append({"epoch": event["epoch"], "run": event["donor"]})
            del trial.epochs[event["epoch"] :]
        case "end":
            trial.state, trial.cause = event["state"], event["cause"]


def best_trial(trials: list[TrialRecord], sweep: Sweep) -> TrialRecord | None:
    """The trial with the best first objective among those that trained to their end, or else among all."""
    goal = sweep.objective[0]
    for candidates in ([t for t in trials if t.state == "done"], trials):
        scored = [
            (score, -trial.number, trial)
            for trial in candidates
            if trial.state not in ("failed", "diverged") and (score := trial.score(goal)) is not None
        ]
        if scored:
            return max(scored, key=lambda entry: entry[:2])[2]
    return None
