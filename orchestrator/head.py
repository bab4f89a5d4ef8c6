"""The driver of a submitted job, on the head node: train and report, check, or measure scaling.

    python -m orchestrator.head JOB [DIRECTORY]

The directory holds the job's files. Without one, they are in an environment variable.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator import workflows
from orchestrator.execution import driver, room, termination
from orchestrator.execution.job_failure import JobFailure, final_failures, is_final
from orchestrator.execution.monitoring import driver_log
from orchestrator.execution.monitoring.progress import open_console
from orchestrator.execution.ray_runtime import joined_ray
from orchestrator.experiment.spec import Experiment
from orchestrator.planning import preflight, run_plan
from orchestrator.planning.job import FILES_VARIABLE, JOB_FILE, JobSpec
from orchestrator.store import modules
from trainers.errors import InputError, TandemError

_LAST_LINES_SECONDS = 6.0
"""The cluster is removed when the driver ends. Until then, readers of its log through the dashboard need a moment."""


def main(job_id: str, directory: Path) -> int:
    """Do what the job file in a directory specifies; returns the exit code."""
    try:
        spec = JobSpec.from_json(json.loads((directory / JOB_FILE).read_text())).on_its_day()
        storage = preflight.open_records(spec.experiment).storage
        with driver_log.kept(storage, job_id), termination.sigterm_interrupts():
            try:
                code = _attempt(job_id, spec, directory.resolve())
            except TandemError as error:  # printed here, so that the stored log has it
                code = _failed(error)
            except KeyboardInterrupt:
                print("the driver was stopped; what is recorded is kept", file=sys.stderr, flush=True)
                code = 130
        if spec.experiment.kubernetes is not None and "://" not in spec.experiment.storage:
            time.sleep(_LAST_LINES_SECONDS)
        return code
    except TandemError as error:
        return _failed(error)


def _attempt(job_id: str, spec: JobSpec, directory: Path) -> int:
    """Run a job, unless an earlier attempt at it has failed in a way that another would repeat."""
    if spec.is_check:
        return _run(spec, directory)
    records = preflight.open_records(spec.experiment)
    settings = spec.experiment.kubernetes
    failure = JobFailure(
        records.storage,
        job_id,
        submitted_at=spec.submitted_at,
        seconds=0.0 if settings is None else settings.start_seconds,
    )
    if (earlier := failure.read()) is not None:
        code, lines = earlier
        print("an earlier attempt at this job has failed, and another would fail alike:", file=sys.stderr)
        print(*lines, sep="\n", file=sys.stderr, flush=True)
        return code
    modules.keep(records.storage, _modules_in(directory))
    try:
        with termination.stopped_at(spec.deadline(now=time.time())), failure.memory_noted():
            code = _run(spec, directory)
    except TandemError as error:
        if is_final(error):
            failure.write(error.exit_code, [f"tandem: {error}"])
        raise
    if code != 0 and (lines := final_failures(records)):
        failure.write(code, lines)
    return code


def _modules_in(directory: Path) -> dict[str, str]:
    """The user's own modules among a job's files, by their path."""
    own = {}
    for file in directory.rglob("*.py"):
        path = file.relative_to(directory)
        if path.parts[0] not in ("orchestrator", "trainers") and not path.parts[0].startswith("."):
            own[path.as_posix()] = file.read_text()
    return own


def _failed(error: TandemError) -> int:
    print(f"tandem: {error}", file=sys.stderr, flush=True)
    return error.exit_code


def _run(spec: JobSpec, directory: Path) -> int:
    if spec.is_check:
        lines = workflows.check(spec.experiment, fit=_runs_that_fit(spec.experiment), module_path=directory)
        print(*lines, sep="\n", flush=True)
        return 0
    records = preflight.open_records(spec.experiment)
    console = open_console(sys.stderr, width=200)
    outcome = workflows.run(spec, records, directory, console, connect=_joined_ray)
    print(*outcome.lines, sep="\n", flush=True)
    return outcome.exit_code


@contextlib.contextmanager
def _joined_ray() -> Iterator[None]:
    """Join the Ray cluster; at the end, take back what its autoscaler was asked for."""
    with joined_ray(), room.given_back():
        yield


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
