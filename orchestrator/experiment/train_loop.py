"""An arm that trains with the user's own training function, under Ray Train's contract."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from orchestrator.experiment.seeds import Seeds, default_seeds
from trainers.ray_train.ray_trainers import trainer_names
from trainers.recipes import Block

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Bind(Block):
    """Which keys of the function's config hold the seed, the epochs and the batch size."""

    seed: str | None = Field(
        "seed", description="Key that the run's seed is passed as; null to leave it out."
    )
    epochs: str | None = Field(None, description="Key that the arm's epochs are passed as.")
    batch_size: str | None = Field(None, description="Key that the arm's batch_size is passed as.")


class Checkpoints(Block):
    """Which of the function's checkpoints Ray Train keeps."""

    keep: int | None = Field(None, gt=0, description="How many; all when left out. The last is always kept.")
    metric: str | None = Field(
        None, description="Keep those with the best values of this metric instead of the last."
    )
    goal: Literal["maximize", "minimize"] | None = Field(
        None, description="Which values are best; when left out, as the experiment's metric, or maximize."
    )


class TrainLoopArm(Block):
    """A training function of the user's own, trained once for each seed."""

    train_loop: str = Field(
        description="The function as package.module:function; it takes a config or nothing."
    )
    trainer: str = Field(
        description="How its workers are connected: torch, tensorflow, keras, jax, none, an installed name, or your "
        "own as package.module:function."
    )
    config: dict[str, Any] = Field({}, description="Passed to the function, with the seed added.")
    datasets: str | None = Field(
        None, description="Function that returns the Ray datasets by name, as package.module:function."
    )
    bind: Bind = Bind()
    epochs: int | None = Field(None, gt=0, description="Passed as the config key that bind.epochs names.")
    batch_size: int | None = Field(
        None, gt=0, description="Passed as the config key that bind.batch_size names."
    )
    checkpoint: Checkpoints = Checkpoints()
    seeds: Seeds = Field(default_factory=default_seeds)

    @field_validator("train_loop", "datasets")
    @classmethod
    def _is_function(cls, value: str | None) -> str | None:
        if value is not None and not _FUNCTION.fullmatch(value):
            raise ValueError(f"{value!r} names no function; write package.module:function")
        return value

    @field_validator("trainer")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if not _FUNCTION.fullmatch(value) and value not in trainer_names():
            raise ValueError(
                f"trainer {value!r} is not one of {', '.join(trainer_names())}, and names no function as "
                "package.module:function"
            )
        return value

    @field_validator("config")
    @classmethod
    def _is_plain(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"config must hold plain values only: {error}") from error
        return value

    @model_validator(mode="after")
    def _bound(self) -> TrainLoopArm:
        for field in ("epochs", "batch_size"):
            given = getattr(self, field)
            if given is not None and getattr(self.bind, field) is None:
                raise ValueError(
                    f"{field} {given} reaches no key of config; name the key, such as bind: {{{field}: {field}}}"
                )
        return self

    def loop_config(self, seed: int) -> dict[str, Any]:
        """The config that the function is called with."""
        bound = {
            self.bind.seed: seed,
            self.bind.epochs: self.epochs,
            self.bind.batch_size: self.batch_size,
        }
        return self.config | {key: value for key, value in bound.items() if key and value is not None}

    @property
    def modules(self) -> list[str]:
        """The modules that the arm names, each once."""
        functions = [self.train_loop, self.datasets or "", self.trainer]
        return list(dict.fromkeys(name.partition(":")[0] for name in functions if ":" in name))
