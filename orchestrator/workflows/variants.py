"""Trains the short experiments that measure another one."""

from __future__ import annotations

from pathlib import Path

from orchestrator.execution import driver
from orchestrator.experiment.spec import Experiment
from orchestrator.planning import preflight
from orchestrator.planning.preflight import Prepared
from orchestrator.store.records import RunRecords


def prepare(experiment: Experiment, *, module_path: Path) -> Prepared:
    """Check a short experiment against its own directory.

    Raises:
        InputError: as `preflight.prepare`.
    """
    return preflight.prepare(experiment, preflight.open_records(experiment), module_path=module_path)


def train(prepared: Prepared, *, module_path: Path, command: str) -> None:
    """Train what its records lack, on the Ray cluster that is connected.

    Args:
        prepared: from `prepare`.
        module_path: directory that users' own modules are imported from.
        command: the word after `tandem bench`, for the records.
    """
    session = driver.begin(prepared, module_path=module_path, command=["bench", command])
    driver.execute(prepared, session, module_path=module_path, watch=lambda: None, checks_parity=False)


def cause_of(records: RunRecords) -> str:
    """Why a run has no result."""
    failures = records.failures()
    return str(failures[-1]["cause"]) if failures else "it did not finish"
