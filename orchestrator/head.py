"""The driver of a submitted job, on the head node: train and report, check, or measure scaling.

    python -m orchestrator.head JOB [DIRECTORY]

The directory holds the job's files. Without one, they are in an environment variable.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from orchestrator import workflows
from orchestrator.execution import driver, driver_log
from orchestrator.execution.progress import open_console
from orchestrator.execution.ray_runtime import joined_ray
from orchestrator.experiment.spec import Experiment
from orchestrator.planning import run_plan
from orchestrator.planning.job import FILES_VARIABLE, JOB_FILE, JobSpec
from trainers.errors import InputError, TandemError

_LAST_LINES_SECONDS = 3.0
"""The cluster is removed when the driver ends. Until then, readers of its log through the dashboard need a moment."""


def main(job_id: str, directory: Path) -> int:
    """Do what the job file in a directory specifies; returns the exit code."""
    try:
        spec = JobSpec.from_json(json.loads((directory / JOB_FILE).read_text())).on_its_day()
        storage = driver.open_records(spec.experiment).storage
        with driver_log.kept(storage, job_id):
            try:
                code = _run(spec, directory.resolve())
            except TandemError as error:  # printed here, so that the stored log has it
                code = _failed(error)
        if spec.experiment.kubernetes is not None and "://" not in spec.experiment.storage:
            time.sleep(_LAST_LINES_SECONDS)
        return code
    except TandemError as error:
        return _failed(error)


def _failed(error: TandemError) -> int:
    print(f"tandem: {error}", file=sys.stderr, flush=True)
    return error.exit_code


def _run(spec: JobSpec, directory: Path) -> int:
    if spec.is_check:
        lines = workflows.check(spec.experiment, fit=_runs_that_fit(spec.experiment), module_path=directory)
        print(*lines, sep="\n", flush=True)
        return 0
    records = driver.open_records(spec.experiment)
    console = open_console(sys.stderr, width=200)
    outcome = workflows.run(spec, records, directory, console, connect=joined_ray)
    print(*outcome.lines, sep="\n", flush=True)
    return outcome.exit_code


def _runs_that_fit(experiment: Experiment) -> int:
    with joined_ray():
        fit = driver.runs_that_fit(experiment.scale)
    if fit == 0 and experiment.kubernetes is not None:  # a check starts the head pod only
        fit = run_plan.concurrent_runs(experiment.scale, **experiment.kubernetes.most)
    return fit


def _unpacked(files: str) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="tandem"))
    for name, text in json.loads(files).items():
        file = (directory / name).resolve()
        if not file.is_relative_to(directory.resolve()):
            raise InputError(f"{name!r}: a file of a job lies outside of its directory")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return directory


if __name__ == "__main__":
    files = os.environ.get(FILES_VARIABLE)
    sys.exit(main(sys.argv[1], _unpacked(files) if files else Path(sys.argv[2])))
