"""One trial as Ray Tune sees it: a process that asks the broker for epochs and trains nothing itself."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune

from orchestrator.experiment.search_space import recipe_with
from orchestrator.experiment.sweep import Params
from orchestrator.planning.run_plan import Run, short_hash
from orchestrator.store.records import ExperimentRecords, RunRecords
from orchestrator.store.storage import Record, Storage
from orchestrator.store.trial_records import TrialRecord
from trainers.recipes import Recipe

_CHECKPOINT_WAIT_SECONDS = 120


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """What all trials of an arm share."""

    arm: str
    framework: str
    recipe: Recipe
    """The arm's own, whose fields a trial's parameters replace."""
    seed: int
    storage_url: str
    """Of the search's records."""
    replays_epochs: bool
    """Whether recorded epochs are told one by one, or only the last, when a driver starts again."""

    def run(self, number: int, params: Params) -> Run:
        """The run that trains a trial with these parameters."""
        recipe = recipe_with(self.recipe, params)
        identity = [self.framework, self.seed, recipe.model_dump(mode="json")]
        return Run(
            id=f"{number:05d}-{short_hash(identity)}",
            arm=self.arm,
            framework=self.framework,
            seed=self.seed,
            recipe=recipe,
        )

    def records(self, run: str) -> RunRecords:
        """A run's records."""
        return ExperimentRecords(Storage(self.storage_url)).run(run)


class Trial(tune.Trainable):
    """Each step is an epoch. What an earlier driver recorded is told again without training."""

    def setup(  # type: ignore[override]
        self, config: Record, *, search: Search, broker: Any, recorded: dict[int, TrialRecord]
    ) -> None:
        """Begin a trial.

        Args:
            config: `number` and `params`, below `trial`.
            search: what all trials share.
            broker: the actor that slots take runs from.
            recorded: trials of earlier starts of the driver, by number.
        """
        self._search = search
        self._broker = broker
        self._recorded = recorded
        self.begin_trial(config)

    def begin_trial(self, config: Record) -> None:
        """Become the trial of a config."""
        trial = config["trial"]
        self._number: int = ray.get(self._broker.number.remote(self.trial_id, trial["number"]))
        self._params: Params = trial["params"]
        self._run = self._search.run(self._number, self._params)
        self._epoch = 0
        self._change: str | None = None

    def reset_config(self, new_config: Record) -> bool:
        """Become another trial, or the same one with other parameters."""
        self.cleanup()
        self.begin_trial(new_config)
        return True

    def step(self) -> Record:
        """Wait for the next epoch and tell Ray Tune about it."""
        known = self._recorded.get(self._number)
        if known is not None and known.run == self._run.id and self._epoch < len(known.epochs):
            if not self._search.replays_epochs:
                self._epoch = len(known.epochs) - 1
            outcome = known.epochs[self._epoch]
            last = self._epoch + 1 == len(known.epochs)
            if last and known.state is not None:
                outcome = outcome | {"done": True, "end": known.state, "cause": known.cause}
        elif known is not None and known.run == self._run.id and known.state is not None:
            outcome = {"failure": known.cause, "diverged": known.state == "diverged"}
        else:
            outcome = ray.get(self._broker.outcome.remote(self._run, self._epoch + 1))
        if "failure" in outcome:
            state = "diverged" if outcome["diverged"] else "failed"
            return {"run": self._run.id, "done": True, "end": state, "cause": outcome["failure"]}
        self._epoch += 1
        result: Record = {"run": self._run.id, "change": self._change}
        if self._epoch >= self._run.recipe.epochs:
            result |= {"done": True, "end": "done"}
        return result | outcome

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Hand out the state after the last epoch, for another trial or for this one later."""
        directory = Path(checkpoint_dir)
        records = self._search.records(self._run.id)
        limit = time.monotonic() + _CHECKPOINT_WAIT_SECONDS
        while (kept := records.packed_state(self._epoch)) is None:  # the slot may still be writing
            if time.monotonic() > limit:
                raise TimeoutError(f"no state of epoch {self._epoch} was kept by run {self._run.id}")
            time.sleep(0.05)
        header = {"run": self._run.id, "epoch": self._epoch, "sha256": kept.sha256, "epochs": kept.epochs}
        (directory / "state.json").write_text(json.dumps(header))
        (directory / "state.npz").write_bytes(kept.content)

    def load_checkpoint(self, checkpoint_dir: str) -> None:  # type: ignore[override]
        """Go on from a state, another trial's or this one's own."""
        directory = Path(checkpoint_dir)
        header = json.loads((directory / "state.json").read_text())
        self._epoch = header["epoch"]
        if header["run"] != self._run.id:
            self._change = json.dumps(
                {"params": self._params, "donor": header["run"], "epoch": header["epoch"]}
            )
            self._search.records(self._run.id).adopt(
                (directory / "state.npz").read_bytes(), header["sha256"], header["epochs"]
            )

    def cleanup(self) -> None:
        """Let the slot go."""
        self._broker.release.remote(self._run.id, self._epoch)
