"""`tandem parity` through the real command, both frameworks side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import tandem
from trainers.parity.update_rules import EPSILON, ROOT_EPSILON, VARIANCE, VELOCITY
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
OWN = """\
name: own
data: {{source: digits}}
defaults: {{optimizer: {{name: sgd, momentum: 0.9, weight_decay: 0.01}}}}
arms:
  mine: {{framework: keras, model: "own_models:keras_net"}}
  theirs: {{framework: torch, model: "own_models:torch_net"}}
parity:
  weights: {{dense/kernel: head.weight, dense/bias: head.bias}}
  flattened: {{dense/kernel: [4, 4, 8]}}
storage: {storage}
"""
OWN_MODELS = """\
def keras_net(image_shape, num_classes):
    import keras
    from keras import layers

    return keras.Sequential([
        keras.Input(image_shape),
        layers.Conv2D(4, 3, activation="relu", name="conv"),
        layers.DepthwiseConv2D(3, depth_multiplier=2, name="depth"),
        layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name="norm"),
        layers.Flatten(),
        layers.Dropout(DROPOUT),
        layers.Dense(num_classes, name="dense"),
    ])


def torch_net(image_shape, num_classes):
    from torch import nn
    from torch.nn import functional as F

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(image_shape[2], 4, 3)
            self.depth = nn.Conv2d(4, 8, 3, groups=4)
            self.norm = nn.BatchNorm2d(8)
            self.head = nn.Linear(8 * 4 * 4, num_classes)

        def forward(self, x):
            return self.head(self.norm(self.depth(F.relu(self.conv(x)))).flatten(1))

    return Net()
"""
WORKERS = """\
name: workers
data: {{source: digits}}
defaults: {{model: speednet, optimizer: {{name: sgd, momentum: 0.9}}}}
arms: {{keras: {{framework: keras}}, torch: {{framework: torch}}}}
scale: {{workers: 2}}
storage: {storage}
"""
RECIPES = {
    "momentum": "{optimizer: {name: sgd, learning_rate: 0.01, momentum: 0.9, weight_decay: 5.0e-4}}",
    "one-cycle": "{optimizer: {name: sgd, learning_rate: 0.01, momentum: 0.9}, schedule: one_cycle}",
    "nesterov": "{optimizer: {name: sgd, learning_rate: 0.01, momentum: 0.9, nesterov: true}}",
    "adam": "{optimizer: adam}",
    "adamw": "{optimizer: adamw}",
    "rmsprop": "{optimizer: {name: rmsprop, momentum: 0.5, epsilon: 1.0e-6}, gradient_clip: 1.0, accumulate: 2}",
}
NAMED = {
    "momentum": [],
    "nesterov": [],
    "one-cycle": [VELOCITY],
    "adam": [EPSILON],
    "adamw": [EPSILON],
    "rmsprop": [ROOT_EPSILON],
}


def test_both_frameworks_do_the_same_work_in_lockstep(
    tmp_path: Path, experiment_file: Callable[[str], Path]
) -> None:
    file = experiment_file(SMALL.format(storage=tmp_path))
    finished = tandem("parity", file, "--steps", "20", "--json")
    assert finished.returncode == 0, finished.stderr + finished.stdout
    results = json.loads(finished.stdout)
    assert [result["recipe"]["model"] for result in results] == ["speednet", "tutorial_cnn"]
    for result, names in zip(results, ([VELOCITY, VARIANCE], [EPSILON]), strict=True):
        assert result["verdict"] == "same work up to named differences"
        assert [found["name"] for found in result["named"]] == names
        assert result["steps"] == 20
        assert 0 < result["loss_difference"] < 1e-4
        assert result["update_difference"] < 1e-4
        assert result["recipe"]["precision"] == "float32"

    again = tandem("parity", file, "--steps", "20")
    assert again.stdout.count(": same work up to named differences: ") == 2


def test_own_models_are_compared_by_the_names_that_the_file_gives(
    tmp_path: Path, experiment_file: Callable[[str], Path]
) -> None:
    file = experiment_file(OWN.format(storage=tmp_path))
    (tmp_path / "own_models.py").write_text(OWN_MODELS.replace("DROPOUT", "0.0"))
    finished = tandem("parity", file, "--steps", "10", "--json")
    assert finished.returncode == 0, finished.stderr + finished.stdout
    (result,) = json.loads(finished.stdout)
    assert result["arms"] == ["mine", "theirs"]
    assert result["verdict"] == "same work up to named differences"
    assert [found["name"] for found in result["named"]] == [VARIANCE]
    assert result["named"][0]["weight"] == "norm.variance"


def test_a_model_that_draws_random_numbers_is_refused(
    tmp_path: Path, experiment_file: Callable[[str], Path]
) -> None:
    file = experiment_file(OWN.format(storage=tmp_path))
    (tmp_path / "own_models.py").write_text(OWN_MODELS.replace("DROPOUT", "0.5"))
    finished = tandem("parity", file, "--steps", "3")
    assert finished.returncode == 2
    assert "'own_models:keras_net' gives different losses for the same batch and weights" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_two_workers_keep_statistics_of_their_shares(
    tmp_path: Path, experiment_file: Callable[[str], Path]
) -> None:
    finished = tandem("parity", experiment_file(WORKERS.format(storage=tmp_path)), "--steps", "6", "--json")
    assert finished.returncode == 0, finished.stderr + finished.stdout
    (result,) = json.loads(finished.stdout)
    assert result["verdict"] == "same work up to named differences"
    assert [found["name"] for found in result["named"]] == [VARIANCE]


def test_parity_needs_two_frameworks(experiment_file: Callable[[str], Path]) -> None:
    one = experiment_file("name: x\narms: {a: {framework: keras}}\n")
    finished = tandem("parity", one)
    assert finished.returncode == 2
    assert "parity needs an arm of each framework" in finished.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("model", BUILT_IN_MODELS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_model_and_optimizer_over_100_steps_on_cifar10(
    tmp_path: Path, experiment_file: Callable[[str], Path], cifar10: Path, model: str, recipe: str
) -> None:
    text = (
        f"name: same\ndata: {{source: cifar10, path: {cifar10}}}\n"
        f"defaults: {{model: {model}, augmentation: {{flip: true, crop: 4}}}}\n"
        f"arms:\n  keras: {RECIPES[recipe][:-1]}, framework: keras}}\n  torch: {{extends: keras, framework: torch}}\n"
        f"storage: {tmp_path}\n"
    )
    finished = tandem("parity", experiment_file(text), "--json", timeout=1800)
    assert finished.returncode == 0, finished.stderr + finished.stdout
    (result,) = json.loads(finished.stdout)
    print(model, recipe, {key: result[key] for key in ("verdict", "loss_difference", "update_difference")})
    assert result["steps"] == 100
    assert result["loss_difference"] <= 1e-4
    assert result["update_difference"] <= 1e-4
    norms = [VARIANCE] if model in ("resnet9", "resnet18", "speednet") else []
    assert [found["name"] for found in result["named"]] == NAMED[recipe] + norms
