"""The `tandem` command, put together from the groups of commands."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated

import typer

from orchestrator.cli import cache_commands, experiment_commands, job_commands, results_commands

app = typer.Typer(
    name="tandem",
    help="Train the same work in Keras and PyTorch on Ray, and compare them honestly.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its import takes longer than the rest of --help
)
app.add_typer(experiment_commands.app)
app.add_typer(experiment_commands.bench, name="bench")
app.add_typer(results_commands.app)
app.add_typer(job_commands.app)
app.add_typer(cache_commands.app, name="cache")


def _print_version(given: bool) -> None:
    if given:
        from orchestrator.execution.monitoring import environment

        typer.echo(environment.versions())
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the versions of tandem and its parts.",
        ),
    ] = False,
) -> None:
    """Options of `tandem` itself."""


def main() -> None:
    """Entry point. Warnings of libraries are shown with Python's option -W or $PYTHONWARNINGS only."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    app()
