"""What a group of workers is told to do, and why one failed: shared by the driver and the workers."""

from __future__ import annotations

import dataclasses
from typing import Literal

from orchestrator.execution.run_source import RunSource
from orchestrator.experiment.spec import Scale
from trainers.data import DataSpec
from trainers.recipes import Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assignment:
    """Everything that the workers of a group need to know."""

    name: str
    """Of the group, unique in the driver session."""
    framework: str
    runs: RunSource
    scale: Scale
    data: DataSpec
    data_fingerprint: str
    storage_url: str
    driver_session: str
    """Which start of the driver this belongs to."""
    launched_at: float
    """When the driver asked for the workers, in seconds since the epoch."""
    module_path: str
    """Directory that users' own models are imported from."""
    corruption_robustness: bool = False
    """Whether trained models are also tested on corrupted images."""
    parity_recipes: tuple[Recipe, ...] = ()
    """What to trace before training, for the comparison with the other framework."""


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why the workers of a group ended before they were done."""

    kind: Literal["lost", "error", "diverged", "storage"]
    """A worker died, the code raised an error, the loss exploded, or the storage failed."""
    cause: str
    """One sentence."""
    detail: str = ""
    """The traceback, where there is one."""
