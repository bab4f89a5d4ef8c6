"""What is shipped to a cluster: tandem's code, the user's modules and the experiment, in one directory."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from orchestrator.experiment.spec import Experiment
from orchestrator.planning.run_plan import short_hash
from orchestrator.store.storage import url_below
from trainers.errors import InputError

EXPERIMENT_FILE = "tandem-job.json"
ENTRYPOINT = "python -m orchestrator.head"
"""Followed by the job's id and the directory that the files are in."""
FILES_VARIABLE = "TANDEM_FILES"
"""Holds the files as JSON where there is no directory to ship them in."""
_PACKAGES = ("orchestrator", "trainers")
_CODE = Path(__file__).resolve().parents[2]
_SUFFIXES = {".py", ".html", ".js"}
_LARGEST_BYTES = 20 << 20
_NIGHTLY_NAME_PART = 18
_NAME_PART = 28
"""Of an experiment's name in a job's id: KubeRay takes 47 characters, and an attempt needs a few."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Package:
    """An experiment on its way to a cluster."""

    experiment: Experiment
    searches: bool
    """Whether its arms are searched first."""
    module_path: Path
    """Directory that holds the user's own modules, of which every .py file goes along."""
    command: list[str]
    """The words after `tandem` that led here, for the records."""
    is_check: bool = False
    """Whether nothing is to be trained, only checked."""
    is_dated: bool = False
    """Whether each start is an experiment of its own, with the day in its name."""
    scaling: tuple[int, ...] = ()
    """Numbers of workers to measure the arms' scaling on, instead of training them."""

    @property
    def job_id(self) -> str:
        """The same for the same work, so that a second submission finds the first."""
        name = self.experiment.name[:_NAME_PART].rstrip("-")
        return f"tandem-{name}-{short_hash(self._document())}"

    @property
    def nightly_id(self) -> str:
        """The same, as short as the name of a RayCronJob has to be."""
        return (
            f"tandem-{self.experiment.name[:_NIGHTLY_NAME_PART].rstrip('-')}-{short_hash(self._document())}"
        )

    @property
    def results(self) -> str:
        """Where the records and the report will be kept."""
        return url_below(self.experiment.storage, self.experiment.name)

    @property
    def outcome(self) -> str:
        """Where below the results the numbers are that the driver ends with."""
        return "scaling/scaling.json" if self.scaling else "report/results.json"

    def _document(self) -> dict[str, object]:
        document = {"experiment": self.experiment.model_dump(mode="json"), "searches": self.searches}
        return (
            document
            | ({"is_dated": True} if self.is_dated else {})
            | ({"is_check": True} if self.is_check else {})
            | ({"scaling": self.scaling} if self.scaling else {})
        )

    def files(self) -> dict[str, str]:
        """The experiment and the user's modules, by file name.

        Raises:
            InputError: the modules are too large to be code.
        """
        document = self._document() | {"command": self.command}
        modules = {module.name: module.read_text() for module in self._modules()}
        return modules | {EXPERIMENT_FILE: json.dumps(document, sort_keys=True)}

    @contextlib.contextmanager
    def directory(self) -> Iterator[Path]:
        """The same beside tandem's own code, in a directory for as long as the block lasts."""
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch)
            for name in _PACKAGES:
                shutil.copytree(_CODE / name, root / name, ignore=_only_code)
            for name, text in self.files().items():
                (root / name).write_text(text)
            yield root

    def _modules(self) -> list[Path]:
        if not any(":" in arm.model for arm in self.experiment.arms.values()):
            return []
        modules = sorted(self.module_path.glob("*.py"))
        size = sum(module.stat().st_size for module in modules)
        if size > _LARGEST_BYTES:
            raise InputError(
                f"{self.module_path}: its .py files have {size >> 20} MiB, which is too much to ship; "
                "keep the experiment file beside its own modules only"
            )
        return modules


def attempt_id(first: str, attempt: int) -> str:
    """The id of an attempt at some work, from 1; that of the first is the work's own."""
    return first if attempt == 1 else f"{first}-{attempt}"


def attempt_of(job_id: str, first: str) -> int | None:
    """Which attempt of some work a job is, from 1; None if it is of other work."""
    if job_id == first:
        return 1
    number = job_id.removeprefix(f"{first}-")
    return int(number) if number != job_id and number.isdigit() else None


def _only_code(directory: str, names: list[str]) -> list[str]:
    return [
        name
        for name in names
        if name == "__pycache__"
        or ((Path(directory) / name).is_file() and Path(name).suffix not in _SUFFIXES)
    ]
