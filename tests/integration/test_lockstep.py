"""`tandem parity` through the real command, both frameworks side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import tandem
from trainers.recipes import BUILT_IN_MODELS

pytestmark = pytest.mark.serial

SMALL = """\
name: same
data: {{source: digits}}
arms:
  keras: {{framework: keras, recipe: fast, whitening: {{patch: 2, stride: 1}}}}
  torch: {{framework: torch, optimizer: adamw, augmentation: {{flip: true, crop: 1}}}}
storage: {storage}
"""
OPTIMIZERS = {
    "momentum": "{name: sgd, learning_rate: 0.01, momentum: 0.9, weight_decay: 5.0e-4}",
    "nesterov": "{name: sgd, learning_rate: 0.01, momentum: 0.9, nesterov: true}",
    "adam": "{name: adam}",
    "adamw": "{name: adamw}",
}


def test_both_frameworks_do_the_same_work_in_lockstep(
    tmp_path: Path, experiment_file: Callable[[str], Path]
) -> None:
    file = experiment_file(SMALL.format(storage=tmp_path))
    finished = tandem("parity", file, "--steps", "20", "--json")
    assert finished.returncode == 0, finished.stderr + finished.stdout
    results = json.loads(finished.stdout)
    assert [result["recipe"]["model"] for result in results] == ["speednet", "tutorial_cnn"]
    for result in results:
        assert result["agrees"]
        assert result["steps"] == 20
        assert 0 < result["loss_difference"] < 1e-4
        assert result["recipe"]["precision"] == "float32"

    again = tandem("parity", file, "--steps", "20")
    assert again.stdout.count("same work: losses of keras and torch differ by at most") == 2


def test_parity_needs_two_frameworks_and_built_in_models(
    experiment_file: Callable[[str], Path],
) -> None:
    one = experiment_file("name: x\narms: {a: {framework: keras}}\n")
    finished = tandem("parity", one)
    assert finished.returncode == 2
    assert "parity needs an arm of each framework" in finished.stderr


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("model", BUILT_IN_MODELS)
def test_every_model_and_optimizer_over_100_steps_on_cifar10(
    tmp_path: Path, experiment_file: Callable[[str], Path], cifar10: Path, model: str
) -> None:
    frameworks = ["keras", "torch", "keras", "torch"]
    arms = "\n".join(
        f"  {name}: {{framework: {framework}, optimizer: {optimizer}}}"
        for (name, optimizer), framework in zip(OPTIMIZERS.items(), frameworks, strict=True)
    )
    text = (
        f"name: same\ndata: {{source: cifar10, path: {cifar10}}}\n"
        f"defaults: {{model: {model}, augmentation: {{flip: true, crop: 4}}}}\narms:\n{arms}\n"
        f"scale: {{cpus_per_worker: 2}}\nstorage: {tmp_path}\n"
    )
    finished = tandem("parity", experiment_file(text), "--json", timeout=3600)
    assert finished.returncode == 0, finished.stderr + finished.stdout
    results = json.loads(finished.stdout)
    assert len(results) == len(OPTIMIZERS)
    for result in results:
        assert result["steps"] == 100
        assert result["loss_difference"] <= 1e-4
