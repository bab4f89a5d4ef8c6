"""`tandem init`, `tandem cache` and `tandem --version`."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from orchestrator.experiment import reader
from orchestrator.planning import template
from tests.conftest import tandem
from tests.unit.images import fill, opened
from trainers.errors import InputError


def pictures(root: Path, *, side: int = 8, cats: int = 30) -> Path:
    fill(root / "photos" / "cat", cats, side=side)
    fill(root / "photos" / "dog", 10, side=side + 4 if side > 8 else side)
    return root / "photos"


def test_the_file_for_a_folder_is_accepted_by_check(tmp_path: Path) -> None:
    pictures(tmp_path, side=32)
    written = tandem("init", "--data", "photos/", cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    assert written.stdout == "experiment.yaml is written; next: tandem check experiment.yaml\n"
    text = (tmp_path / "experiment.yaml").read_text()
    assert (
        "path: photos" in text and "image_size: 64" in text and "# pixels a side, of 32x32 to 36x36" in text
    )
    assert all(len(line) < 121 for line in text.splitlines())
    checked = tandem("check", "experiment.yaml", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert "images of 64x64x3 in 2 classes" in checked.stdout
    again = tandem("init", "--data", "photos/", cwd=tmp_path)
    assert again.returncode == 2 and "experiment.yaml exists; give another file" in again.stderr


@pytest.mark.parametrize("frameworks", [["keras", "torch"], ["torch"]])
@pytest.mark.parametrize("where", [None, "cifar10"])
def test_the_file_for_a_source_has_an_arm_to_compare_with(
    tmp_path: Path, where: str | None, frameworks: list[str]
) -> None:
    text = template.for_data(where, directory=tmp_path, frameworks=frameworks)
    (tmp_path / "experiment.yaml").write_text(text)
    experiment = reader.load(tmp_path / "experiment.yaml")
    assert experiment.data.source == (where or "digits")
    assert [*experiment.arms] == (frameworks if len(frameworks) == 2 else ["torch", "torch-sgd"])


def test_the_recipe_fits_the_data(tmp_path: Path) -> None:
    photos = pictures(tmp_path, cats=200)
    text = template.for_data(str(photos), directory=tmp_path / "below", frameworks=["torch"])
    assert "path: ../photos" in text and "model: tutorial_cnn" in text and "  # image_size: 64" in text
    assert "\n  loss: {class_weights: balanced}" in text and "\n  batch_size: 16" in text


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("no/such/folder", "--data 'no/such/folder' does not exist; give a folder of pictures"),
        ("folder", "this source needs a path"),
    ],
)
def test_what_is_no_data_is_refused(tmp_path: Path, where: str, told: str) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        template.for_data(where, directory=tmp_path, frameworks=["torch"])


LOOP = """
import torch
from ray import train

def train_loop(config):
    rate, width = config["lr"], config.get("width", 32)
    torch.manual_seed(config["seed"])
    for epoch in range(config["epochs"]):
        train.report({"train_loss": 1.0, "val_loss": rate * width})
"""


def test_the_file_for_a_training_function_has_what_its_module_says(tmp_path: Path) -> None:
    (tmp_path / "my_training.py").write_text(LOOP)
    text = template.for_train_loop("my_training:train_loop", directory=tmp_path)
    assert "train_loop: my_training:train_loop" in text and "trainer: torch " in text
    assert "config: {lr: 0.001, width: 32, epochs: 5}" in text
    assert "metric: {name: val_loss, goal: minimize}" in text
    (tmp_path / "experiment.yaml").write_text(text)
    checked = tandem("check", "experiment.yaml", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert "3 runs" in checked.stdout
    for name, told in (
        ("my_training:x", "has no function 'x'"),
        ("nowhere:x", "there is no module"),
        ("x", "write"),
    ):
        with pytest.raises(InputError, match=told):
            template.for_train_loop(name, directory=tmp_path)


def test_the_cache_is_measured_and_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))
    before = opened(pictures(tmp_path)).fingerprint
    (tmp_path / "cache" / "archive.tar.gz").write_bytes(bytes(1000))
    size = json.loads(tandem("cache", "size", "--json").stdout)
    assert size["directory"] == str(tmp_path / "cache") and size["decoded"] == 1
    assert size["decoded_bytes"] > 40 * 8 * 8 * 3 and size["other_bytes"] == 1000
    assert tandem("cache", "clear").stdout.endswith(" MiB are free\n")
    assert json.loads(tandem("cache", "size", "--json").stdout) | {
        "decoded": 0,
        "decoded_bytes": 0,
    } == size | {
        "decoded": 0,
        "decoded_bytes": 0,
    }
    tandem("cache", "clear", "--downloads")
    assert not (tmp_path / "cache" / "archive.tar.gz").exists()
    assert opened(tmp_path / "photos").fingerprint == before


def test_the_version_is_printed() -> None:
    done = tandem("--version")
    assert re.fullmatch(r"tandem [\d.]+, Ray .*, Python [\d.]+\n", done.stdout), done
    assert os.environ.get("PYTHONPATH") is None or done.returncode == 0
