"""This machine as a cluster: a job runs in the command's own process, on a Ray that is started for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestrator.clusters import local_diagnosis
from orchestrator.clusters.interface import Cluster, Finding
from orchestrator.clusters.job_bundle import JobBundle
from orchestrator.planning.job import Outcome
from orchestrator.store import modules
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Record, Storage
from trainers.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console


class Local(Cluster):
    """This machine. A job has no id here; the directory of its results stands for it."""

    def check(self, bundle: JobBundle, *, probes: bool) -> Iterator[str]:
        """Check the data, the storage and this machine's CPUs and GPUs."""
        from orchestrator import workflows

        yield from workflows.check_here(bundle.spec.experiment, bundle.module_path)

    def check_results(self, bundle: JobBundle, *, probes: bool) -> Record:
        """What `check` describes, as plain JSON."""
        from orchestrator import workflows

        experiment = bundle.spec.experiment
        fit = workflows.local_capacity(experiment.scale)
        return workflows.summary(experiment, fit=fit, module_path=bundle.module_path)

    def run(self, bundle: JobBundle, console: Console) -> Outcome:
        """Run a job. Ctrl-C and SIGTERM stop it, and what is recorded is kept."""
        from orchestrator import workflows
        from orchestrator.execution.termination import sigterm_interrupts

        records = ExperimentRecords(Storage(bundle.records_url))
        modules.keep(records.storage, bundle.files())
        try:
            with sigterm_interrupts():
                return workflows.run(bundle.spec, records, bundle.module_path, console)
        except KeyboardInterrupt:
            url = records.storage.url
            remedy = (
                f"measurements are kept in {url}"
                if bundle.spec.measures
                else f"go on with: tandem resume {url}"
            )
            console.print(f"interrupted; {remedy}", soft_wrap=True)
            return Outcome(exit_code=130)

    def log(self, job_id: str, *, follow: bool) -> Iterator[str]:
        """The logs of an experiment's jobs that its storage keeps."""
        from orchestrator.execution.monitoring import driver_log

        storage = Storage(job_id)
        jobs = driver_log.jobs_of(storage)
        if not jobs:
            raise InputError(f"{job_id} holds no logs; while a job's cluster exists, --on reads its log")
        for name in jobs:
            yield from driver_log.KeptLog(storage, name).new(final=True).splitlines()

    def findings(self, job_id: str | None) -> list[Finding]:
        """What is wrong with this machine."""
        if job_id is not None:
            raise InputError(f"{job_id}: name its cluster with --on")
        return local_diagnosis.findings()
