"""The `metric:` and `metrics:` of an experiment file: what arms are compared by, and what else is shown."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from trainers.recipes import Block

Goal = Literal["maximize", "minimize"]

SHARE = "share"
"""The unit of values between 0 and 1, which are written in % and their differences in points."""

DEFAULT = "test_accuracy"
"""What built-in arms are compared by unless the experiment says otherwise."""

DEFAULT_MARGIN = 0.01
"""Of shares."""

KNOWN: dict[str, tuple[Goal, str | None]] = {
    "test_accuracy": ("maximize", SHARE),
    "balanced_accuracy": ("maximize", SHARE),
    "top5_accuracy": ("maximize", SHARE),
    "macro_f1": ("maximize", SHARE),
    "auroc": ("maximize", SHARE),
    "mean_average_precision": ("maximize", SHARE),
    "test_loss": ("minimize", None),
    "rmse": ("minimize", None),
    "mae": ("minimize", None),
    "validation_accuracy": ("maximize", SHARE),
    "validation_balanced_accuracy": ("maximize", SHARE),
    "validation_loss": ("minimize", None),
    "train_accuracy": ("maximize", SHARE),
    "train_loss": ("minimize", None),
}
"""Goal and unit of metrics that need neither in the file."""

USUAL_GOALS: dict[str, Goal] = {
    "accuracy": "maximize",
    "val_accuracy": "maximize",
    "loss": "minimize",
    "val_loss": "minimize",
}
"""Goals of names that training functions usually report."""

RECORDED = (
    "test_accuracy",
    "balanced_accuracy",
    "test_loss",
    "validation_accuracy",
    "validation_balanced_accuracy",
    "validation_loss",
    "train_accuracy",
    "train_loss",
)
"""What built-in runs have: of the final test, and of the epoch that was tested."""

_NAME = Field(
    min_length=1, max_length=100, description="As the training function reports it, or as tandem computes it."
)
_UNIT = Field(
    None,
    min_length=1,
    max_length=20,
    description="Written after each value; `share` for values between 0 and 1 that are written in %.",
)


class ShownMetric(Block):
    """A metric that is shown beside the one that arms are compared by."""

    name: str = _NAME
    unit: str | None = _UNIT


class ComparedMetric(Block):
    """The metric that arms are compared by."""

    name: str = _NAME
    goal: Goal | None = Field(
        None,
        description=f"Which values are better; needed unless the name is one of {', '.join([*KNOWN, *USUAL_GOALS])}.",
    )
    margin: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="A smaller difference counts as none; in the metric's unit.",
    )
    unit: str | None = _UNIT

    @model_validator(mode="after")
    def _has_a_goal(self) -> ComparedMetric:
        if self.goal is None and self.name not in KNOWN and self.name not in USUAL_GOALS:
            raise ValueError(
                f"metric.goal: missing; write maximize or minimize, whichever is better for {self.name!r}"
            )
        return self


def _named(value: Any) -> Any:
    if isinstance(value, list):
        return [{"name": entry} if isinstance(entry, str) else entry for entry in value]
    return value


ShownMetrics = Annotated[
    list[ShownMetric], BeforeValidator(_named, json_schema_input_type=list[str | ShownMetric])
]


def _as_mapping(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


CompareBy = Annotated[
    ComparedMetric, BeforeValidator(_as_mapping, json_schema_input_type=str | ComparedMetric)
]
