"""A model from the user's own package: one file beside the experiment, named in the arm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import tandem

pytestmark = pytest.mark.serial

MODEL = """
from torch import nn


def build(image_shape, num_classes):
    height, width, channels = image_shape
    return nn.Sequential(nn.Flatten(), nn.Linear(height * width * channels, num_classes))
"""
EXPERIMENT = """\
name: toys
data: {source: digits}
arms:
  toy: {framework: torch, model: 'toys.linear:build', optimizer: {learning_rate: 0.01}, epochs: 5, seeds: [0]}
storage: results
"""


def test_an_arm_trains_the_users_model(tmp_path: Path) -> None:
    (tmp_path / "toys").mkdir()
    (tmp_path / "toys" / "linear.py").write_text(MODEL)
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    done = tandem("run", "experiment.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (arm,) = json.loads(done.stdout)["arms"]
    assert arm["parameters"] == 8 * 8 * 10 + 10
    assert arm["runs"][0]["test_accuracy"] > 0.5
