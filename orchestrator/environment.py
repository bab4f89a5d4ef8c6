"""What the machine, the software and the code were when something was measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psutil

_PACKAGES = ("tandem", "ray", "tensorflow", "keras", "torch", "numpy", "pandas", "pyarrow")


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


def version(package: str) -> str | None:
    """Of an installed package; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


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


def _commit() -> str | None:
    """The commit of the working directory's repository, marked if files differ from it."""
    commit = _run("git", "rev-parse", "HEAD")
    if commit is None:
        return None
    return f"{commit} (modified)" if _run("git", "status", "--porcelain") else commit
