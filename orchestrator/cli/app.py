"""The `tandem` command. Imports what a command needs when it runs, so that --help stays quick."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import cluster_commands
from orchestrator.cli.options import (
    AsJson,
    Debug,
    ExperimentFile,
    Namespace,
    On,
    Overrides,
    ResultsDirectory,
    errors,
    load,
    package,
)
from trainers.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.analysis.compare import Comparison
    from orchestrator.experiment.spec import Experiment
    from orchestrator.store.records import ExperimentRecords

app = typer.Typer(
    name="tandem",
    help="Train the same work in Keras and PyTorch on Ray, and compare them honestly.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing it takes longer than all the rest of --help
)

bench = typer.Typer(help="Measure an experiment's work.", no_args_is_help=True)
app.add_typer(bench, name="bench")
app.add_typer(cluster_commands.app)


@app.command()
def run(
    file: ExperimentFile,
    on: On = None,
    namespace: Namespace = None,
    set_: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train every arm, here or on a cluster, then write the report."""
    with errors(debug):
        _run(file, on, namespace, set_, as_json, searches=False)


@app.command()
def sweep(
    file: ExperimentFile,
    on: On = None,
    namespace: Namespace = None,
    set_: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Search the arms under equal budgets, then compare the winners."""
    with errors(debug):
        _run(file, on, namespace, set_, as_json, searches=True)


@app.command()
def attribute(
    file: ExperimentFile,
    on: On = None,
    namespace: Namespace = None,
    set_: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train the recipes between two arms, and say whose the gap is."""
    with errors(debug):
        _run(file, on, namespace, set_, as_json, searches=False, attributes=True)


@app.command()
def resume(
    directory: ResultsDirectory,
    on: On = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Go on with an interrupted or failed experiment. What is done stays done."""
    with errors(debug):
        from orchestrator.experiment import spec
        from orchestrator.store.records import ExperimentRecords
        from orchestrator.store.storage import Storage

        records = ExperimentRecords(Storage(directory))
        document = records.document()
        sweep = document.get("sweep")
        experiment = spec.from_json((sweep or document.get("attribution") or document)["experiment"])
        module_path, searches = Path(document["module_path"]), sweep is not None
        if on is not None:
            cluster_commands.run_on(
                on, namespace, package(experiment, module_path, searches=searches), as_json
            )
            return
        _train_and_report(experiment, records, module_path, as_json, searches=searches)


@app.command()
def check(
    file: ExperimentFile,
    on: On = None,
    namespace: Namespace = None,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Start a head pod on Kubernetes that looks at data and storage there."),
    ] = False,
    set_: Overrides = None,
    debug: Debug = False,
) -> None:
    """Check an experiment and estimate its time; train nothing.

    Looks at its data, its storage and the room for it.
    """
    with errors(debug):
        from orchestrator import workflows

        experiment = load(file, set_, searches=False)
        if on is None:
            fit = workflows.local_capacity(experiment.scale)
            lines = workflows.check(experiment, fit=fit)
        else:
            from orchestrator.clusters.interface import open_cluster

            shipped = package(experiment, file.parent, searches=False)
            lines = open_cluster(on, namespace=namespace).check(shipped, probes=probe)
        for line in lines:
            typer.echo(line)


@app.command()
def parity(
    file: ExperimentFile,
    steps: Annotated[int, typer.Option(min=1, help="Steps to train for.")] = 100,
    set_: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check step by step that both frameworks do the same work."""
    with errors(debug):
        from orchestrator.execution import driver
        from orchestrator.execution.ray_runtime import local_ray
        from orchestrator.experiment import reader

        experiment = reader.load(file, set_ or [])
        if len({arm.framework for arm in experiment.arms.values()}) < 2:
            raise InputError(f"{file}: parity needs an arm of each framework, keras and torch")
        prepared = driver.prepare(experiment, driver.open_records(experiment))
        with local_ray():
            compared = driver.check_parity(prepared, steps=steps)
        if not compared:
            raise InputError(f"{file}: parity needs a built-in model; your own has no twin to compare")
        if as_json:
            results = [
                {"recipe": recipe.model_dump(mode="json"), "agrees": result.agrees}
                | dataclasses.asdict(result)
                for recipe, result in compared
            ]
            typer.echo(json.dumps(results, indent=1))
        else:
            for recipe, result in compared:
                typer.echo(f"{recipe.model}, {recipe.optimizer.name}: {result.sentence()}")
    if not all(result.agrees for _, result in compared):
        raise typer.Exit(1)


@bench.command()
def scaling(
    file: ExperimentFile,
    workers: Annotated[str, typer.Option(help="Numbers of workers to measure.")] = "1,2",
    on: On = None,
    namespace: Namespace = None,
    set_: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure every arm on 1, 2, … workers, and predict larger scales."""
    with errors(debug):
        from orchestrator import workflows
        from orchestrator.analysis import scaling
        from orchestrator.execution import driver

        experiment = load(file, set_, searches=False)
        counts = _worker_counts(workers)
        if on is not None:
            scaling.variants(experiment, counts)  # refuses what would be refused there
            shipped = package(experiment, file.parent, searches=False, scaling=counts)
            cluster_commands.run_on(on, namespace, shipped, as_json)
            return
        records = driver.open_records(experiment)
        with _interruptible(f"what was measured is kept in {records.storage.url}") as console:
            scales = workflows.measure_scaling(
                experiment, records, file.resolve().parent, console, workers=counts
            )
        if as_json:
            typer.echo(json.dumps(scales, indent=1))
            return
        for line in scaling.sentences(scales, results=records.storage.url):
            typer.echo(line)


def _worker_counts(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    counts = sorted({int(part) for part in parts if part.isdecimal()})
    if not all(part.isdecimal() for part in parts) or len(counts) < 2 or counts[0] < 1:
        raise InputError(f"--workers {text!r}: give at least two numbers, such as 1,2,4")
    return tuple(counts)


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
    """Make the report again, from the records alone."""
    with errors(debug):
        from orchestrator import validation
        from orchestrator.report import gate
        from orchestrator.store.records import ExperimentRecords
        from orchestrator.store.storage import Storage

        records = ExperimentRecords(Storage(directory))
        arms = validation.read_document(records, validation.Left())["experiment"]["arms"]
        conditions = [gate.parse(text, arms) for text in fail_if or []]
        comparison = _report(records, as_json)
        outcomes = gate.judge(comparison, conditions)
        if junit is not None:
            _write_junit(junit, gate.junit(comparison, outcomes))
        for outcome in outcomes:
            if outcome.failed:
                typer.echo(f"fails: {outcome}", err=True)
    if any(outcome.failed for outcome in outcomes):
        raise typer.Exit(1)


def _write_junit(file: Path, content: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    except OSError as error:
        raise InputError(f"--junit {file}: cannot be written: {error.strerror}; give another file") from error


@app.command("compare")
def compare_(
    first: Annotated[str, typer.Argument(metavar="DIR", help="Results of an experiment.")],
    second: Annotated[str, typer.Argument(metavar="DIR", help="Results of another, or of another day.")],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare the arms of two experiments, name by name. Says what changed, and whether it is more than chance."""
    with errors(debug):
        from orchestrator.analysis import experiment_diff
        from orchestrator.results import strict
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
        str, typer.Argument(metavar="DIR", help="Storage with experiments in it.")
    ] = "tandem-results",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of this machine; 0 for a free one.")] = 8080,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others can read what is served.")
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
    to: Annotated[Path, typer.Argument(metavar="MODEL", help="Where the model is written.")],
    arm: Annotated[str | None, typer.Option(metavar="NAME", help="Another arm than the best.")] = None,
    debug: Debug = False,
) -> None:
    """Write an experiment's best model. With its preprocessing, class names and a card."""
    with errors(debug):
        from orchestrator.report import exported_model
        from orchestrator.store.records import ExperimentRecords
        from orchestrator.store.storage import Storage

        written = exported_model.save(ExperimentRecords(Storage(directory)), to, arm=arm)
        typer.echo(f"{to}: {', '.join(written)}")


@app.command()
def predict(
    directory: Annotated[Path, typer.Argument(metavar="MODEL", help="Directory that tandem model wrote.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Picture files.")],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """What a saved model says of pictures."""
    with errors(debug):
        from orchestrator.report import exported_model

        answers = exported_model.predict(directory, images)
        if as_json:
            typer.echo(json.dumps([dataclasses.asdict(answer) for answer in answers], indent=1))
            return
        for answer in answers:
            typer.echo(f"{answer.image}: {answer.label} ({answer.probability:.1%})")


@app.command()
def export(
    directory: ResultsDirectory,
    to: Annotated[str, typer.Option(metavar="URL", help="An Optuna storage, such as sqlite:///study.db.")],
    debug: Debug = False,
) -> None:
    """Write a sweep's trials into an Optuna storage. A study for each arm, for Optuna's dashboard."""
    with errors(debug):
        from orchestrator.store.records import ExperimentRecords
        from orchestrator.store.storage import Storage
        from orchestrator.sweep import studies

        for name in studies.export(ExperimentRecords(Storage(directory)), to):
            typer.echo(f"study {name}: optuna-dashboard {to}")


@app.command()
def schema() -> None:
    """Print the JSON schema of experiment files, for editors."""
    from orchestrator.experiment import spec

    typer.echo(json.dumps(spec.json_schema(), indent=2))


def _run(
    file: Path,
    on: str | None,
    namespace: str | None,
    set_: list[str] | None,
    as_json: bool,
    *,
    searches: bool,
    attributes: bool = False,
) -> None:
    from orchestrator.execution import driver
    from orchestrator.experiment import spec

    experiment = load(file, set_, searches=searches)
    if attributes and experiment.attribution is None:
        experiment = experiment.model_copy(update={"attribution": spec.Attribution()})
    if on is not None:
        cluster_commands.run_on(on, namespace, package(experiment, file.parent, searches=searches), as_json)
        return
    records = driver.open_records(experiment)
    _train_and_report(experiment, records, file.resolve().parent, as_json, searches=searches)


def _train_and_report(
    experiment: Experiment,
    records: ExperimentRecords,
    module_path: Path,
    as_json: bool,
    *,
    searches: bool,
) -> None:
    from orchestrator import workflows

    with _interruptible(f"go on with: tandem resume {records.storage.url}") as console:
        workflows.train(experiment, records, module_path, console, searches=searches, command=sys.argv[1:])
    if _report(records, as_json).failed_runs:
        raise typer.Exit(1)


def _report(records: ExperimentRecords, as_json: bool) -> Comparison:
    """Write the report and tell the answer."""
    from orchestrator import report as reports

    comparison = reports.write(records)
    if as_json:
        typer.echo(json.dumps(comparison.to_json(), indent=1))
    else:
        typer.echo(comparison.answer)
        typer.echo(f"report: {records.storage.url}/report/report.html")
    return comparison


@contextlib.contextmanager
def _interruptible(remedy: str) -> Iterator[Console]:
    """A console for work that Ctrl-C and SIGTERM end alike, with a word on how to go on."""
    from orchestrator.execution.progress import open_console

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    console = open_console(sys.stderr)
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield console
    except KeyboardInterrupt:
        console.print(f"interrupted; {remedy}", soft_wrap=True)
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, previous)


def main() -> None:
    """Entry point."""
    app()
