"""The data dictionary: every column of results and epochs files, with a type that does not depend on the values."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from typing import Any, Literal

from orchestrator.analysis.compare import Comparison
from orchestrator.analysis.results import run_json, strict

Type = Literal["string", "int64", "double"]


@dataclasses.dataclass(frozen=True)
class Column:
    """One column; empty where a run or an epoch has no such value."""

    name: str
    type: Type
    description: str


RUNS = (
    Column("arm", "string", "The arm."),
    Column("framework", "string", "keras or torch; empty for a training function."),
    Column("id", "string", "Name of the run's directory."),
    Column("seed", "int64", "The seed."),
    Column("state", "string", "done, failed or unfinished."),
    Column("cause", "string", "Why it failed."),
    Column("restarts", "int64", "Times that workers were lost and started again."),
    Column("resumes", "int64", "Further starts of the driver that continued it."),
    Column("workers", "int64", "Data-parallel workers of the last attempt."),
    Column("precision", "string", "What the last attempt computed in."),
    Column("startup_seconds", "double", "From the request for workers to the first step."),
    Column("images_per_second", "double", "Median over the epochs after the first."),
    Column(
        "train_seconds",
        "double",
        "Data and step time over all epochs; of a training function its whole time.",
    ),
    Column("tested_epoch", "int64", "The epoch whose weights were tested."),
    Column("reports", "int64", "Reports of a training function."),
    Column("metric", "string", "The metric that arms are compared by."),
    Column("score", "double", "Its value."),
    Column("test_accuracy", "double", "Share of the test images that were classified correctly."),
    Column("test_loss", "double", "Mean loss on the test images; empty if it is no number."),
    Column("balanced_accuracy", "double", "Mean of the classes' own accuracies."),
)
"""Of results.csv and results.parquet: a row for each run."""

EPOCHS = (
    Column("arm", "string", "The arm."),
    Column("seed", "int64", "The seed."),
    Column("run", "string", "Name of the run's directory."),
    Column("epoch", "int64", "From 1."),
    Column("step", "int64", "Steps taken since the start of the run."),
    Column("train_loss", "double", "Mean over the epoch's training images; NaN if it diverged."),
    Column(
        "train_accuracy",
        "double",
        "Share of them that were classified correctly, as the model was when it saw each.",
    ),
    Column("validation_loss", "double", "Mean over the validation images."),
    Column("validation_accuracy", "double", "Share of the validation images that were classified correctly."),
    Column("validation_balanced_accuracy", "double", "Mean of the classes' own accuracies there."),
    Column("learning_rate", "double", "At the end of the epoch; empty for an optimizer of your own."),
    Column("images_per_second", "double", "Training images over data and step time, of all workers."),
    Column("data_seconds", "double", "Time spent waiting for data, of the slowest worker."),
    Column("step_seconds", "double", "Time of the training steps, of the slowest worker."),
    Column("compile_seconds", "double", "Time of tracing and compiling, of the slowest worker."),
    Column("evaluation_seconds", "double", "Time of the evaluation, of the slowest worker."),
    Column("checkpoint_seconds", "double", "Time that the checkpoint held training up."),
    Column("seconds_since_start", "double", "Wall time since the attempt began."),
    Column("memory_peak_bytes", "double", "Peak resident memory of the largest worker."),
    Column("energy_joules", "double", "Of the nodes' processors and GPUs, whatever ran there."),
    Column("others_share", "double", "Share of the machine's CPU time that other programs took."),
)
"""Of epochs.csv and epochs.parquet: a row for each finished epoch of each run."""


METRICS = (
    Column("arm", "string", "The arm."),
    Column("id", "string", "Name of the run's directory."),
    Column("seed", "int64", "The seed."),
    Column("metric", "string", "A metric that the run has."),
    Column(
        "value",
        "double",
        "Its value: the last that was reported, or of the tested epoch, the test or the predictions.",
    ),
)
"""Of metrics.csv and metrics.parquet: a row for each metric of each finished run."""

REPORTS = (
    Column("arm", "string", "The arm."),
    Column("id", "string", "Name of the run's directory."),
    Column("seed", "int64", "The seed."),
    Column("report", "int64", "Which report of the training function."),
    Column("seconds", "double", "That the training function had run by then, over all attempts."),
    Column("metric", "string", "A metric of it."),
    Column("value", "double", "Its value."),
)
"""Of reports.csv and reports.parquet: a row for each metric of each report; no file without a training function."""


def run_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """A row for each run."""
    return [
        {"arm": arm.name, "framework": arm.framework} | strict(_without_metrics(run_json(run, arm.metric)))
        for arm in comparison.arms
        for run in arm.runs
    ]


def epoch_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """A row for each finished epoch."""
    return [
        {"arm": run.arm, "seed": run.seed, "run": run.id} | epoch
        for arm in comparison.arms
        for run in arm.runs
        for epoch in run.epochs
    ]


def _without_metrics(run: dict[str, Any]) -> dict[str, Any]:
    """They have a file of their own."""
    return {name: value for name, value in run.items() if name != "metrics"}


def metric_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """A row for each metric of each finished run."""
    return [
        {"arm": arm.name, "id": run.id, "seed": run.seed, "metric": name, "value": value}
        for arm in comparison.arms
        for run in arm.runs
        for name, value in run.metrics.items()
    ]


def report_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """A row for each metric of each report."""
    return [
        {"arm": arm.name, "id": run.id, "seed": run.seed, "metric": name, "value": value}
        | {"report": line["report"], "seconds": seconds}
        for arm in comparison.arms
        for run in arm.runs
        for line, seconds in zip(run.reports, run.report_seconds, strict=True)
        for name, value in line["metrics"].items()
    ]


def files(columns: Sequence[Column], rows: Sequence[dict[str, Any]]) -> tuple[bytes, bytes]:
    """The rows as CSV and as Parquet; what has no column is left out.

    Parquet holds the descriptions as metadata of its fields.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    schema = pa.schema(
        [
            pa.field(
                column.name,
                getattr(pa, _FACTORIES[column.type])(),
                metadata={"description": column.description},
            )
            for column in columns
        ]
    )
    arrays = [
        pa.array([_cast(row.get(column.name), column.type) for row in rows], field.type)
        for column, field in zip(columns, schema, strict=True)
    ]
    table = pa.Table.from_arrays(arrays, schema=schema)
    text, binary = io.BytesIO(), io.BytesIO()
    csv.write_csv(table, text)
    parquet.write_table(table, binary)
    return text.getvalue(), binary.getvalue()


_FACTORIES: dict[Type, str] = {"string": "string", "int64": "int64", "double": "float64"}


def _cast(value: Any, kind: Type) -> Any:
    if value is None or isinstance(value, bool):
        return None
    if kind == "string":
        return value if isinstance(value, str) else str(value)
    if not isinstance(value, int | float):
        return None
    return float(value) if kind == "double" else int(value)


def markdown() -> str:
    """The dictionary as the tables of docs/data-dictionary.md."""
    lines = []
    for name, columns in (("results", RUNS), ("metrics", METRICS), ("epochs", EPOCHS), ("reports", REPORTS)):
        title = f"{name}.csv, {name}.parquet"
        lines += [f"## {title}", "", "| column | type | meaning |", "|---|---|---|"]
        lines += [f"| `{column.name}` | {column.type} | {column.description} |" for column in columns]
        lines.append("")
    return "\n".join(lines)
