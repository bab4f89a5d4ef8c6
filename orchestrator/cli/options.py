"""Options that several commands have, the job that a command describes, and how a command reports an error."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainers.errors import InputError, TandemError, one_line

if TYPE_CHECKING:
    from orchestrator.clusters.job_bundle import JobBundle
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
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
On = Annotated[
    str,
    typer.Option("--on", metavar="CLUSTER", help=f"{_ON} This machine when left out.", show_default=False),
]
"""Defaults to `LOCAL`."""
LOCAL = "local"
JobsOn = Annotated[str, typer.Option("--on", metavar="CLUSTER", help=_ON)]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Of Kubernetes; the context's own when left out."),
]
Searches = Annotated[bool, typer.Option("--sweep", help="Search the arms first, as tandem sweep.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def read_job(
    file: Path,
    set_: list[str] | None,
    *,
    searches: bool = False,
    attributes: bool = False,
    scaling: tuple[int, ...] = (),
    profiles_gpu: bool = False,
) -> JobBundle:
    """Read an experiment file into the job that a command runs, with the modules beside it.

    Args:
        file: the experiment file.
        set_: overrides, as `--set` gives them.
        searches: whether the arms' hyperparameters are searched first.
        attributes: whether the gap between two arms is attributed to their differences.
        scaling: numbers of workers to measure scaling on, instead of training.
        profiles_gpu: whether the arms are measured on one GPU, instead of training.

    Raises:
        InputError: the file or a training function is wrong; or arms are to be searched, but there is no search space.
    """
    from orchestrator.experiment import reader
    from orchestrator.experiment.spec import Attribution
    from orchestrator.planning import train_loop_source

    experiment = reader.load(file, set_ or [])
    for name, arm in experiment.train_loop_arms.items():
        train_loop_source.look_here(name, arm, file.parent.resolve())
    if searches and experiment.sweep is None:
        raise InputError(f"{file}: has no sweep: block; give one with a space and a budget")
    if attributes and experiment.attribution is None:
        experiment = experiment.model_copy(update={"attribution": Attribution()})
    return bundle_of(experiment, file.parent, searches=searches, scaling=scaling, profiles_gpu=profiles_gpu)


def bundle_of(
    experiment: Experiment,
    module_path: Path,
    *,
    searches: bool,
    scaling: tuple[int, ...] = (),
    profiles_gpu: bool = False,
    resumes: str | None = None,
) -> JobBundle:
    """The job of an experiment that was read, with the modules of a directory."""
    from orchestrator.clusters.job_bundle import JobBundle
    from orchestrator.planning.job import JobSpec

    spec = JobSpec(
        experiment=experiment,
        searches=searches,
        command=sys.argv[1:],
        scaling=scaling,
        profiles_gpu=profiles_gpu,
    )
    return JobBundle(spec=spec, module_path=module_path.resolve(), resumes=resumes)


@contextlib.contextmanager
def errors(debug: bool) -> Iterator[None]:
    """Print an error as one sentence and exit with its code; with `debug`, leave it to show its traceback."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
    except Exception as error:
        if debug or isinstance(error, typer.Exit | BrokenPipeError):
            raise
        if isinstance(error, TandemError):
            sentence, code = str(error), error.exit_code
        else:
            sentence, code = (
                f"unexpected {one_line(error)}; --debug shows where it came from",
                TandemError.exit_code,
            )
        typer.echo(f"tandem: {sentence}", err=True)
        sys.exit(code)
