"""tandem from Python: the same experiments, as files or as mappings.

import tandem

comparison = tandem.sweep("experiment.yaml", overrides=["sweep.budget.trials=8"])
print(comparison.conclusion)
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.errors import InputError, TandemError

if TYPE_CHECKING:
    from orchestrator.analysis.compare import Comparison

__all__ = ["InputError", "TandemError", "run", "sweep"]


def run(experiment: str | Path | Mapping[str, Any], *, overrides: Iterable[str] = ()) -> Comparison:
    """Train every arm of an experiment on this machine and write the report, as `tandem run` does.

    Args:
        experiment: a file, or its contents as a mapping.
        overrides: `field=value`, as for `--set`.

    Raises:
        InputError: one sentence for each problem.
    """
    return _train("run", experiment, overrides)


def sweep(experiment: str | Path | Mapping[str, Any], *, overrides: Iterable[str] = ()) -> Comparison:
    """Search each arm's hyperparameters, then train and compare the winners, as `tandem sweep` does.

    Args:
        experiment: a file with a `sweep:` block, or its contents as a mapping.
        overrides: `field=value`, as for `--set`.

    Raises:
        InputError: one sentence for each problem.
        SweepError: all trials fail.
    """
    return _train("sweep", experiment, overrides)


def _train(verb: str, experiment: str | Path | Mapping[str, Any], overrides: Iterable[str]) -> Comparison:
    from orchestrator import workflows
    from orchestrator.execution import driver
    from orchestrator.execution.progress import open_console
    from orchestrator.experiment import reader

    changes = list(overrides)
    command = [verb, "experiment.yaml", *(f"--set={change}" for change in changes)]
    if isinstance(experiment, Mapping):
        read, module_path = reader.load_mapping(experiment, changes), Path.cwd()
    else:
        path = Path(experiment)
        read, module_path = reader.load(path, changes), path.resolve().parent
        command[1] = str(path)
    if verb == "sweep" and read.sweep is None:
        raise InputError("the experiment has no sweep: block; give one with a space and a budget")
    return workflows.train(
        read,
        driver.open_records(read),
        module_path,
        open_console(sys.stderr),
        searches=verb == "sweep",
        command=command,
    )
