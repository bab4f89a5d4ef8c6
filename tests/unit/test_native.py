"""The built-in arms are the frameworks as their users have them: twenty steps against plain scripts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cluster.kube.nodes import free_port
from tests.conftest import ROOT

pytestmark = pytest.mark.trains

Measured = dict[str, np.ndarray]
"""By `<case>/<array>`."""
FRAMEWORKS = ("keras", "torch")
ALONE = ("tutorial_cnn", "lenet5", "resnet9", "speednet", "own", "own parts")
TOGETHER = {
    "keras": ("tutorial_cnn", "speednet", "synchronized", "own", "own parts"),
    "torch": ("tutorial_cnn", "speednet", "own", "own parts"),
}
ROUNDING = 1e-5


def measure(
    framework: str, cases: tuple[str, ...], directory: Path, *, workers: int
) -> dict[str, list[Measured]]:
    """What each worker measured, by side."""
    measured = {}
    for side in ("engine", "plain"):
        addresses = [f"127.0.0.1:{free_port()}" for _ in range(workers)] if workers > 1 else []
        command = [
            sys.executable,
            "-m",
            "tests.unit.native_steps",
            side,
            framework,
            ",".join(cases),
            str(directory),
        ]
        started = [
            subprocess.Popen(
                [*command, str(rank), *addresses],
                cwd=ROOT,
                env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(workers)
        ]
        for worker in started:
            _, err = worker.communicate(timeout=500)
            assert worker.returncode == 0, err[-3000:]
        measured[side] = [{**np.load(directory / f"{side}-{rank}.npz")} for rank in range(workers)]
    return measured


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[Measured]]]:
    """By framework, one worker."""
    return {
        framework: measure(framework, ALONE, tmp_path_factory.mktemp(framework), workers=1)
        for framework in FRAMEWORKS
    }


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[Measured]]]:
    """By framework, two workers."""
    return {
        framework: measure(framework, TOGETHER[framework], tmp_path_factory.mktemp(framework), workers=2)
        for framework in FRAMEWORKS
    }


def same_as_fit(measured: dict[str, list[Measured]], case: str) -> None:
    (engine,), (plain,) = measured["engine"], measured["plain"]
    assert engine[f"{case}/losses"] == pytest.approx(plain[f"{case}/losses"], rel=ROUNDING)
    assert engine[f"{case}/logits"] == pytest.approx(plain[f"{case}/logits"], rel=1e-2, abs=1e-2)


def bit_for_bit(measured: dict[str, list[Measured]], case: str) -> None:
    for engine, plain in zip(measured["engine"], measured["plain"], strict=True):
        for array in ("losses", "weights", "logits"):
            assert np.array_equal(engine[f"{case}/{array}"], plain[f"{case}/{array}"]), array


@pytest.mark.parametrize("case", ALONE)
def test_keras_steps_are_those_of_compile_and_fit(
    alone: dict[str, dict[str, list[Measured]]], case: str
) -> None:
    same_as_fit(alone["keras"], case)


@pytest.mark.parametrize("case", ALONE)
def test_pytorch_steps_are_those_of_a_plain_loop_bit_for_bit(
    alone: dict[str, dict[str, list[Measured]]], case: str
) -> None:
    bit_for_bit(alone["torch"], case)


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_steps_of_resnet18_are_those_of_a_plain_script(framework: str, tmp_path: Path) -> None:
    measured = measure(framework, ("resnet18",), tmp_path, workers=1)
    (same_as_fit if framework == "keras" else bit_for_bit)(measured, "resnet18")


@pytest.mark.parametrize("case", TOGETHER["keras"])
def test_two_keras_workers_are_those_of_a_plain_script_with_multi_worker_mirrored_strategy(
    together: dict[str, dict[str, list[Measured]]], case: str
) -> None:
    measured = together["keras"]
    first, second = measured["engine"]
    for engine, plain in zip(measured["engine"], measured["plain"], strict=True):
        assert engine[f"{case}/losses"] == pytest.approx(plain[f"{case}/losses"], rel=ROUNDING)
    assert np.array_equal(first[f"{case}/weights"], second[f"{case}/weights"]), (
        "statistics of the first worker"
    )
    plain = measured["plain"][0]
    assert first[f"{case}/logits"] == pytest.approx(plain[f"{case}/logits"], rel=1e-2, abs=1e-2)


@pytest.mark.parametrize("case", TOGETHER["torch"])
def test_two_pytorch_workers_are_those_of_a_plain_script_with_ddp_bit_for_bit(
    together: dict[str, dict[str, list[Measured]]], case: str
) -> None:
    bit_for_bit(together["torch"], case)


@pytest.mark.parametrize(
    ("framework", "one", "two"),
    [
        ("keras", "tutorial_cnn", "tutorial_cnn"),
        ("torch", "tutorial_cnn", "tutorial_cnn"),
        ("keras", "speednet", "synchronized"),
    ],
)
def test_two_workers_give_the_losses_of_one_without_or_with_synchronized_batch_norm(
    alone: dict[str, dict[str, list[Measured]]],
    together: dict[str, dict[str, list[Measured]]],
    framework: str,
    one: str,
    two: str,
) -> None:
    expected = alone[framework]["engine"][0][f"{one}/losses"]
    for worker in together[framework]["engine"]:
        assert worker[f"{two}/losses"] == pytest.approx(expected, rel=1e-4)
        if two == "synchronized":
            assert worker["speednet/losses"] != pytest.approx(expected, rel=1e-3)
