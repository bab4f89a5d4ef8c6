"""Trains an experiment's arms on one GPU, as they are and with one change at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from orchestrator.analysis.gpu_profile import Measured, Variant
from orchestrator.execution import driver
from orchestrator.execution.ray_runtime import local_ray
from orchestrator.experiment.spec import Experiment
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Record
from orchestrator.workflows import variants
from orchestrator.workflows.resources import Connect, capacity_seconds, check_machine, held_lease


def profile_gpu(
    experiment: Experiment,
    records: ExperimentRecords,
    module_path: Path,
    console: Console,
    *,
    connect: Connect = local_ray,
) -> Record:
    """Measure an experiment's arms on one GPU, as they are written and with one change at a time.

    Args:
        experiment: as it was read.
        records: of the experiment; earlier measurements in them are reused.
        module_path: directory that users' own modules are imported from.
        console: where progress is shown.
        connect: starts or joins Ray.

    Returns:
        As `gpu_profile.summary`.
    """
    from orchestrator.analysis import gpu_profile

    plan = gpu_profile.variants(experiment)
    alone = plan[0].experiment.scale
    check_machine(experiment, alone, connect)
    with held_lease(records, console):
        with connect():
            driver.await_capacity(alone, seconds=capacity_seconds(experiment))
            profile = gpu_profile.summary(measure(plan, module_path=module_path, tell=console.print))
        records.storage.at("gpu").write_json("gpu.json", profile)
    return profile


_PARTS = {
    "input": "data_seconds",
    "step": "step_seconds",
    "compile": "compile_seconds",
    "evaluation": "evaluation_seconds",
}


def measure(
    plan: Sequence[Variant], *, module_path: Path, tell: Callable[[str], None] = lambda line: None
) -> list[Measured]:
    """Train each variant on the Ray cluster that is connected; what the records hold is not trained again.

    Args:
        plan: from `variants`.
        module_path: directory that users' own modules are imported from.
        tell: given a line about each variant before it is trained.

    Raises:
        InputError: the data do not do for one of them, or the cluster is too small.
    """
    found = []
    for step in plan:
        tell(step.change)
        prepared = variants.prepare(step.experiment, module_path=module_path)
        variants.train(prepared, module_path=module_path, command="gpu")
        for run in prepared.runs:
            records = prepared.records.run(run.id)
            result, epochs = records.result(), records.epochs()
            if result is None or len(epochs) < 2:
                cause = variants.cause_of(records)
                found.append(Measured(arm=run.arm, change=step.change, images_per_second=None, failure=cause))
                continue
            speed = float(np.median([epoch["images_per_second"] for epoch in epochs[1:]]))
            flops, most = result["forward_flops"], result["matmul_flops"]
            found.append(
                Measured(
                    arm=run.arm,
                    change=step.change,
                    images_per_second=speed,
                    model_flops_utilisation=3 * flops * speed / most if flops and most else None,
                    memory_bytes=result["device_memory_peak_bytes"],
                    seconds={
                        part: float(sum(epoch[column] for epoch in epochs)) for part, column in _PARTS.items()
                    },
                )
            )
    return found
