"""Commands for jobs on clusters: submit, list, status, logs, cancel, doctor, and the objects that would be sent."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import (
    LOCAL,
    AsJson,
    Debug,
    ExperimentFile,
    JobsOn,
    Namespace,
    On,
    Overrides,
    Searches,
    errors,
    read_job,
)
from trainers.errors import InputError

if TYPE_CHECKING:
    from orchestrator.clusters.job_cluster import Job, StatusNode

app = typer.Typer()

JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, as tandem submit prints it.")]


@app.command()
def submit(
    file: ExperimentFile,
    on: JobsOn,
    namespace: Namespace = None,
    search: Searches = False,
    set_: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Start an experiment on a cluster and print the job's id. Does not wait for its end."""
    with errors(debug):
        from orchestrator.clusters.registry import open_job_cluster

        cluster = open_job_cluster(on, namespace=namespace)
        _show([cluster.submit(read_job(file, set_, searches=search))], as_json)


@app.command()
def render(
    file: ExperimentFile,
    on: JobsOn = "kuberay",
    namespace: Namespace = None,
    dry_run: Annotated[
        str, typer.Option(metavar="WHERE", help="With `server`, the cluster of --on validates the objects.")
    ] = "client",
    cron: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEDULE", help="Print a RayCronJob that trains at each time, such as '0 3 * * *'."
        ),
    ] = None,
    search: Searches = False,
    set_: Overrides = None,
    debug: Debug = False,
) -> None:
    """Print the Kubernetes objects of an experiment; send nothing."""
    with errors(debug):
        import yaml

        from orchestrator.clusters.registry import open_cluster

        if dry_run not in ("client", "server"):
            raise InputError(f"--dry-run {dry_run!r}: give client or server")
        cluster = open_cluster(on, namespace=namespace)
        bundle = read_job(file, set_, searches=search)
        manifests = cluster.manifests(bundle, schedule=cron, validate=dry_run == "server")
        typer.echo(yaml.safe_dump_all(manifests, sort_keys=False), nl=False)


@app.command()
def status(
    job: JobId, on: JobsOn, namespace: Namespace = None, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Show a job's state, from the cluster to the runs."""
    with errors(debug):
        from orchestrator.clusters.registry import open_job_cluster

        cluster = open_job_cluster(on, namespace=namespace)
        found, tree, findings = cluster.job(job), cluster.status_tree(job), cluster.findings(job)
        if as_json:
            document = dataclasses.asdict(found) | {
                "status_tree": dataclasses.asdict(tree),
                "findings": [dataclasses.asdict(finding) for finding in findings],
            }
            typer.echo(json.dumps(document, indent=1))
            return
        _show([found], as_json)
        _show_tree(tree, indent="  ")
        for finding in findings:
            typer.echo(str(finding))


@app.command("list")
def list_(on: JobsOn, namespace: Namespace = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """List the jobs of a cluster, newest first."""
    with errors(debug):
        from orchestrator.clusters.registry import open_job_cluster

        _show(open_job_cluster(on, namespace=namespace).jobs(), as_json)


@app.command()
def logs(
    job: Annotated[
        str, typer.Argument(metavar="JOB", help="A job's id; without --on, the results of an experiment.")
    ],
    on: On = LOCAL,
    namespace: Namespace = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    debug: Debug = False,
) -> None:
    """Print what a job's driver and workers printed. Without a cluster, from the records."""
    with errors(debug):
        from orchestrator.clusters.registry import open_cluster

        for line in open_cluster(on, namespace=namespace).log(job, follow=follow):
            typer.echo(line)


@app.command()
def cancel(
    job: JobId, on: JobsOn, namespace: Namespace = None, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Stop a job. Its records stay, and a new submission resumes from them."""
    with errors(debug):
        from orchestrator.clusters.registry import open_job_cluster

        _show([open_job_cluster(on, namespace=namespace).cancel(job)], as_json)


@app.command()
def doctor(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="A job that waits or failed.")] = None,
    on: On = LOCAL,
    namespace: Namespace = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Find what is wrong, and how to correct it. Checks this machine, a cluster or a job."""
    with errors(debug):
        from orchestrator.clusters.registry import open_cluster

        findings = open_cluster(on, namespace=namespace).findings(job)
        if as_json:
            typer.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
        elif not findings:
            typer.echo("nothing is wrong")
        else:
            for finding in findings:
                typer.echo(str(finding))
    if findings:
        raise typer.Exit(1)


def _show(jobs: list[Job], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(job) for job in jobs], indent=1))
        return
    for job in jobs:
        typer.echo(f"{job.id}  {job.state}  {job.results}")


def _show_tree(node: StatusNode, *, indent: str) -> None:
    detail = f"  ({node.detail})" if node.detail else ""
    typer.echo(f"{indent}{node.kind} {node.name}: {node.state}{detail}")
    for child in node.children:
        _show_tree(child, indent=f"{indent}  ")
