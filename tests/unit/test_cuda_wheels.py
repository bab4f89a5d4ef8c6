"""The script that checks an image's CUDA libraries, on planted metadata of wheels."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import ROOT


def plant(
    root: Path,
    name: str,
    version: str,
    *,
    requires: Sequence[str] = (),
    files: Sequence[str] = (),
    extra: str = "",
) -> None:
    directory = root / f"{name.replace('-', '_')}-{version}.dist-info"
    directory.mkdir()
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}"] * bool(extra) + [f"Requires-Dist: {each}" for each in requires]
    (directory / "METADATA").write_text("\n".join(lines) + "\n")
    (directory / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def image(root: Path, *, cuda_of_torch: int = 12, cudnn: str = "9.10.2.21") -> Path:
    """TensorFlow for CUDA 12, and PyTorch for the same or another one."""
    plant(
        root,
        "tensorflow",
        "2.21.0",
        requires=[
            'nvidia-cudnn-cu12<10.0,>=9.3.0.75; extra == "and-cuda"',
            'nvidia-cublas-cu12<13.0,>=12.5.3.2; extra == "and-cuda"',
            "numpy>=1.26",
        ],
        extra="and-cuda",
    )
    torch = [
        'nvidia-nccl-cu13==2.30.7; platform_system == "Linux"',
        'nvidia-x==1; platform_system == "Plan 9"',
    ]
    if cuda_of_torch == 13:
        torch += ["cuda-toolkit[cublas]==13.0.3", "nvidia-cudnn-cu13==9.24.0.43"]
        plant(
            root,
            "cuda-toolkit",
            "13.0.3",
            requires=['nvidia-cublas==13.1.*; extra == "cublas"'],
            extra="cublas",
        )
        plant(root, "nvidia-cublas", "13.1.1.3", files=["nvidia/cu13/lib/libcublas.so.13"])
        plant(root, "nvidia-cudnn-cu13", "9.24.0.43", files=["nvidia/cudnn/lib/libcudnn.so.9"])
        plant(root, "nvidia-nccl-cu13", "2.30.7", files=["nvidia/nccl/lib/libnccl.so.2"])
    else:
        torch = ["nvidia-cudnn-cu12==9.10.2.21", "nvidia-cublas-cu12==12.8.4.1"]
    plant(root, "torch", "2.14.1", requires=torch)
    plant(root, "nvidia-cudnn-cu12", cudnn, files=["nvidia/cudnn/lib/libcudnn.so.9", "nvidia/__init__.py"])
    plant(
        root,
        "nvidia-cublas-cu12",
        "12.8.4.1",
        files=["nvidia/cublas/lib/libcublas.so.12", "nvidia/__init__.py"],
    )
    return root


def check(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "docker" / "check_cuda.py", root]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_wheels_for_one_version_of_cuda_are_listed(tmp_path: Path) -> None:
    done = check(image(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == ["nvidia-cublas-cu12 12.8.4.1", "nvidia-cudnn-cu12 9.10.2.21"]


def test_two_versions_of_cuda_clash_in_their_files(tmp_path: Path) -> None:
    done = check(image(tmp_path, cuda_of_torch=13))
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "tensorflow is built for CUDA 12, torch is built for CUDA 13: install wheels for one version of CUDA, as the "
        "Dockerfile's TORCH_CUDA says",
        "nvidia-cudnn-cu12 and nvidia-cudnn-cu13 both install nvidia/cudnn/lib/libcudnn.so.9",
    ]


def test_a_library_of_another_version_is_named(tmp_path: Path) -> None:
    done = check(image(tmp_path, cudnn="9.1.0.70"))
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "tensorflow needs nvidia-cudnn-cu12<10.0,>=9.3.0.75, but 9.1.0.70 is installed",
        "torch needs nvidia-cudnn-cu12==9.10.2.21, but 9.1.0.70 is installed",
    ]


@pytest.mark.parametrize("missing", ["tensorflow", "torch"])
def test_a_missing_framework_and_a_build_for_cpus_are_named(tmp_path: Path, missing: str) -> None:
    plant(tmp_path, "torch" if missing == "tensorflow" else "tensorflow", "2.0+cpu")
    done = check(tmp_path)
    assert done.returncode == 1
    assert f"{missing} is not installed" in done.stdout
    assert "2.0+cpu asks for no CUDA library: it is a build for CPUs" in done.stdout
