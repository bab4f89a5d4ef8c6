"""A job as it is sent to a cluster: the specification, the user's modules and tandem's own code."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from orchestrator.planning.job import JOB_FILE, JobSpec
from orchestrator.planning.run_plan import short_hash
from trainers.errors import InputError

_PACKAGES = ("orchestrator", "trainers")
_CODE = Path(__file__).resolve().parents[2]
_SUFFIXES = {".py", ".html", ".css", ".js"}
_LARGEST_BYTES = 20 << 20
_NAME_PART = 28
"""Characters of the experiment's name in a job's id. KubeRay allows 47 in all, and attempts add a few."""
_NIGHTLY_NAME_PART = 18


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobBundle:
    """A job with the directory that its experiment file came from."""

    spec: JobSpec
    module_path: Path
    """Holds the user's own modules. Every .py file in it is sent, and the packages that arms name."""
    resumes: str | None = None
    """Directory or URL of an interrupted experiment, which `tandem resume` goes on with."""

    @property
    def records_url(self) -> str:
        """Where this machine finds the experiment's records, which may have been moved since they were written."""
        return self.spec.results if self.resumes is None else self.resumes

    @property
    def job_id(self) -> str:
        """Equal for equal work, so that a second submission finds the first."""
        return self._id(_NAME_PART)

    @property
    def nightly_id(self) -> str:
        """The same, short enough for the name of a RayCronJob."""
        return self._id(_NIGHTLY_NAME_PART)

    def _id(self, length: int) -> str:
        name = self.spec.experiment.name[:length].rstrip("-")
        return f"tandem-{name}-{short_hash(self.spec.work)}"

    def files(self) -> dict[str, str]:
        """The specification and the user's modules, by file name.

        Raises:
            InputError: the modules are too large to be code.
        """
        modules = {
            module.relative_to(self.module_path).as_posix(): module.read_text() for module in self._modules()
        }
        return modules | {JOB_FILE: json.dumps(self.spec.to_json(), sort_keys=True)}

    @contextlib.contextmanager
    def directory(self) -> Iterator[Path]:
        """A temporary directory with these files and tandem's own code; it is removed after the block."""
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch)
            for name in _PACKAGES:
                shutil.copytree(_CODE / name, root / name, ignore=_all_but_code)
            for name, text in self.files().items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text)
            yield root

    def _modules(self) -> list[Path]:
        experiment = self.spec.experiment
        loops = experiment.train_loop_arms.values()
        if not loops and not any(":" in arm.model for arm in experiment.recipe_arms.values()):
            return []
        packages = {module.partition(".")[0] for arm in loops for module in arm.modules if "." in module}
        modules = sorted(
            [
                *self.module_path.glob("*.py"),
                *(module for package in packages for module in self.module_path.glob(f"{package}/**/*.py")),
            ]
        )
        size = sum(module.stat().st_size for module in modules)
        if size > _LARGEST_BYTES:
            raise InputError(
                f"{self.module_path}: its .py files have {size >> 20} MiB, more than the {_LARGEST_BYTES >> 20} MiB "
                "that can be sent; keep only the experiment's own modules beside the experiment file"
            )
        return modules


def attempt_id(first: str, attempt: int) -> str:
    """The id of an attempt, counted from 1; the first attempt has the work's own id."""
    return first if attempt == 1 else f"{first}-{attempt}"


def attempt_of(job_id: str, first: str) -> int | None:
    """The attempt that a job is, counted from 1; None if the job does other work."""
    if job_id == first:
        return 1
    number = job_id.removeprefix(f"{first}-")
    return int(number) if number != job_id and number.isdigit() else None


def _all_but_code(directory: str, names: list[str]) -> list[str]:
    return [
        name
        for name in names
        if name == "__pycache__"
        or ((Path(directory) / name).is_file() and Path(name).suffix not in _SUFFIXES)
    ]
