"""Trains an experiment's arms with several numbers of workers and records how they scale."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from orchestrator.analysis.scaling import Point, Variant
from orchestrator.execution import driver
from orchestrator.execution.monitoring import environment
from orchestrator.execution.ray_runtime import local_ray
from orchestrator.experiment.spec import Experiment
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Record
from orchestrator.workflows import variants
from orchestrator.workflows.resources import Connect, capacity_seconds, check_machine, held_lease
from trainers.errors import TandemError


def measure_scaling(
    experiment: Experiment,
    records: ExperimentRecords,
    module_path: Path,
    console: Console,
    *,
    workers: Sequence[int],
    connect: Connect = local_ray,
) -> Record:
    """Measure an experiment's arms on each number of workers, and record the efficiency and a prediction.

    Args:
        experiment: as it was read.
        records: of the experiment; earlier measurements in them are reused.
        module_path: directory that users' own modules are imported from.
        console: where progress is shown.
        workers: numbers of workers, ascending.
        connect: starts or joins Ray.

    Returns:
        As `scaling.summary`.
    """
    from orchestrator.analysis import scaling
    from orchestrator.report.figures import performance, static

    plan = scaling.variants(experiment, workers)
    largest = experiment.scale.model_copy(update={"workers": workers[-1]})
    check_machine(experiment, largest, connect)
    with held_lease(records, console):
        with connect():
            driver.await_capacity(largest, seconds=capacity_seconds(experiment))
            points = measure(plan, module_path=module_path, tell=console.print)
        scales = scaling.summary(points, predict=[workers[-1] * 2**power for power in range(4)])
        storage = records.storage.at("scaling")
        storage.write_json("scaling.json", scales)
        storage.write("scaling.svg", static.save(static.draw(performance.scaling(scales)), "svg"))
    return scales


def measure(
    plan: Sequence[Variant], *, module_path: Path, tell: Callable[[str], None] = lambda line: None
) -> list[Point]:
    """Train each variant on the Ray cluster that is connected.

    Measurements that the records hold already are not made again.

    Args:
        plan: from `variants`.
        module_path: directory that users' own models are imported from.
        tell: given a line about each variant before it is trained.

    Raises:
        InputError: the data do not do for one of them, or the cluster is too small.
        TandemError: a run failed, so that there is nothing to compare.
    """
    prepared = [variants.prepare(step.experiment, module_path=module_path) for step in plan]
    points = []
    for step, ready in zip(plan, prepared, strict=True):
        tell(f"{step.mode} scaling, {step.workers} worker{'s' if step.workers > 1 else ''}")
        variants.train(ready, module_path=module_path, command="scaling")
        scale = step.experiment.scale
        turns = _turns(step.workers * scale.cpus_per_worker)
        for run in ready.runs:
            records = ready.records.run(run.id)
            result = records.result()
            if result is None:
                cause = variants.cause_of(records)
                raise TandemError(f"{run.arm} on {step.workers} workers failed: {cause}")
            points += [
                Point(
                    arm=run.arm,
                    mode=step.mode,
                    workers=step.workers,
                    batch_size=run.recipe.batch_size,
                    images_per_second=epoch["images_per_second"],
                    parameters=result["parameters"],
                    turns=turns,
                )
                for epoch in records.epochs()[1:]
            ]
    return points


def _turns(cpus: int) -> float:
    """How many of so many CPUs, as Ray counts them, share a core; 1 on a cluster of several machines."""
    import ray

    hosts = {node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
    return max(1.0, cpus / environment.available_cpus()) if hosts == {socket.gethostname()} else 1.0
