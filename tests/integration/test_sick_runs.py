"""Runs that do not go on by themselves: failed, diverged, hung, out of memory, with a torn checkpoint, forgetting."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.store.records import ExperimentRecords, RunRecords
from orchestrator.store.storage import Storage
from tests.conftest import start_tandem, tandem
from tests.integration.test_faults import training_workers, wait_for

pytestmark = [pytest.mark.serial, pytest.mark.ray]

SICK = """\
name: sick
data: {{source: digits, image_size: 24}}
defaults: {{framework: torch, epochs: 3, seeds: [0], batch_size: 64}}
arms:
{arms}
scale: {{workers: {workers}, hang_seconds: {hang_seconds}, retries: 1}}
storage: {storage}
"""
FAILING = """\
  broken: {model: 'sick_models:broken'}
  nan: {model: 'sick_models:nan'}
  good: {model: 'sick_models:good'}
  hungry: {model: 'sick_models:hungry', batch_size: 1024}
"""
DIVERGING = """\
  keras: {framework: keras, optimizer: {name: sgd, learning_rate: 1.0e+3, momentum: 0.9}}
  torch: {extends: keras, framework: torch}
  forgetful:
    model: 'sick_models:forgetful'
    optimizer: {learning_rate: 0.05}
    epochs: 8
    early_stopping: {patience: 2}
  dazzled: {model: 'sick_models:dazzled', inputs: unit}
  dazzled-keras: {framework: keras, model: 'sick_keras:dazzled', inputs: unit}
"""
MODELS = """
import os, resource, time, pathlib
import torch
from torch import nn

HERE = pathlib.Path(__file__).parent


class Sick(nn.Module):
    def __init__(self, image_shape, num_classes, channels=8):
        super().__init__()
        self.conv = nn.Conv2d(image_shape[2], channels, 3)
        self.dense = nn.Linear(channels, num_classes)
        self.steps = 0

    def forward(self, x):
        if self.training:
            self.steps += 1
            self.get_sick()
        return self.dense(self.conv(x).mean((2, 3))) * self.factor

    factor = 1.0

    def get_sick(self):
        pass


class Nan(Sick):
    def get_sick(self):
        if self.steps == 25:
            self.factor = float("nan")


class Forgetful(Sick):
    def __init__(self, *args):
        super().__init__(*args)
        self.register_buffer("taken", torch.zeros(()))

    def get_sick(self):
        self.taken += 1

    @property
    def factor(self):
        return (self.taken < 43).float()


class Hanging(Sick):
    def get_sick(self):
        if self.steps == 25:
            try:
                (HERE / "hung-once").mkdir()
            except FileExistsError:
                return
            time.sleep(1e6)


class Dazzled(nn.Sequential):  # takes pixels from 0 to 255, so that its first losses are high
    def forward(self, x):
        return super().forward(x * 255)


class MoonError(Exception):
    pass


class Broken(Sick):
    def get_sick(self):
        if self.steps == 25:
            raise MoonError("the moon is in the wrong phase")


def broken(image_shape, num_classes):
    return Broken(image_shape, num_classes)


def good(image_shape, num_classes):
    return Sick(image_shape, num_classes)


def nan(image_shape, num_classes):
    return Nan(image_shape, num_classes)


def forgetful(image_shape, num_classes):
    return Forgetful(image_shape, num_classes)


def dazzled(image_shape, num_classes):
    height, width, channels = image_shape
    hidden = nn.Linear(height * width * channels, 64)
    return Dazzled(nn.Flatten(), hidden, nn.ReLU(), nn.Linear(64, num_classes))


def hanging(image_shape, num_classes):
    return Hanging(image_shape, num_classes)


def hungry(image_shape, num_classes):
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (768 << 20), resource.RLIM_INFINITY))
    return Sick(image_shape, num_classes, channels=1024)
"""


KERAS_MODELS = """
import keras
from keras import layers


def dazzled(image_shape, num_classes):
    dense = [layers.Dense(64, activation="relu"), layers.Dense(num_classes)]
    return keras.Sequential([keras.Input(image_shape), layers.Rescaling(255.0), layers.Flatten(), *dense])
"""


def written(root: Path, arms: str, *, workers: int = 1, hang_seconds: float = 600) -> Path:
    """An experiment and the models it may name."""
    (root / "sick_models.py").write_text(MODELS)
    (root / "sick_keras.py").write_text(KERAS_MODELS)
    file = root / "experiment.yaml"
    file.write_text(SICK.format(arms=arms, workers=workers, hang_seconds=hang_seconds, storage=root))
    return file


def run_of(root: Path, arm: str) -> RunRecords:
    records = ExperimentRecords(Storage(str(root / "sick")))
    (run_id,) = (run["id"] for run in records.document()["runs"] if run["arm"] == arm)
    return records.run(run_id)


@dataclasses.dataclass(frozen=True)
class Finished:
    """An experiment whose arms failed, each in its own way."""

    root: Path
    process: subprocess.CompletedProcess[str]

    def failure(self, arm: str) -> dict[str, Any]:
        """What went wrong with an arm, once."""
        (failure,) = run_of(self.root, arm).failures()
        return failure

    @property
    def report(self) -> str:
        return (self.root / "sick" / "report" / "report.md").read_text()


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    """Both experiments, trained side by side."""

    def train(name: str, arms: str, workers: int) -> Finished:
        root = tmp_path_factory.mktemp(name)
        return Finished(root, tandem("run", written(root, arms, workers=workers)))

    with ThreadPoolExecutor() as pool:
        failing = pool.submit(train, "failing", FAILING, 1)
        diverging = pool.submit(train, "diverging", DIVERGING, 2)
        return {"failing": failing.result(), "diverging": diverging.result()}


@pytest.fixture
def failed(ended: dict[str, Finished]) -> Finished:
    return ended["failing"]


@pytest.fixture
def diverged(ended: dict[str, Finished]) -> Finished:
    return ended["diverging"]


def test_a_failing_arm_is_recorded_and_the_others_go_on(failed: Finished) -> None:
    assert failed.process.returncode == 1, failed.process.stderr
    assert "good scored" in failed.process.stdout
    line = 1 + MODELS.splitlines().index('            raise MoonError("the moon is in the wrong phase")')
    told = f"broken seed 0 failed: MoonError: the moon is in the wrong phase (sick_models.py, line {line})"
    assert f"{told}; failed permanently" in failed.process.stderr
    assert "broken seed 0 failed: MoonError: the moon is in the wrong phase" in failed.report
    broken = run_of(failed.root, "broken")
    assert len(broken.attempts()) == len(broken.failures()) == 1, "an error in the code is not tried again"
    assert run_of(failed.root, "good").result() is not None


def test_a_loss_that_is_no_number_names_step_rate_and_last_checkpoint(failed: Finished) -> None:
    failure = failed.failure("nan")
    assert failure["permanent"], "the same would happen again"
    for part in (
        "NaN at step 25 ",
        "(epoch 2)",
        "learning rate 0.001",
        "healthy checkpoint is that of epoch 1",
    ):
        assert part in failure["cause"]
    assert run_of(failed.root, "nan").resume_point().epoch == 1


def test_out_of_memory_names_a_batch_size_that_fits(failed: Finished) -> None:
    failure = failed.failure("hungry")
    cause = failure["cause"]
    assert "out of memory with batch_size 1024; batch_size " in cause
    fits = int(cause.split("batch_size ")[2].split()[0])
    assert fits in (16, 32, 64, 128, 256)
    assert failure["permanent"]


@pytest.mark.parametrize("framework", ["keras", "torch"])
def test_a_diverging_run_is_stopped_before_its_time(diverged: Finished, framework: str) -> None:
    assert diverged.process.returncode == 1
    cause = diverged.failure(framework)["cause"]
    assert "at step" in cause
    assert "learning rate 1e+03" in cause
    assert "none was kept" in cause
    assert f"{framework} seed 0 failed: the loss became" in diverged.report


def test_a_run_that_gets_no_better_is_ended_and_its_best_epoch_tested(diverged: Finished) -> None:
    run = run_of(diverged.root, "forgetful")
    epochs, result = run.epochs(), run.result()
    accuracies = [epoch["validation_accuracy"] for epoch in epochs]
    assert result is not None
    assert result["tested_epoch"] == 1 + int(np.argmax(accuracies)) <= 2, accuracies
    assert len(accuracies) == result["tested_epoch"] + 2
    assert epochs[-1]["validation_loss"] == pytest.approx(np.log(10)), "it knows nothing any more"
    assert result["test_loss"] == pytest.approx(
        epochs[result["tested_epoch"] - 1]["validation_loss"], abs=0.05
    )
    assert result["test_loss"] < np.log(10) - 0.05
    page = (diverged.root / "sick" / "report" / "report.html").read_text()
    assert f"{len(accuracies)}, tested after {result['tested_epoch']}" in page


@pytest.mark.parametrize("arm", ["dazzled", "dazzled-keras"])
def test_a_model_whose_first_losses_are_high_is_trained(diverged: Finished, arm: str) -> None:
    run = run_of(diverged.root, arm)
    assert run.result() is not None and not run.failures()
    first, *_, last = (epoch["train_loss"] for epoch in run.epochs())
    assert first > last


@pytest.mark.slow
def test_a_hung_worker_is_replaced(tmp_path: Path) -> None:
    file = written(tmp_path, "  only: {model: 'sick_models:hanging'}", workers=2, hang_seconds=8)
    finished = tandem("run", file)
    assert finished.returncode == 0, finished.stderr
    run = run_of(tmp_path, "only")
    (failure,) = run.failures()
    assert "hung: nothing was done for 8 s" in failure["cause"]
    assert failure["detail"], "the stack says where"
    assert [attempt["first_epoch"] for attempt in run.attempts()] == [1, 2]
    assert [epoch["epoch"] for epoch in run.epochs()] == [1, 2, 3]


@pytest.mark.slow
def test_a_stopped_process_is_replaced(tmp_path: Path) -> None:
    process = start_tandem("run", written(tmp_path, "  only: {batch_size: 2}", hang_seconds=8))
    wait_for(lambda: (tmp_path / "sick").is_dir() and bool(run_of(tmp_path, "only").epochs()), process)
    (worker,) = training_workers(process)
    worker.send_signal(signal.SIGSTOP)
    _, err = process.communicate(timeout=540)
    assert process.returncode == 0, err
    (failure,) = run_of(tmp_path, "only").failures()
    assert "hung" in failure["cause"]
    assert not worker.is_running()


@pytest.mark.slow
def test_a_run_resumed_from_the_checkpoint_before_a_torn_one_ends_in_the_same_weights(
    tmp_path: Path,
) -> None:
    arm = "  only: {model: tutorial_cnn, augmentation: {flip: true, crop: 2}, optimizer: adamw}"
    assert tandem("run", written(tmp_path, arm, workers=2)).returncode == 0
    expected = run_of(tmp_path, "only").resume_point().state
    assert expected is not None

    directory = tmp_path / "sick" / "runs" / run_of(tmp_path, "only").id
    (directory / "result.json").unlink()
    torn = directory / "checkpoints" / "00003.npz"
    torn.write_bytes(torn.read_bytes()[:-100])
    assert run_of(tmp_path, "only").resume_point().epoch == 2
    assert tandem("resume", tmp_path / "sick").returncode == 0
    assert [attempt["first_epoch"] for attempt in run_of(tmp_path, "only").attempts()] == [1, 3]
    resumed = run_of(tmp_path, "only").resume_point().state
    assert resumed is not None
    assert resumed.keys() == expected.keys()
    assert all(np.array_equal(resumed[name], expected[name]) for name in expected)
