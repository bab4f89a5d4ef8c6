"""The driver of a submitted job, on the head node: train what is open of the shipped experiment and report, or measure.

    python -m orchestrator.head JOB [DIRECTORY]

The files are in the directory, or where there is none, in an environment variable.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator import report, workflows
from orchestrator.analysis import scaling
from orchestrator.clusters.job_bundle import EXPERIMENT_FILE, FILES_VARIABLE
from orchestrator.execution import driver, driver_log, environment
from orchestrator.execution.progress import open_console
from orchestrator.execution.ray_runtime import joined_ray
from orchestrator.experiment import spec
from orchestrator.planning import run_plan
from orchestrator.store.records import ExperimentRecords
from trainers.errors import TandemError

_LAST_WORDS_SECONDS = 3.0
"""The cluster goes when the driver ends: whoever follows its log through the dashboard reads the end first."""


def main(job_id: str, directory: Path) -> int:
    """Run the experiment that was shipped into a directory; returns the exit code."""
    document = json.loads((directory / EXPERIMENT_FILE).read_text())
    try:
        experiment = spec.from_json(document["experiment"])
        if document.get("is_dated"):
            today = datetime.now(UTC).strftime("%Y%m%d")
            experiment = experiment.model_copy(update={"name": f"{experiment.name}-{today}"})
        records = driver.open_records(experiment)
        with driver_log.kept(records.storage, job_id):
            try:
                if document.get("is_check"):
                    code = _check(experiment)
                elif workers := document.get("scaling"):
                    code = _measure(workers, experiment, records, directory)
                else:
                    code = _train(document, experiment, records, directory)
            except TandemError as error:  # told while the log is still kept
                code = _told(error)
        if experiment.kubernetes is not None and "://" not in experiment.storage:
            time.sleep(_LAST_WORDS_SECONDS)
        return code
    except TandemError as error:
        return _told(error)


def _told(error: TandemError) -> int:
    print(f"tandem: {error}", file=sys.stderr, flush=True)
    return error.exit_code


def _check(experiment: spec.Experiment) -> int:
    print(f"Ray {environment.version('ray')}", flush=True)
    with joined_ray():
        fit = driver.runs_that_fit(experiment.scale)
    if fit == 0 and experiment.kubernetes is not None:  # the head alone was started, to look
        fit = run_plan.concurrent_runs(experiment.scale, **experiment.kubernetes.most)
    print(*workflows.check(experiment, fit=fit), sep="\n", flush=True)
    return 0


def _train(
    document: dict[str, Any], experiment: spec.Experiment, records: ExperimentRecords, directory: Path
) -> int:
    workflows.train(
        experiment,
        records,
        directory.resolve(),
        open_console(sys.stderr, width=200),
        searches=document["searches"],
        command=document["command"],
        connect=joined_ray,
    )
    comparison = report.write(records)
    print(comparison.answer, flush=True)
    print(f"report: {records.storage.url}/report/report.html", flush=True)
    return 1 if comparison.failed_runs else 0


def _measure(
    workers: list[int], experiment: spec.Experiment, records: ExperimentRecords, directory: Path
) -> int:
    scales = workflows.measure_scaling(
        experiment,
        records,
        directory.resolve(),
        open_console(sys.stderr, width=200),
        workers=workers,
        connect=joined_ray,
    )
    print(*scaling.sentences(scales, results=records.storage.url), sep="\n", flush=True)
    return 0


def _unpacked(files: str) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="tandem"))
    for name, text in json.loads(files).items():
        (directory / Path(name).name).write_text(text)
    return directory


if __name__ == "__main__":
    shipped = os.environ.get(FILES_VARIABLE)
    sys.exit(main(sys.argv[1], _unpacked(shipped) if shipped else Path(sys.argv[2])))
