"""Commands that take the results of an experiment: report, compare, serve, export, predict, copy."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import (
    LOCAL,
    AsJson,
    Debug,
    Namespace,
    On,
    ResultsDirectory,
    errors,
    read_job,
)
from trainers.errors import InputError

app = typer.Typer()


@app.command()
def report(
    directory: ResultsDirectory,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-if", metavar="CONDITION", help="Exit with 1 if this holds, such as torch.accuracy < 0.9."
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the conditions and runs as JUnit XML, for CI.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write the report again, from the records alone."""
    with errors(debug):
        from orchestrator import report as reports
        from orchestrator.analysis import results
        from orchestrator.report import gate
        from orchestrator.store import checked_files, validation
        from orchestrator.store.records import ExperimentRecords
        from orchestrator.store.storage import Storage

        records = ExperimentRecords(Storage(directory))
        arms = validation.read_document(records, checked_files.Left())["experiment"]["arms"]
        conditions = [gate.parse(text, arms) for text in fail_if or []]
        comparison = reports.write(records)
        if as_json:
            typer.echo(json.dumps(results.document(comparison), indent=1))
        else:
            typer.echo(comparison.conclusion)
            typer.echo(f"report: {records.storage.url}/report/report.html")
        outcomes = gate.judge(comparison, conditions)
        if junit is not None:
            _write(junit, "--junit", gate.junit(comparison, outcomes))
        for outcome in outcomes:
            if outcome.failed:
                typer.echo(f"fails: {outcome}", err=True)
    if any(outcome.failed for outcome in outcomes):
        raise typer.Exit(1)


def _write(file: Path, option: str, content: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    except OSError as error:
        raise InputError(
            f"{option} {file}: cannot be written: {error.strerror}; give another file"
        ) from error


@app.command("compare")
def compare_(
    first: Annotated[str, typer.Argument(metavar="DIR", help="Results of an experiment.")],
    second: Annotated[
        str, typer.Argument(metavar="DIR", help="Results of another experiment, or of another day.")
    ],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare the arms of two experiments, name by name. Shows what changed, and whether chance explains it."""
    with errors(debug):
        from orchestrator.analysis import experiment_diff
        from orchestrator.analysis.results import strict
        from orchestrator.store.records import ExperimentRecords
        from orchestrator.store.storage import Storage

        notes: list[str] = []
        sides = (ExperimentRecords(Storage(directory)) for directory in (first, second))
        found = experiment_diff.between(*sides, notes=notes)
        for note in notes:
            typer.echo(note, err=True)
        if as_json:
            typer.echo(json.dumps([strict(change.to_json()) for change in found], indent=1))
            return
        for change in found:
            typer.echo(str(change))


@app.command()
def serve(
    directory: Annotated[
        str, typer.Argument(metavar="DIR", help="Storage that holds experiments.")
    ] = "tandem-results",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for a free one.")] = 8080,
    host: Annotated[
        str, typer.Option(help="Address to listen on; other users can read the reports.")
    ] = "127.0.0.1",
    debug: Debug = False,
) -> None:
    """Browse the reports of many experiments; read-only."""
    with errors(debug):
        from orchestrator.report.server import listen
        from orchestrator.store.storage import Storage

        server = listen(Storage(directory), host, port)
        typer.echo(f"http://{host}:{server.server_address[1]}")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


@app.command()
def model(
    directory: ResultsDirectory,
    to: Annotated[Path, typer.Argument(metavar="MODEL", help="Directory to write the model to.")],
    arm: Annotated[
        str | None, typer.Option(metavar="NAME", help="Write this arm's model instead of the best.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Export an experiment's best model. With its preprocessing, class names and a model card."""
    with errors(debug):
        from orchestrator.execution.monitoring import environment
        from orchestrator.report import exported_model
        from orchestrator.store.records import ExperimentRecords
        from orchestrator.store.storage import Storage

        saved = exported_model.save(ExperimentRecords(Storage(directory)), to, arm=arm)
        typer.echo(saved.choice)
        typer.echo(f"{to}: {', '.join(saved.files)}")
        if "model.onnx" not in saved.files:
            typer.echo(f"note: for an ONNX file, {environment.install_command(['onnx'])}", err=True)


@app.command()
def predict(
    directory: Annotated[Path, typer.Argument(metavar="MODEL", help="Directory that tandem model wrote.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Image files, or folders of them.")],
    top: Annotated[int, typer.Option(min=1, help="Most probable classes to give.")] = 1,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the predictions to a .csv or .json file.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Classify images with an exported model."""
    with errors(debug):
        from orchestrator.execution.monitoring.progress import open_console
        from orchestrator.report import exported_model

        if out is not None and out.suffix.lower() not in (".csv", ".json"):
            raise InputError(f"--out {out}: give a file that ends in .csv or .json")
        with open_console(sys.stderr).status("reading and classifying the images"):
            predictions, broken = exported_model.predict(directory, images, top=top)
        for picture in broken:
            typer.echo(f"note: {picture.name} cannot be read and was left out: {picture.reason}", err=True)
        as_text = json.dumps([dataclasses.asdict(prediction) for prediction in predictions], indent=1)
        if out is not None:
            is_csv = out.suffix.lower() == ".csv"
            _write(out, "--out", (exported_model.as_csv(predictions) if is_csv else f"{as_text}\n").encode())
            typer.echo(f"{len(predictions)} predictions are in {out}")
        elif as_json:
            typer.echo(as_text)
        else:
            for prediction in predictions:
                likely = ", ".join(f"{each.label} ({each.probability:.1%})" for each in prediction.top)
                typer.echo(f"{prediction.image}: {likely}")


@app.command()
def export(
    directory: ResultsDirectory,
    to: Annotated[str, typer.Option(metavar="URL", help="An Optuna storage, such as sqlite:///study.db.")],
    debug: Debug = False,
) -> None:
    """Write a sweep's trials into an Optuna storage. Each arm becomes a study, for Optuna's dashboard."""
    with errors(debug):
        from orchestrator.store.records import ExperimentRecords
        from orchestrator.store.storage import Storage
        from orchestrator.sweep import studies

        for name in studies.export(ExperimentRecords(Storage(directory)), to):
            typer.echo(f"study {name}: optuna-dashboard {to}")


@app.command()
def fetch(
    results: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="Results of an experiment; with --on, the experiment file, for results on a claim.",
        ),
    ],
    to: Annotated[Path, typer.Argument(metavar="DIR", help="Directory to copy them to.")],
    on: On = LOCAL,
    namespace: Namespace = None,
    checkpoints: Annotated[bool, typer.Option(help="Copy checkpoints as well.")] = False,
    debug: Debug = False,
) -> None:
    """Copy an experiment's records and report to a directory here."""
    with errors(debug):
        from orchestrator.clusters.registry import open_cluster
        from orchestrator.store.records import CHECKPOINTS
        from orchestrator.store.storage import Storage

        skip = None if checkpoints else CHECKPOINTS
        if on == LOCAL:
            copied = Storage(results).copy_to(to, skip=skip)
        else:
            cluster = open_cluster(on, namespace=namespace)
            copied = cluster.fetch(read_job(Path(results), None), to, skip=skip)
        typer.echo(f"{copied} files in {to}")
