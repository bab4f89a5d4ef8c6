"""What the analysis needs of each record, as models that refuse everything else. `validation` applies them.

Fields that are not known here stay, so that records of a later version can be read as far as they are known.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.experiment.spec import NAME

_LARGEST = 2**53

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=_LARGEST)]
Positive = Annotated[int, Field(gt=0, le=_LARGEST)]
Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$", max_length=40)]
RunId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,99}$")]
"""Names that become parts of paths: no dots, no slashes."""


MetricName = Annotated[str, Field(min_length=1, max_length=100)]
Unit = Annotated[str, Field(min_length=1, max_length=20)]
Reported = dict[MetricName, float | None]
"""Metrics by name; one that is no number is null, or NaN."""


class Checked(BaseModel):
    """Refuses wrong types and keeps fields that it does not know."""

    model_config = ConfigDict(strict=True, extra="allow")


class Workers(Checked):
    """An elastic number of workers."""

    min: Positive
    max: Positive


class Scale(Checked):
    """Workers of a run."""

    workers: Positive | Workers
    cpus_per_worker: Positive
    gpus_per_worker: Amount = 0
    price_per_worker_hour: Amount | None = None


class ShownMetric(Checked):
    """A metric to show."""

    name: MetricName
    unit: Unit | None = None


class ComparedMetric(ShownMetric):
    """The metric that arms are compared by."""

    goal: Literal["maximize", "minimize"] | None = None
    margin: Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)] | None = None


class Experiment(Checked):
    """The experiment as it was understood; its arms are checked one by one."""

    name: Name
    arms: dict[str, Any]
    scale: Scale
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.01
    metric: ComparedMetric | None = None
    metrics: list[ShownMetric] = Field(default_factory=list)
    target_accuracy: Share | None = None
    baseline: str | None = None
    measure_speed: bool = False


class Arm(Checked):
    """One arm of it."""

    framework: Literal["keras", "torch"]
    seeds: Annotated[list[Count], Field(min_length=1)]
    epochs: Positive


class TrainLoopArm(Checked):
    """One arm that is a training function of the user's own."""

    train_loop: str
    seeds: Annotated[list[Count], Field(min_length=1)]
    trainer: str | None = None


class TrainLoopEntry(Checked):
    """A run of such an arm in the list of an experiment."""

    id: RunId
    arm: Name
    seed: Count


class RunEntry(TrainLoopEntry):
    """A run in the list of an experiment."""

    framework: Literal["keras", "torch"]


class Data(Checked):
    """What is known of the data."""

    fingerprint: str
    class_names: Annotated[list[str], Field(min_length=1)]
    image_shape: Annotated[list[Positive], Field(min_length=3, max_length=3)]
    train_images: Count
    validation_images: Count
    test_images: Count
    groups: dict[str, Count] | None = None
    warnings: list[str]


class Document(Checked):
    """experiment.json."""

    experiment: Experiment
    runs: list[Any]
    data: Data | None = None
    """None where no arm is built in."""
    attribution: Any = None
    sweep: Any = None
    module_path: str | None = None
    version: Annotated[int, Field(alias="schema")] = 1


class Environment(Checked):
    """A machine."""

    python: str
    system: str
    cpu: str
    cpus: Positive
    gpus: list[str]
    memory_gib: Amount
    packages: dict[str, str | None]
    commit: str | None = None


class DriverSession(Checked):
    """A line of sessions.jsonl."""

    driver_session: str
    command: list[str]
    environment: Environment


class WorkerEnvironment(Checked):
    """What the first worker of an attempt had."""

    settings: dict[str, str | int | float | bool | None] = Field(default_factory=dict)


class Attempt(Checked):
    """A line of attempts.jsonl."""

    driver_session: str
    workers: Positive
    startup: dict[str, Amount] = Field(default_factory=dict)
    precision: str | None = None
    environment: WorkerEnvironment | None = None


class Failure(Checked):
    """A line of failures.jsonl."""

    cause: str
    permanent: bool


class Epoch(Checked):
    """A line of epochs.jsonl. Losses may be no number, since they diverge."""

    epoch: Positive
    step: Count | None = None
    learning_rate: Amount | None = None
    seconds_since_start: Amount | None = None
    train_loss: float
    train_accuracy: Share
    validation_loss: float | None
    validation_accuracy: Share | None
    validation_balanced_accuracy: Share | None = None
    images_per_second: Amount
    data_seconds: Amount
    step_seconds: Amount
    evaluation_seconds: Amount
    checkpoint_seconds: Amount
    memory_peak_bytes: Amount | None = None
    energy_joules: Amount | None = None
    others_share: Share | None = None
    compile_seconds: Amount = 0


class Result(Checked):
    """result.json."""

    test_accuracy: Share
    test_loss: float
    confusion: list[list[Count]]
    test_seconds: Amount
    parameters: Count | None = None
    tested_epoch: Count | None = None
    corruption_robustness: dict[str, Annotated[list[Share], Field(min_length=4, max_length=4)]] | None = None
    forward_flops: Amount | None = None
    matmul_flops: Amount | None = None
    latency_seconds: Amount | None = None
    predictions_per_second: Amount | None = None
    device_memory_peak_bytes: Amount | None = None


class Report(Checked):
    """A line of reports.jsonl: what a training function reported, and how long after its start."""

    report: Count
    seconds: Amount
    metrics: Reported


class TrainLoopResult(Checked):
    """result.json of a training function's run: the last value of each metric."""

    metrics: Reported
    reports: Count
    training_seconds: Amount
    startup_seconds: Amount | None = None
    workers: Positive | None = None
    trainer: str | None = None
    note: str | None = None


class Scaling(Checked):
    """One arm in scaling.json."""

    measured: dict[Literal["strong", "weak"], dict[str, Amount]] = Field(alias="efficiency")
    predicted: dict[Literal["strong", "weak"], dict[str, Amount]] = Field(alias="predicted_efficiency")


class Plan(Checked):
    """Which recipes an attribution trains."""

    first: Name
    second: Name
    factors: Annotated[list[str], Field(min_length=1)]
    orders: list[list[str]]
    choices: dict[Name, list[str]]
