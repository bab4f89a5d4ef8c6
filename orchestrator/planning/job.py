"""What a job does with an experiment, and how it ends. Read and written wherever a job runs."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

from orchestrator.experiment import spec
from orchestrator.experiment.spec import Experiment
from orchestrator.store.storage import Record, url_below

JOB_FILE = "tandem-job.json"
"""Holds a `JobSpec`, beside the user's modules."""
FILES_VARIABLE = "TANDEM_FILES"
"""Environment variable that holds the job's files as JSON, for clusters that have no directory for them."""
ENTRYPOINT = "python -m orchestrator.head"
"""Command of a job's driver, followed by the job's id and the directory that holds its files."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobSpec:
    """Train an experiment's arms, check it, or measure how its arms scale and what they reach on a GPU."""

    experiment: Experiment
    searches: bool
    """Whether the arms' hyperparameters are searched first."""
    command: list[str]
    """The words after `tandem` on the command line, for the records."""
    is_check: bool = False
    """Whether the job only checks the experiment."""
    is_dated: bool = False
    """Whether each start trains an experiment of its own, with the date in its name."""
    scaling: tuple[int, ...] = ()
    """Numbers of workers to measure scaling on, instead of training the experiment."""
    profiles_gpu: bool = False
    """Whether the arms are measured on one GPU, instead of training the experiment."""
    submitted_at: float | None = None
    """When the job was sent to a cluster, in seconds since the epoch; None for objects that were only rendered."""

    def deadline(self, *, now: float) -> float | None:
        """When the job must stop, in seconds since the epoch; None if it has no deadline.

        A job that waits in a queue, or until somebody starts it, has its time from when its driver starts.
        """
        settings = self.experiment.kubernetes
        if settings is None or settings.deadline_seconds is None:
            return None
        waits = settings.suspended or settings.queue is not None
        begin = now if waits or self.submitted_at is None else self.submitted_at
        return begin + settings.deadline_seconds

    @property
    def results(self) -> str:
        """URL or directory of the experiment's records and report."""
        return url_below(self.experiment.storage, self.experiment.name)

    @property
    def results_file(self) -> str:
        """The JSON file below the results that the job writes last."""
        if self.profiles_gpu:
            return "gpu/gpu.json"
        return "scaling/scaling.json" if self.scaling else "report/results.json"

    @property
    def measures(self) -> bool:
        """Whether the job measures the arms instead of training the experiment."""
        return self.profiles_gpu or bool(self.scaling)

    @property
    def work(self) -> Record:
        """What decides the job's results, as plain JSON; fields with their default are left out."""
        document = {"experiment": self.experiment.model_dump(mode="json"), "searches": self.searches}
        return (
            document
            | ({"is_dated": True} if self.is_dated else {})
            | ({"is_check": True} if self.is_check else {})
            | ({"scaling": list(self.scaling)} if self.scaling else {})
            | ({"profiles_gpu": True} if self.profiles_gpu else {})
        )

    def to_json(self) -> Record:
        """The whole specification as plain JSON."""
        submitted = {} if self.submitted_at is None else {"submitted_at": self.submitted_at}
        return self.work | {"command": self.command} | submitted

    @classmethod
    def from_json(cls, document: Record) -> JobSpec:
        """The specification that `to_json` wrote.

        Raises:
            InputError: another version of tandem wrote the experiment.
        """
        return cls(
            experiment=spec.from_json(document["experiment"]),
            searches=document["searches"],
            command=document["command"],
            is_check=document.get("is_check", False),
            is_dated=document.get("is_dated", False),
            scaling=tuple(document.get("scaling", ())),
            profiles_gpu=document.get("profiles_gpu", False),
            submitted_at=document.get("submitted_at"),
        )

    def on_its_day(self) -> JobSpec:
        """The same job; if it is dated, today's date is in the experiment's name."""
        if not self.is_dated:
            return self
        name = f"{self.experiment.name}-{datetime.now(UTC):%Y%m%d}"
        experiment = self.experiment.model_copy(update={"name": name})
        return dataclasses.replace(self, experiment=experiment, is_dated=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended."""

    exit_code: int
    """0: done; 1: a run failed; 130: interrupted."""
    lines: tuple[str, ...] = ()
    """The results in words; empty where the job's log has shown them already."""
    results: str | None = None
    """The results as JSON; None where they were not written or cannot be read from here."""
    error: str | None = None
    """What made the job fail, where the log does not say it."""
