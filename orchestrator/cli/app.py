"""The `tandem` command, put together from the groups of commands."""

from __future__ import annotations

import typer

from orchestrator.cli import experiment_commands, job_commands, results_commands

app = typer.Typer(
    name="tandem",
    help="Train the same work in Keras and PyTorch on Ray, and compare them honestly.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its import takes longer than the rest of --help
)
app.add_typer(experiment_commands.app)
app.add_typer(experiment_commands.bench, name="bench")
app.add_typer(results_commands.app)
app.add_typer(job_commands.app)


def main() -> None:
    """Entry point."""
    app()
