"""Checks of this machine, before training: packages, disk, shared memory, GPUs and Ray's token."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from ctypes.util import find_library
from pathlib import Path

from orchestrator.clusters.interface import Finding
from orchestrator.execution.monitoring import environment
from trainers.contract import FRAMEWORKS

_CUDA_LIBRARIES = {"nvidia-cuda-runtime-cu12": 12, "nvidia-cuda-runtime": 13}
"""CUDA's own library by package, and the version of CUDA that it is of."""
_LEAST_DRIVER = {12: 525, 13: 580}
"""NVIDIA's first driver for each version of CUDA."""
_LEAST_DISK = 2 << 30
_LEAST_SHARED_MEMORY = 1 << 30


def findings() -> list[Finding]:
    """Everything that is wrong with this machine."""
    return [*_frameworks(), *_disk(), *_gpus(), *_token()]


def _frameworks() -> Iterator[Finding]:
    for framework in environment.missing_frameworks(FRAMEWORKS):
        name = environment.FRAMEWORK_NAMES[framework]
        yield Finding(
            "package-missing",
            f"{name} is not installed, so its arms cannot be trained on this machine",
            environment.install_command([framework]),
        )


def _disk() -> Iterator[Finding]:
    for place in (Path(tempfile.gettempdir()), Path.cwd()):
        free = shutil.disk_usage(place).free
        if free < _LEAST_DISK:
            yield Finding(
                "disk-full",
                f"{place} has {free >> 20} MiB left, and Ray stops scheduling on a full disk",
                "free some, or set RAY_TMPDIR and --set storage=DIR to another disk",
            )
    shared = Path("/dev/shm")
    if shared.is_dir() and shutil.disk_usage(shared).total < _LEAST_SHARED_MEMORY:
        yield Finding(
            "shared-memory-small",
            f"/dev/shm has {shutil.disk_usage(shared).total >> 20} MiB, so Ray keeps its objects on disk",
            "start the container with --shm-size=4g",
        )


def _gpus() -> Iterator[Finding]:
    if Path("/proc/driver/nvidia/version").exists() and not environment.gpus():
        yield Finding(
            "gpu-not-visible",
            "an NVIDIA driver is loaded, but nvidia-smi shows no GPU",
            "start the container with --gpus all, or check CUDA_VISIBLE_DEVICES",
        )
    if environment.gpus():
        installed = {name: environment.version(name) for name in ("torch", "tensorflow", *_CUDA_LIBRARIES)}
        yield from gpu_findings(
            environment.driver_version(),
            installed,
            has_system_cuda=(find_library("cudart") or "").endswith(".12"),
        )


def gpu_findings(
    driver: str | None, installed: Mapping[str, str | None], *, has_system_cuda: bool
) -> Iterator[Finding]:
    """What keeps the frameworks from using this machine's GPUs.

    Args:
        driver: the version of NVIDIA's driver, such as 550.54.15.
        installed: versions of PyTorch, TensorFlow and CUDA's libraries by package; None for one that is missing.
        has_system_cuda: whether CUDA 12, which TensorFlow needs, is installed apart from Python's packages.
    """
    for package, major in _CUDA_LIBRARIES.items():
        least = _LEAST_DRIVER[major]
        if installed.get(package) and driver is not None and int(driver.partition(".")[0]) < least:
            yield Finding(
                "driver-too-old",
                f"the NVIDIA driver {driver} is too old for CUDA {major}, which {package} is of",
                f"install driver {least} or later, or wheels for an earlier CUDA",
            )
    torch, tensorflow = installed.get("torch"), installed.get("tensorflow")
    if torch and torch.endswith("+cpu"):
        yield Finding(
            "framework-without-cuda",
            f"there is a GPU, but PyTorch {torch} is built without CUDA",
            "install PyTorch's wheel with CUDA",
        )
    if tensorflow and not installed.get("nvidia-cuda-runtime-cu12") and not has_system_cuda:
        yield Finding(
            "framework-without-cuda",
            f"there is a GPU, but TensorFlow {tensorflow} finds no CUDA libraries",
            'pip install "tensorflow[and-cuda]"',
        )


def _token() -> Iterator[Finding]:
    if os.environ.get("RAY_AUTH_MODE") == "token" and not (
        os.environ.get("RAY_AUTH_TOKEN")
        or os.environ.get("RAY_AUTH_TOKEN_PATH")
        or Path("~/.ray/auth_token").expanduser().exists()
    ):
        yield Finding(
            "no-token",
            "RAY_AUTH_MODE is token, but no token is set",
            "set RAY_AUTH_TOKEN, or ray get-auth-token --generate",
        )
