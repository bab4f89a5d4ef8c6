"""What `doctor` and a worker say where a GPU cannot be used."""

from __future__ import annotations

import pytest

from orchestrator.clusters.local_diagnosis import gpu_findings
from trainers.errors import no_gpu

FOR_CUDA_12 = {"nvidia-cuda-runtime-cu12": "12.8.90"}


@pytest.mark.parametrize(
    ("driver", "installed", "rules"),
    [
        ("550.54.15", FOR_CUDA_12 | {"torch": "2.14.1", "tensorflow": "2.21.0"}, []),
        ("470.82.01", FOR_CUDA_12, ["driver-too-old"]),
        ("550.54.15", {"nvidia-cuda-runtime": "13.0.96"}, ["driver-too-old"]),
        ("580.65.06", {"nvidia-cuda-runtime": "13.0.96"}, []),
        (None, FOR_CUDA_12, []),
        ("550.54.15", {"torch": "2.14.1+cpu"}, ["framework-without-cuda"]),
        ("550.54.15", {"tensorflow": "2.21.0"}, ["framework-without-cuda"]),
    ],
)
def test_a_gpu_that_cannot_be_used_is_named(
    driver: str | None, installed: dict[str, str], rules: list[str]
) -> None:
    assert [finding.cause for finding in gpu_findings(driver, installed, has_system_cuda=False)] == rules


def test_tensorflow_may_use_the_cuda_of_the_system() -> None:
    assert [*gpu_findings("550.54.15", {"tensorflow": "2.21.0"}, has_system_cuda=True)] == []


def test_the_finding_says_which_driver_would_do() -> None:
    (finding,) = gpu_findings("550.54.15", {"nvidia-cuda-runtime": "13.0.96"}, has_system_cuda=False)
    assert finding.sentence == (
        "the NVIDIA driver 550.54.15 is too old for CUDA 13, which nvidia-cuda-runtime is of"
    )
    assert finding.remedy == "install driver 580 or later, or wheels for an earlier CUDA"


@pytest.mark.parametrize(
    ("cuda", "remedy"),
    [
        (None, "this PyTorch is built without CUDA; install one with CUDA"),
        ("13.0", "its driver supports CUDA 13.0, for which this PyTorch is built"),
    ],
)
def test_a_worker_without_its_gpu_says_so_in_one_sentence(cuda: str | None, remedy: str) -> None:
    said = str(no_gpu("PyTorch", "2.14.1", cuda=cuda))
    assert said.startswith("scale.gpus_per_worker asks for a GPU, but PyTorch 2.14.1 sees none on node ")
    assert remedy in said and said.endswith("or set scale.gpus_per_worker to 0")
