"""What the machine, the software and the code were when something was measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from orchestrator.experiment.spec import Experiment
from trainers.errors import InputError
from trainers.ray_train.ray_trainers import FRAMEWORKS

DISTRIBUTION = "tandem-compare"
"""The package's name in registries."""
FRAMEWORK_NAMES = {"keras": "Keras", "torch": "PyTorch"}
_MODULES = {"keras": ("keras", "tensorflow"), "torch": ("torch",)}
"""What the extra of each framework installs."""
_PACKAGES = (DISTRIBUTION, "ray", "tensorflow", "keras", "torch", "numpy", "pandas", "pyarrow")


def available_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux alone restricts a process in a way that can be read
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe() -> dict[str, Any]:
    """Machine, its load over the last minute, versions and commit, as plain JSON."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cpus": available_cpus(),
        "gpus": gpus(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average": round(psutil.getloadavg()[0], 1),
        "packages": {name: version(name) for name in _PACKAGES},
        "commit": _commit(),
    }


def frameworks_of(experiment: Experiment) -> set[str]:
    """What an experiment's arms train with, as far as it is known."""
    connected = {FRAMEWORKS.get(arm.trainer) for arm in experiment.train_loop_arms.values()} - {None}
    return {arm.framework for arm in experiment.recipe_arms.values()} | {str(name) for name in connected}


def missing_frameworks(frameworks: Iterable[str]) -> list[str]:
    """Those that are not installed here."""
    return [name for name in sorted(set(frameworks)) if not all(map(find_spec, _MODULES[name]))]


def install_command(extras: Iterable[str]) -> str:
    """The command that installs optional parts of tandem."""
    return f"pip install '{DISTRIBUTION}[{','.join(extras)}]'"


def require_frameworks(frameworks: Iterable[str]) -> None:
    """Refuse what needs a framework that is not installed here.

    Raises:
        InputError: names the command that installs it.
    """
    if missing := missing_frameworks(frameworks):
        names = " and ".join(FRAMEWORK_NAMES[name] for name in missing)
        verb = "is" if len(missing) == 1 else "are"
        raise InputError(f"{names} {verb} not installed here; {install_command(missing)}")


def version(package: str) -> str | None:
    """Of an installed package; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> str:
    """Those of tandem, Python, Ray and the installed frameworks, in a line."""
    parts = {
        "tandem": DISTRIBUTION,
        "Ray": "ray",
        "Keras": "keras",
        "TensorFlow": "tensorflow",
        "PyTorch": "torch",
    }
    found = {name: version(package) for name, package in parts.items()}
    installed = [f"{name} {number}" for name, number in found.items() if number is not None]
    return ", ".join([*installed, f"Python {platform.python_version()}"])


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _run(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    finished = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return finished.stdout.strip() if finished.returncode == 0 else None


def gpus() -> list[str]:
    """Names of this machine's NVIDIA GPUs."""
    names = _run("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return names.splitlines() if names else []


def driver_version() -> str | None:
    """Of NVIDIA's driver; None without one."""
    versions = _run("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return versions.splitlines()[0].strip() if versions else None


def _commit() -> str | None:
    """The commit of the working directory's repository, marked if files differ from it."""
    commit = _run("git", "rev-parse", "HEAD")
    if commit is None:
        return None
    return f"{commit} (modified)" if _run("git", "status", "--porcelain") else commit
