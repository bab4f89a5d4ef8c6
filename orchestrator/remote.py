"""The driver of a submitted job, on the head node: train what is open of the shipped experiment, report."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console

from orchestrator import commands, driver, report, spec
from orchestrator.clusters.local import joined_ray
from orchestrator.clusters.package import EXPERIMENT_FILE
from trainers.errors import TandemError


def main(directory: Path) -> int:
    """Run the experiment that was shipped into a directory; returns the exit code."""
    document = json.loads((directory / EXPERIMENT_FILE).read_text())
    experiment = spec.from_json(document["experiment"])
    records = driver.open_records(experiment)
    console = Console(stderr=True, width=200)
    try:
        commands.train(
            experiment,
            records,
            directory.resolve(),
            console,
            searches=document["searches"],
            command=document["command"],
            connect=joined_ray,
        )
        comparison = report.write(records)
    except TandemError as error:
        print(f"tandem: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    print(comparison.answer, flush=True)
    print(f"report: {records.storage.url}/report/report.html", flush=True)
    return 1 if comparison.failed_runs else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
