"""The `sweep:` block of an experiment file."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from orchestrator.experiment.expressions import Expression
from orchestrator.experiment.metric import Goal
from trainers.recipes import Block

Params = dict[str, Any]
"""A value for each parameter, by the dotted name of the recipe's field."""

_KNOWN: dict[str, Goal] = {
    "validation_accuracy": "maximize",
    "validation_balanced_accuracy": "maximize",
    "validation_loss": "minimize",
    "train_seconds": "minimize",
    "images_per_second": "maximize",
}
"""What a sweep may optimise without naming the goal."""

FIXED_IN_PBT = (
    "model",
    "optimizer.name",
    "loss.name",
    "whitening",
    "ema_decay",
    "precision",
    "init",
    "epochs",
    "batch_norm",
    "sync_batch_norm",
    "compile",
)
"""Fields that one trial cannot take over from another in the middle of training."""

TRIAL_SEED = 1_000_000
"""Trials train with this seed plus the sweep's, so that the winners' seeds are fresh."""

_KINDS = ("uniform", "loguniform", "integer", "choice")


def _expression(text: str) -> str:
    Expression(text)
    return text


Condition = Annotated[str, AfterValidator(_expression)]


class Parameter(Block):
    """The values that one field of a recipe may take. Exactly one kind is given."""

    uniform: tuple[float, float] | None = Field(None, description="Between two numbers.")
    loguniform: tuple[float, float] | None = Field(
        None, description="Between two positive numbers, evenly by order of magnitude."
    )
    integer: tuple[int, int] | None = Field(None, description="Whole numbers, both ends included.")
    choice: list[Any] | None = Field(None, description="One of these; a plain list means the same.")
    step: float | None = Field(None, gt=0, description="Only multiples of this above the lower end.")
    log: bool = Field(False, description="Integers evenly by order of magnitude.")
    when: Condition | None = Field(None, description="Only where this holds, as optimizer.name == 'sgd'.")

    @model_validator(mode="after")
    def _consistent(self) -> Parameter:
        kinds = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            given = " and ".join(kinds) or "none"
            raise ValueError(f"a parameter has exactly one of {', '.join(_KINDS)}, but has {given}")
        if self.choice is not None:
            if not self.choice:
                raise ValueError("choice is empty; list at least one value")
            if any(value in self.choice[:place] for place, value in enumerate(self.choice)):
                raise ValueError(f"choice {self.choice} has a value twice")
            if self.step or self.log:
                raise ValueError("choice takes neither step nor log")
            return self
        low, high = self.bounds
        if low > high:
            raise ValueError(
                f"{kinds[0]} [{low:g}, {high:g}]: the lower end is above the upper; write [{high:g}, {low:g}]"
            )
        if (self.loguniform or self.log) and low <= 0:
            raise ValueError(f"{kinds[0]} [{low:g}, {high:g}]: the logarithm of {low:g} does not exist")
        if self.log and not self.integer:
            raise ValueError("log goes with integer; write loguniform for real numbers")
        if self.step is not None:
            if self.loguniform or self.log:
                raise ValueError("step does not go with a logarithmic scale")
            if self.integer and self.step != int(self.step):
                raise ValueError(f"step {self.step:g} of integers must be whole")
            if self.step > high - low:
                raise ValueError(f"step {self.step:g} is wider than the range of {high - low:g}")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper end of a range."""
        bounds = self.uniform or self.loguniform or self.integer
        assert bounds is not None
        return bounds

    @property
    def is_finite(self) -> bool:
        """Whether a grid can list its values."""
        return self.choice is not None or self.integer is not None or self.step is not None

    @property
    def values(self) -> list[Any]:
        """Every value of a finite parameter, in order."""
        if self.choice is not None:
            return self.choice
        low, high = self.bounds
        step = self.step or 1
        values = [low + place * step for place in range(int((high - low) / step + 1e-9) + 1)]
        return [int(value) for value in values] if self.integer is not None else values


def _as_parameter(value: Any) -> Any:
    return {"choice": value} if isinstance(value, list) else value


_Parameter = Annotated[
    Parameter, BeforeValidator(_as_parameter, json_schema_input_type=Parameter | list[Any])
]
Space = dict[str, _Parameter]


class Budget(Block):
    """What the search for one arm may spend; it ends with the first limit reached."""

    trials: int | None = Field(None, gt=0)
    epochs: int | None = Field(None, gt=0, description="Summed over the trials.")
    minutes: float | None = Field(None, gt=0, description="Wall time.")
    cost: float | None = Field(None, gt=0, description="Money, at scale.price_per_worker_hour.")

    @model_validator(mode="after")
    def _not_empty(self) -> Budget:
        if not self.model_fields_set or all(value is None for value in self.model_dump().values()):
            raise ValueError("budget is empty; give trials, epochs, minutes or cost")
        return self


class NoScheduler(Block):
    """Every trial trains all its epochs."""

    name: Literal["none"] = "none"


class Asha(Block):
    """Asynchronous successive halving (Li et al., 2020)."""

    name: Literal["asha"] = "asha"
    grace_epochs: int = Field(1, gt=0, description="No trial is stopped before.")
    reduction_factor: float = Field(3, gt=1, description="One trial in so many goes on at each rung.")


class Hyperband(Block):
    """HyperBand (Li et al., 2018), pausing trials; with `search: tpe` this is BOHB's idea."""

    name: Literal["hyperband"] = "hyperband"
    reduction_factor: float = Field(3, gt=1)


class Median(Block):
    """Stop what is below the median of the other trials' averages (Golovin et al., 2017)."""

    name: Literal["median"] = "median"
    grace_epochs: int = Field(1, gt=0)
    min_trials: int = Field(3, gt=0, description="Trials that must have come as far.")


class Pbt(Block):
    """Population based training (Jaderberg et al., 2017): the worst take over the best's weights."""

    name: Literal["pbt"] = "pbt"
    interval: int = Field(1, gt=0, description="Epochs between exchanges.")
    quantile: float = Field(0.25, gt=0, le=0.5, description="Share that is replaced, and that is copied.")


def _scheduler_name(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value}
    return {"name": "none"} if value is None else value


_Scheduler = Annotated[
    Annotated[NoScheduler | Asha | Hyperband | Median | Pbt, Field(discriminator="name")],
    BeforeValidator(
        _scheduler_name,
        json_schema_input_type=Literal["none", "asha", "hyperband", "median", "pbt"]
        | NoScheduler
        | Asha
        | Hyperband
        | Median
        | Pbt,
    ),
]


class Objective(Block):
    """What a sweep optimises."""

    name: str = Field(min_length=1, max_length=100, description="A metric that is known after each epoch.")
    goal: Goal

    @property
    def title(self) -> str:
        """tandem's own names as words; what a training function reports stays as it is."""
        return self.name.replace("_", " ") if self.name in _KNOWN else self.name

    @property
    def worst(self) -> float:
        """What a diverged trial is given."""
        if self.goal == "minimize":
            return 1e9
        return 0.0 if self.name in _KNOWN else -1e9

    @property
    def mode(self) -> Literal["min", "max"]:
        """The goal as Ray Tune calls it."""
        return "max" if self.goal == "maximize" else "min"


def _objectives(value: Any) -> Any:
    entries = value if isinstance(value, list) else [value]
    return [_with_goal(entry) if isinstance(entry, str) else entry for entry in entries]


def _with_goal(name: str) -> dict[str, str]:
    if name not in _KNOWN:
        close = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0.5)
        hint = f", did you mean {close[0]!r}?" if close else "; write another as {name: …, goal: minimize}"
        raise ValueError(f"{name!r} is not one of {', '.join(_KNOWN)}{hint}")
    return {"name": name, "goal": _KNOWN[name]}


_Objectives = Annotated[
    list[Objective],
    BeforeValidator(
        _objectives,
        json_schema_input_type=Literal[
            "validation_accuracy",
            "validation_balanced_accuracy",
            "validation_loss",
            "train_seconds",
            "images_per_second",
        ]
        | Objective
        | list[str | Objective],
    ),
]


class ArmSweep(Block):
    """What one arm's search does differently."""

    space: dict[str, _Parameter | None] = Field(
        {}, description="Parameters that replace the shared ones; null leaves one out."
    )
    budget: Budget | None = None


class Sweep(Block):
    """How each arm's hyperparameters are searched."""

    space: Space = Field({}, description="For every arm: what each field of the recipe may be.")
    constraints: list[Condition] = Field([], description="Conditions that every trial must meet.")
    search: Literal["grid", "random", "tpe", "cmaes", "nsga2", "bohb"] = Field(
        "tpe", description="bohb is tpe with the hyperband scheduler."
    )
    scheduler: _Scheduler = NoScheduler()
    objective: _Objectives = Field(
        [Objective(name="validation_accuracy", goal="maximize")],
        min_length=1,
        description="One, or several to trade off; a name, or {name, goal} of another number of an epoch's record.",
    )
    budget: Budget = Field(Budget(trials=20), description="The same for every arm.")
    seed: int = Field(0, ge=0, description="Decides the trials, and the one seed they all train with.")
    points: list[dict[str, Any]] = Field([], description="Trials to begin with.")
    start_from: str | None = Field(
        None, description="Results of an earlier sweep whose finished trials are taken as known."
    )
    log_to: list[Literal["tensorboard", "mlflow"]] = Field([], description="Log every trial there as well.")
    arms: dict[str, ArmSweep] = Field({}, description="What single arms do differently.")

    @model_validator(mode="before")
    @classmethod
    def _bohb(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("search") == "bohb":
            return {"scheduler": "hyperband"} | value
        return value

    @field_validator("objective")
    @classmethod
    def _no_repeats(cls, objective: list[Objective]) -> list[Objective]:
        names = [each.name for each in objective]
        if len(set(names)) < len(names):
            raise ValueError(f"objective {names} has one twice")
        return objective

    @model_validator(mode="after")
    def _consistent(self) -> Sweep:
        scheduler = self.scheduler.name
        if self.search == "bohb" and scheduler != "hyperband":
            raise ValueError("scheduler: search bohb goes with hyperband; leave the scheduler out")
        if len(self.objective) > 1 and scheduler != "none":
            raise ValueError(
                f"scheduler {scheduler} needs a single objective; leave it out to trade several off"
            )
        if self.objective[0].name == "train_seconds" and scheduler != "none":
            raise ValueError(
                f"scheduler {scheduler} judges trials after each epoch, when all have trained as long; "
                "leave it out to search for short training"
            )
        if self.search == "cmaes" and len(self.objective) > 1:
            raise ValueError("search cmaes needs a single objective; nsga2 and tpe trade several off")
        if scheduler == "pbt" and self.search not in ("random", "tpe"):
            raise ValueError(
                f"scheduler pbt begins with random trials; write search: random, not {self.search}"
            )
        if scheduler == "pbt" and self.budget.trials is None:
            raise ValueError("scheduler pbt needs a population; set budget.trials")
        return self

    def space_of(self, arm: str) -> Space:
        """The parameters of one arm."""
        own = self.arms.get(arm, ArmSweep()).space
        merged = {**self.space, **own}
        return {name: parameter for name, parameter in merged.items() if parameter is not None}

    def budget_of(self, arm: str) -> Budget:
        """What one arm may spend."""
        return self.arms.get(arm, ArmSweep()).budget or self.budget
