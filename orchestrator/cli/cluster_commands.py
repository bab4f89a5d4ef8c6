"""The commands that reach for a cluster."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import (
    AsJson,
    Cluster,
    Debug,
    ExperimentFile,
    Namespace,
    On,
    Overrides,
    Searches,
    errors,
    load,
    package,
)
from trainers.errors import InputError, TandemError

if TYPE_CHECKING:
    from orchestrator.clusters.interface import Cluster as RemoteCluster
    from orchestrator.clusters.interface import Job
    from orchestrator.clusters.job_bundle import Package

app = typer.Typer()

JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, as tandem submit prints it.")]


@app.command()
def submit(
    file: ExperimentFile,
    on: Cluster,
    namespace: Namespace = None,
    search: Searches = False,
    set_: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Start an experiment on a cluster and print the job's id. It is left to itself."""
    with errors(debug):
        from orchestrator.clusters.interface import open_cluster

        experiment = load(file, set_, searches=search)
        job = open_cluster(on, namespace=namespace).submit(package(experiment, file.parent, searches=search))
        _show([job], as_json)


@app.command()
def render(
    file: ExperimentFile,
    on: On = None,
    namespace: Namespace = None,
    dry_run: Annotated[
        str, typer.Option(metavar="WHERE", help="`server` has the cluster of --on check the objects.")
    ] = "client",
    cron: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEDULE", help="A RayCronJob that trains anew at each time, such as '0 3 * * *'."
        ),
    ] = None,
    search: Searches = False,
    set_: Overrides = None,
    debug: Debug = False,
) -> None:
    """Print the Kubernetes objects of an experiment; send nothing."""
    with errors(debug):
        import yaml

        from orchestrator.clusters.kuberay.manifests import render as rendered
        from orchestrator.clusters.kuberay.manifests import render_nightly

        if dry_run not in ("client", "server"):
            raise InputError(f"--dry-run {dry_run!r}: give client or server")
        shipped = package(load(file, set_, searches=search), file.parent, searches=search)
        if cron is None:
            manifests = rendered(shipped, namespace=namespace)
        else:
            shipped = dataclasses.replace(shipped, is_dated=True)
            manifests = render_nightly(shipped, schedule=cron, namespace=namespace)
        if dry_run == "server":
            from orchestrator.clusters.kuberay.cluster import KubeRay

            kind, _, context = (on or "kuberay").partition(":")
            if kind != "kuberay":
                raise InputError(f"--on {on!r}: only kuberay, or kuberay:CONTEXT, checks manifests")
            KubeRay(context or None, namespace).validate(shipped)
        typer.echo(yaml.safe_dump_all(manifests, sort_keys=False), nl=False)


@app.command()
def status(
    job: JobId, on: Cluster, namespace: Namespace = None, as_json: AsJson = False, debug: Debug = False
) -> None:
    """How a submitted job stands, from the cluster to the runs."""
    with errors(debug):
        from orchestrator.clusters.interface import open_cluster
        from orchestrator.clusters.run_status import levels_of_runs

        cluster = open_cluster(on, namespace=namespace)
        found = cluster.job(job)
        chain = [*cluster.chain(job), *levels_of_runs(found.results)]
        findings = cluster.findings(job)
        if as_json:
            document = dataclasses.asdict(found) | {
                "chain": [dataclasses.asdict(level) for level in chain],
                "findings": [dataclasses.asdict(finding) for finding in findings],
            }
            typer.echo(json.dumps(document, indent=1))
            return
        _show([found], as_json)
        for level in chain:
            detail = f"  ({level.detail})" if level.detail else ""
            typer.echo(f"  {level.kind} {level.name}: {level.state}{detail}")
        for finding in findings:
            typer.echo(str(finding))


@app.command("list")
def list_(on: Cluster, namespace: Namespace = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """The jobs that were submitted to a cluster, newest first."""
    with errors(debug):
        from orchestrator.clusters.interface import open_cluster

        _show(open_cluster(on, namespace=namespace).jobs(), as_json)


@app.command()
def logs(
    job: Annotated[
        str, typer.Argument(metavar="JOB", help="A job's id; without --on, the results of an experiment.")
    ],
    on: On = None,
    namespace: Namespace = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    debug: Debug = False,
) -> None:
    """What a job's driver and workers printed. It comes from the records when the cluster is gone."""
    with errors(debug):
        if on is None:
            _kept_logs(job)
            return
        from orchestrator.clusters.interface import open_cluster

        for line in open_cluster(on, namespace=namespace).log(job, follow=follow):
            typer.echo(line)


@app.command()
def cancel(
    job: JobId, on: Cluster, namespace: Namespace = None, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Stop a job. What it recorded stays, and submitting it again goes on from there."""
    with errors(debug):
        from orchestrator.clusters.interface import open_cluster

        _show([open_cluster(on, namespace=namespace).cancel(job)], as_json)


@app.command()
def doctor(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="A job that waits or failed.")] = None,
    on: On = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what is wrong, and the command that mends it. Looks at this machine, a cluster or a job."""
    with errors(debug):
        if on is None:
            if job is not None:
                raise InputError(f"{job}: name its cluster with --on")
            from orchestrator.clusters.local_diagnosis import examine

            findings = examine()
        else:
            from orchestrator.clusters.interface import open_cluster

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


@app.command()
def fetch(
    results: Annotated[str, typer.Argument(metavar="URL", help="Results of an experiment.")],
    to: Annotated[Path, typer.Argument(metavar="DIR", help="Where they are copied to.")],
    checkpoints: Annotated[bool, typer.Option(help="Copy the training's state as well.")] = False,
    debug: Debug = False,
) -> None:
    """Copy an experiment's records and report to a directory here."""
    with errors(debug):
        from orchestrator.store.storage import Storage

        copied = Storage(results).copy_to(to, skip=() if checkpoints else ("checkpoints",))
        typer.echo(f"{copied} files in {to}")


def run_on(address: str, namespace: str | None, shipped: Package, as_json: bool) -> None:
    """Submit, follow the log to the end, and tell the outcome; Ctrl-C leaves the job running."""
    from orchestrator.clusters.interface import JobState, open_cluster

    cluster = open_cluster(address, namespace=namespace)
    job = cluster.submit(shipped)
    earlier = _results(job.results, shipped.outcome)
    settings = shipped.experiment.kubernetes
    within = namespace or (
        settings.namespace if settings is not None and address.startswith("kuberay") else None
    )
    where = f"--on {address}" + (f" -n {within}" if within else "")
    typer.echo(f"job {job.id} {where}", err=True)
    try:
        job = _followed(cluster, shipped, job)
    except KeyboardInterrupt:
        typer.echo(
            f"the job goes on; tandem logs {job.id} -f {where}, or tandem cancel {job.id} {where}", err=True
        )
        raise typer.Exit(130) from None
    try:
        job = cluster.job(job.id)
    except InputError:
        raise TandemError(f"job {job.id} was deleted; submitting it again goes on from its records") from None
    if job.state is JobState.STOPPED:
        raise TandemError(f"job {job.id} was stopped; submitting it again goes on from its records")
    results = _results(job.results, shipped.outcome)
    if job.state is JobState.FAILED and results == earlier:
        results = None  # it failed before it wrote any
    if as_json and results is not None:
        typer.echo(results.decode())
    if job.state is JobState.FAILED:
        told = [finding for finding in cluster.findings(job.id) if finding.cause != "driver-failed"]
        if told or results is None:
            raise TandemError(str(told[0]) if told else f"job {job.id} {job.state}: {job.message}")
        raise typer.Exit(1)  # runs failed, and the log says which
    if results is None:
        typer.echo(f"results: {job.results}, which cannot be read from here", err=True)


def _followed(cluster: RemoteCluster, shipped: Package, job: Job) -> Job:
    """Print a job's log to its end; a job whose driver is lost is submitted again, `kubernetes.retries` times."""
    from orchestrator.clusters.interface import DriverLostError

    settings = shipped.experiment.kubernetes
    retries = 0 if settings is None else settings.retries
    while True:
        try:
            for line in cluster.log(job.id, follow=True):
                typer.echo(line, err=True)
            return job
        except DriverLostError as error:
            if retries == 0:
                raise
            retries -= 1
            typer.echo(f"{error}; submitting it again", err=True)
            cluster.cancel(job.id)
            job = cluster.submit(shipped)


def _results(url: str, outcome: str) -> bytes | None:
    """What the last driver of an experiment ended with, where its storage can be read from here."""
    from orchestrator.store.storage import Storage, StorageError

    try:
        return Storage(url).read(outcome)
    except StorageError:
        return None


def _kept_logs(results: str) -> None:
    from orchestrator.execution import driver_log
    from orchestrator.store.storage import Storage

    storage = Storage(results)
    jobs = driver_log.jobs_of(storage)
    if not jobs:
        raise InputError(f"{results} holds no logs; a job's are read with --on while its cluster stands")
    for job_id in jobs:
        typer.echo(driver_log.KeptLog(storage, job_id).new(final=True), nl=False)


def _show(jobs: list[Job], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(job) for job in jobs], indent=1))
        return
    for job in jobs:
        typer.echo(f"{job.id}  {job.state}  {job.results}")
