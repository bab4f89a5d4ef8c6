"""Commands that take an experiment file, and `resume`, which takes its results: check, train, measure."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import (
    LOCAL,
    AsJson,
    Debug,
    ExperimentFile,
    Namespace,
    On,
    Overrides,
    ResultsDirectory,
    bundle_of,
    errors,
    read_job,
)
from trainers.errors import InputError, TandemError

if TYPE_CHECKING:
    from orchestrator.clusters.job_bundle import JobBundle

app = typer.Typer()
bench = typer.Typer(help="Measure an experiment's work.", no_args_is_help=True)


@app.command()
def run(
    file: ExperimentFile,
    on: On = LOCAL,
    namespace: Namespace = None,
    set_: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train every arm, here or on a cluster, then write the report."""
    with errors(debug):
        _run(read_job(file, set_), on, namespace, as_json)


@app.command()
def sweep(
    file: ExperimentFile,
    on: On = LOCAL,
    namespace: Namespace = None,
    set_: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Search the arms under equal budgets, then compare the winners."""
    with errors(debug):
        _run(read_job(file, set_, searches=True), on, namespace, as_json)


@app.command()
def attribute(
    file: ExperimentFile,
    on: On = LOCAL,
    namespace: Namespace = None,
    set_: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure how much each difference between two arms contributes."""
    with errors(debug):
        _run(read_job(file, set_, attributes=True), on, namespace, as_json)


@app.command()
def resume(
    directory: ResultsDirectory,
    on: On = LOCAL,
    namespace: Namespace = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Go on with an interrupted or failed experiment. Finished runs are kept."""
    with errors(debug):
        from orchestrator.experiment import spec
        from orchestrator.store import modules
        from orchestrator.store.records import ExperimentRecords
        from orchestrator.store.storage import Storage

        storage = Storage(directory)
        document = ExperimentRecords(storage).document()
        sweep = document.get("sweep")
        described = (sweep or document.get("attribution") or document)["experiment"]
        experiment = spec.from_json(described)
        module_path = modules.directory_for(storage, described, Path(document["module_path"]))
        bundle = bundle_of(experiment, module_path, searches=sweep is not None, resumes=directory)
        _run(bundle, on, namespace, as_json)


@app.command()
def check(
    file: ExperimentFile,
    on: On = LOCAL,
    namespace: Namespace = None,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="On Kubernetes, check data and storage from a head pod."),
    ] = False,
    set_: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check an experiment and estimate its time; train nothing.

    Checks its data, its storage and the resources for it.
    """
    with errors(debug):
        from orchestrator.clusters.registry import open_cluster

        cluster, bundle = open_cluster(on, namespace=namespace), read_job(file, set_)
        if as_json:
            typer.echo(json.dumps(cluster.check_results(bundle, probes=probe), indent=1))
            return
        for line in cluster.check(bundle, probes=probe):
            typer.echo(line)


@app.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="Experiment file to write.")] = Path(
        "experiment.yaml"
    ),
    data: Annotated[
        str | None,
        typer.Option(metavar="WHERE", help="A folder or file of images, or the name of a data source."),
    ] = None,
    train_loop: Annotated[
        str | None,
        typer.Option(metavar="FUNCTION", help="A training function of your own, as package.module:function."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Write an experiment file. For your images, or for a training function of your own."""
    with errors(debug):
        from orchestrator.execution.monitoring import environment
        from orchestrator.planning import template
        from trainers.contract import FRAMEWORKS

        if file.exists():
            raise InputError(f"{file} exists; give another file, such as tandem init other.yaml")
        if data is not None and train_loop is not None:
            raise InputError("--data and --train-loop exclude each other; give one of the two")
        missing = environment.missing_frameworks(FRAMEWORKS)
        frameworks = [name for name in FRAMEWORKS if name not in missing] or [*FRAMEWORKS]
        if data is None and train_loop is None and sys.stdin.isatty() and sys.stdout.isatty():
            question = "Folder or file of images (nothing for handwritten digits)"
            data = typer.prompt(question, default="", show_default=False) or None
            if len(frameworks) > 1:
                both = " and ".join(frameworks)
                chosen = typer.prompt("Frameworks to compare", default=both)
                frameworks = [name for name in frameworks if name in chosen.split()] or frameworks
        if train_loop is not None:
            text = template.for_train_loop(train_loop, directory=file.parent)
        else:
            text = template.for_data(data, directory=file.parent, frameworks=frameworks)
        try:
            file.write_text(text)
        except OSError as error:
            raise InputError(f"{file}: cannot be written: {error.strerror}; give another file") from error
        typer.echo(f"{file} is written; next: tandem check {file}")


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
        from orchestrator.analysis.parity import compare
        from orchestrator.execution import driver
        from orchestrator.execution.monitoring import environment
        from orchestrator.execution.ray_runtime import local_ray
        from orchestrator.experiment import reader
        from orchestrator.planning import preflight
        from orchestrator.planning.parity_plan import works
        from trainers.contract import FRAMEWORKS

        experiment, module_path = reader.load(file, set_ or []), file.parent.resolve()
        found, missing = works(experiment)
        if not found:
            raise InputError(f"{file}: {missing[0]}")
        environment.require_frameworks(FRAMEWORKS)
        prepared = preflight.prepare(experiment, preflight.open_records(experiment), module_path=module_path)
        with local_ray():
            traces = driver.trace_parity(prepared, found, module_path=module_path, steps=steps)
        compared = [
            (work, compare(pair[0], pair[1], FRAMEWORKS)) for work, pair in zip(found, traces, strict=True)
        ]
        if as_json:
            results = [
                {"arms": work.arms, "recipe": work.recipes[0].model_dump(mode="json")} | result.json()
                for work, result in compared
            ]
            typer.echo(json.dumps(results, indent=1))
        else:
            for work, result in compared:
                typer.echo(f"{', '.join(work.arms)}: {result.sentence()}")
            for sentence in missing:
                typer.echo(sentence, err=True)
    if not all(result.agrees for _, result in compared):
        raise typer.Exit(1)


@app.command()
def schema() -> None:
    """Print the JSON schema of experiment files, for editors."""
    from orchestrator.experiment import spec

    typer.echo(json.dumps(spec.json_schema(), indent=2))


@bench.command()
def scaling(
    file: ExperimentFile,
    workers: Annotated[str, typer.Option(help="Numbers of workers to measure.")] = "1,2",
    simulate: Annotated[
        str | None,
        typer.Option(help="Measure nothing; predict these numbers of workers from what was measured."),
    ] = None,
    workers_per_node: Annotated[int, typer.Option(min=1, help="Of the cluster to predict for.")] = 1,
    link_gbit: Annotated[
        float | None, typer.Option(help="Speed between its nodes, in Gbit/s; as measured when left out.")
    ] = None,
    on: On = LOCAL,
    namespace: Namespace = None,
    set_: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure every arm on 1, 2, … workers, and predict larger scales."""
    with errors(debug):
        from orchestrator.analysis import scaling

        if simulate is not None:
            _simulate(file, set_, _numbers("--simulate", simulate), workers_per_node, link_gbit, as_json)
            return
        bundle = read_job(file, set_, scaling=_worker_counts(workers))
        scaling.variants(bundle.spec.experiment, bundle.spec.scaling)  # reports errors before submission
        _run(bundle, on, namespace, as_json)


@bench.command()
def gpu(
    file: ExperimentFile,
    on: On = LOCAL,
    namespace: Namespace = None,
    set_: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure every arm on one GPU, and what would be faster.

    Tries compilation, bfloat16 and larger batches, one at a time.
    """
    with errors(debug):
        from orchestrator.analysis import gpu_profile

        bundle = read_job(file, set_, profiles_gpu=True)
        if not bundle.spec.experiment.scale.gpus_per_worker:
            raise InputError(
                f"{file}: scale.gpus_per_worker is 0; give --set scale.gpus_per_worker=1 to measure on a GPU"
            )
        gpu_profile.variants(bundle.spec.experiment)  # reports errors before submission
        _run(bundle, on, namespace, as_json)


def _simulate(
    file: Path,
    set_: list[str] | None,
    workers: tuple[int, ...],
    workers_per_node: int,
    link_gbit: float | None,
    as_json: bool,
) -> None:
    """Print what larger scales are predicted to reach, from the measurements in the experiment's storage."""
    import dataclasses

    from orchestrator.analysis import scaling, scaling_simulator
    from orchestrator.experiment import reader
    from orchestrator.planning import preflight

    if link_gbit is not None and link_gbit <= 0:
        raise InputError(f"--link-gbit {link_gbit:g}: give a speed above 0, such as 100")
    experiment = reader.load(file, set_ or [])
    storage = preflight.open_records(experiment).storage.at("scaling")
    scales = storage.read_json("scaling.json")
    if scales is None:
        raise InputError(f"{storage.url}: nothing was measured; first give tandem bench scaling {file}")
    made = {
        mode: [
            scaling_simulator.forecast(
                arm,
                points,
                workers=workers,
                workers_per_node=workers_per_node,
                link_bytes_per_second=None if link_gbit is None else link_gbit * 1e9 / 8,
                overlaps=experiment.scale.gpus_per_worker > 0,
                price_per_worker_hour=experiment.scale.price_per_worker_hour,
                mode=mode,
            )
            for arm, points in scaling_simulator.points_of(scales).items()
        ]
        for mode in scaling.MODES
    }
    if as_json:
        typer.echo(
            json.dumps(
                {mode: [dataclasses.asdict(of) for of in each] for mode, each in made.items()}, indent=1
            )
        )
        return
    for mode, forecasts in made.items():
        for each in forecasts:
            for line in scaling_simulator.lines(each, mode=mode):
                typer.echo(line)


def _worker_counts(text: str) -> tuple[int, ...]:
    counts = _numbers("--workers", text)
    if len(counts) < 2:
        raise InputError(f"--workers {text!r}: give at least two numbers, such as 1,2,4")
    return counts


def _numbers(option: str, text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise InputError(f"{option} {text!r}: give numbers of workers, such as 1,2,4")
    return tuple(sorted({int(part) for part in parts}))


def _run(bundle: JobBundle, on: str, namespace: str | None, as_json: bool) -> None:
    """Run a job on a cluster to its end and print the outcome."""
    from orchestrator.clusters.registry import open_cluster
    from orchestrator.execution.monitoring.progress import open_console

    outcome = open_cluster(on, namespace=namespace).run(bundle, open_console(sys.stderr))
    if not as_json:
        for line in outcome.lines:
            typer.echo(line)
    elif outcome.results is not None:
        typer.echo(outcome.results)
    if outcome.error is not None:
        raise TandemError(outcome.error)
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)
