"""What the commands share: their common options, and how an error is told."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainers.errors import InputError, TandemError, one_line

if TYPE_CHECKING:
    from orchestrator.clusters.job_bundle import Package
    from orchestrator.experiment.spec import Experiment

_ON = "A Ray cluster's dashboard, such as http://head:8265; or kuberay, or kuberay:CONTEXT."

ExperimentFile = Annotated[Path, typer.Argument(metavar="FILE", help="Experiment file (YAML).")]
ResultsDirectory = Annotated[
    str, typer.Argument(metavar="DIR", help="Results of an experiment: a directory or URL.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override a field, such as keras.epochs=2."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]
On = Annotated[str | None, typer.Option("--on", metavar="CLUSTER", help=_ON)]
Cluster = Annotated[str, typer.Option("--on", metavar="CLUSTER", help=_ON)]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Of Kubernetes; the context's own when left out."),
]
Searches = Annotated[bool, typer.Option("--sweep", help="Search the arms first, as tandem sweep.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def load(file: Path, set_: list[str] | None, *, searches: bool) -> Experiment:
    """Read an experiment file.

    Raises:
        InputError: it is wrong, or is to be searched without saying how.
    """
    from orchestrator.experiment import reader

    experiment = reader.load(file, set_ or [])
    if searches and experiment.sweep is None:
        raise InputError(f"{file}: has no sweep: block; give one with a space and a budget")
    return experiment


def package(
    experiment: Experiment, module_path: Path, *, searches: bool, scaling: tuple[int, ...] = ()
) -> Package:
    """An experiment with the modules beside it, ready to be shipped."""
    from orchestrator.clusters.job_bundle import Package

    return Package(
        experiment=experiment,
        searches=searches,
        module_path=module_path.resolve(),
        command=sys.argv[1:],
        scaling=scaling,
    )


@contextlib.contextmanager
def errors(debug: bool) -> Iterator[None]:
    """Print an error as one sentence and exit with its code; the traceback is for debugging alone."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("tandem: interrupted", err=True)
        sys.exit(130)
    except Exception as error:
        if debug or isinstance(error, typer.Exit | BrokenPipeError):
            raise
        if isinstance(error, TandemError):
            told, code = str(error), error.exit_code
        else:
            told, code = (
                f"unexpected {one_line(error)}; --debug shows where it came from",
                TandemError.exit_code,
            )
        typer.echo(f"tandem: {told}", err=True)
        sys.exit(code)
