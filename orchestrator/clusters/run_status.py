"""The last links of a job's chain, from its records: how far each run has come."""

from __future__ import annotations

from orchestrator.clusters.interface import Level
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Storage, StorageError
from trainers.errors import InputError


def levels_of_runs(results: str) -> list[Level]:
    """A level for each run of an experiment; none where its records cannot be read from here.

    Args:
        results: where the experiment is kept.
    """
    try:
        records = ExperimentRecords(Storage(results))
        runs = records.document()["runs"]
        return [_level(records, run["id"]) for run in runs]
    except (StorageError, InputError):
        return []


def _level(records: ExperimentRecords, run_id: str) -> Level:
    run = records.run(run_id)
    failures = run.failures()
    if run.result() is not None:
        state = "done"
    elif failures and failures[-1]["given_up"]:
        state = "failed"
    else:
        state = f"{len(run.epochs())} epochs"
    return Level(
        kind="run", name=run_id, state=state, detail=failures[-1]["cause"] if state == "failed" else ""
    )
