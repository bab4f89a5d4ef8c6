"""From a sweep's records to what a report says of it. Pure; imports neither Ray nor Optuna."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from functools import cached_property

from pydantic import TypeAdapter, ValidationError

from orchestrator.analysis.wording import counted
from orchestrator.experiment.spec import Scale
from orchestrator.experiment.sweep import Params, Sweep
from orchestrator.store.record_models import RunId
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Record
from orchestrator.store.trial_records import SearchHistory, SearchRecords, TrialRecord, best_trial

_DIFFERENT = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmSearch:
    """What one arm's search did and cost."""

    arm: str
    history: SearchHistory
    winner: TrialRecord | None
    """The trial whose recipe is compared; None while there is none."""
    front: list[TrialRecord]
    """With several objectives: the trials that no other beats in all of them."""
    failures: list[tuple[str, int]]
    """A cause of each kind with the number of trials that failed in that way, most first."""
    price_per_hour: float | None
    """Of the workers of one trial, where the experiment has a price."""

    @property
    def states(self) -> Counter[str]:
        """How many trials ended how."""
        return Counter(trial.state or "unfinished" for trial in self.history.trials)

    @cached_property
    def busy_seconds(self) -> float:
        """Time that workers spent on trials."""
        return sum(trial.busy_seconds for trial in self.history.trials)

    @property
    def cost(self) -> float | None:
        """Money, where the experiment has a price."""
        return None if self.price_per_hour is None else self.busy_seconds / 3600 * self.price_per_hour

    def to_json(self) -> Record:
        """The search as plain JSON."""
        return {
            "arm": self.arm,
            "trials": len(self.history.trials),
            "states": dict(self.states),
            "epochs": self.history.epochs,
            "seconds": self.history.seconds,
            "busy_seconds": self.busy_seconds,
            "cost": self.cost,
            "winner": self.winner and {"trial": self.winner.number, "params": self.winner.params},
            "front": [{"trial": trial.number, "params": trial.params} for trial in self.front],
            "failures": [{"cause": cause, "trials": count} for cause, count in self.failures],
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepSummary:
    """All arms' searches."""

    sweep: Sweep
    arms: list[ArmSearch]
    notes: list[str]
    """What a reader must know before comparing the winners."""


def summarise(records: ExperimentRecords, document: Record) -> SweepSummary | None:
    """What an experiment's sweep did; None if its arms were not searched for, or this version cannot read how."""
    provenance = document.get("sweep")
    if provenance is None:
        return None
    try:
        sweep = Sweep.model_validate(provenance["experiment"]["sweep"])
        price_per_hour = Scale.model_validate(provenance["experiment"]["scale"]).price_per_hour
    except ValidationError:
        return None
    arms = []
    for arm, directory in provenance["searches"].items():
        TypeAdapter(RunId).validate_python(directory)
        history = SearchRecords(records.storage.at("sweep", directory)).history()
        arms.append(
            ArmSearch(
                arm=arm,
                history=history,
                winner=best_trial(history.trials, sweep),
                front=pareto_front(history.trials, sweep),
                failures=failure_kinds(history.trials),
                price_per_hour=price_per_hour,
            )
        )
    return SweepSummary(sweep=sweep, arms=arms, notes=_notes(sweep, arms, provenance["winners"]))


def cause_kind(cause: str) -> str:
    """A failure's cause without its numbers, so that failures of one kind are counted together."""
    return re.sub(r"\d[\d.e+-]*", "N", cause)


def failure_kinds(trials: list[TrialRecord]) -> list[tuple[str, int]]:
    """A cause of each kind of failure or divergence, with the number of trials, most first."""
    causes: dict[str, list[str]] = {}
    for trial in trials:
        if trial.cause is not None:
            causes.setdefault(cause_kind(trial.cause), []).append(trial.cause)
    return sorted(((group[0], len(group)) for group in causes.values()), key=lambda entry: -entry[1])


def pareto_front(trials: list[TrialRecord], sweep: Sweep) -> list[TrialRecord]:
    """The trials that no other one beats in one objective and equals in the others; [] for one."""
    if len(sweep.objective) < 2:
        return []
    scored: list[tuple[list[float], TrialRecord]] = []
    for trial in trials:
        scores = [score for goal in sweep.objective if (score := trial.score(goal)) is not None]
        if trial.state == "done" and len(scores) == len(sweep.objective):
            scored.append((scores, trial))
    scored.sort(key=lambda entry: entry[0], reverse=True)
    front: list[tuple[list[float], TrialRecord]] = []
    for scores, trial in scored:
        if not any(all(a >= b for a, b in zip(other, scores, strict=True)) for other, _ in front):
            front.append((scores, trial))
    return [trial for _, trial in front]


def _notes(sweep: Sweep, arms: list[ArmSearch], winners: dict[str, Params]) -> list[str]:
    notes = []
    if not winners:
        notes.append("The sweep is not finished, so no winner was trained with fresh seeds yet.")
    for what, spent in (
        ("trials", {search.arm: len(search.history.trials) for search in arms}),
        ("epochs", {search.arm: search.history.epochs for search in arms}),
    ):
        if max(spent.values(), default=0) > (1 + _DIFFERENT) * min(spent.values(), default=0):
            listed = ", ".join(f"{arm} {count}" for arm, count in spent.items())
            notes.append(f"The arms' searches did not spend the same number of {what}: {listed}.")
    budgets = {search.arm: sweep.budget_of(search.arm).model_dump() for search in arms}
    if any(budget != next(iter(budgets.values())) for budget in budgets.values()):
        notes.append("The arms were given different budgets, so the better tuned one may win by that.")
    for search in arms:
        if search.history.damaged:
            notes.append(
                f"{counted(search.history.damaged, 'record')} of the search of {search.arm} left out: damaged."
            )
        for cause, count in search.failures[:3]:
            times = "once" if count == 1 else f"{count} times"
            notes.append(f"Trials of {search.arm} failed {times}: {cause}.")
    return notes
