"""Runs that cannot go on by themselves: diverged, hung, out of memory, with a torn checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orchestrator.records import ExperimentRecords, RunRecords
from orchestrator.storage import Storage
from tests.conftest import start_tandem, tandem
from tests.integration.test_faults import training_workers, wait_for

SICK = """\
name: sick
data: {{source: digits, image_size: 24}}
defaults: {{framework: {framework}, epochs: 3, seeds: [0], batch_size: 64}}
arms:
  only: {{{arm}}}
scale: {{workers: {workers}, hang_seconds: {hang_seconds}, retries: 1}}
storage: {storage}
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


class Hanging(Sick):
    def get_sick(self):
        if self.steps == 25:
            try:
                (HERE / "hung-once").mkdir()
            except FileExistsError:
                return
            time.sleep(1e6)


def nan(image_shape, num_classes):
    return Nan(image_shape, num_classes)


def hanging(image_shape, num_classes):
    return Hanging(image_shape, num_classes)


def hungry(image_shape, num_classes):
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (768 << 20), resource.RLIM_INFINITY))
    return Sick(image_shape, num_classes, channels=1024)
"""


@pytest.fixture
def sick(tmp_path: Path, experiment_file: Callable[[str], Path]) -> Callable[..., Path]:
    """Writes an experiment and the models it may name."""

    def write(
        arm: str = "model: tutorial_cnn",
        *,
        framework: str = "torch",
        workers: int = 1,
        hang_seconds: float = 600,
    ) -> Path:
        (tmp_path / "sick_models.py").write_text(MODELS)
        text = SICK.format(
            framework=framework, arm=arm, workers=workers, hang_seconds=hang_seconds, storage=tmp_path
        )
        return experiment_file(text)

    return write


def only_run(tmp_path: Path) -> RunRecords:
    records = ExperimentRecords(Storage(str(tmp_path / "sick")))
    return records.run(records.document()["runs"][0]["id"])


def test_a_loss_that_is_no_number_names_step_rate_and_last_checkpoint(
    tmp_path: Path, sick: Callable[..., Path]
) -> None:
    finished = tandem("run", sick("model: 'sick_models:nan'"))
    assert finished.returncode == 1
    (failure,) = only_run(tmp_path).failures()
    assert failure["given_up"], "the same would happen again"
    for part in (
        "NaN at step 25 ",
        "(epoch 2)",
        "learning rate 0.001",
        "healthy checkpoint is that of epoch 1",
    ):
        assert part in failure["cause"]
    assert only_run(tmp_path).position().epoch == 1


@pytest.mark.parametrize("framework", ["keras", "torch"])
def test_a_diverging_run_is_stopped_before_its_time(
    tmp_path: Path, sick: Callable[..., Path], framework: str
) -> None:
    arm = "optimizer: {name: sgd, learning_rate: 1.0e+3, momentum: 0.9}"
    finished = tandem("run", sick(arm, framework=framework, workers=2))
    assert finished.returncode == 1
    (failure,) = only_run(tmp_path).failures()
    assert "at step" in failure["cause"]
    assert "learning rate 1e+03" in failure["cause"]
    assert "none was kept" in failure["cause"]
    assert (
        "only seed 0 failed: the loss became"
        in finished.stdout + (tmp_path / "sick" / "report" / "report.md").read_text()
    )


@pytest.mark.slow
def test_a_hung_worker_is_replaced(tmp_path: Path, sick: Callable[..., Path]) -> None:
    finished = tandem("run", sick("model: 'sick_models:hanging'", workers=2, hang_seconds=8))
    assert finished.returncode == 0, finished.stderr
    run = only_run(tmp_path)
    (failure,) = run.failures()
    assert "hung: nothing was done for 8 s" in failure["cause"]
    assert failure["detail"], "the stack says where"
    assert [attempt["first_epoch"] for attempt in run.attempts()] == [1, 2]
    assert [epoch["epoch"] for epoch in run.epochs()] == [1, 2, 3]


@pytest.mark.slow
def test_a_stopped_process_is_replaced(tmp_path: Path, sick: Callable[..., Path]) -> None:
    process = start_tandem("run", sick("batch_size: 2", hang_seconds=8))
    wait_for(lambda: (tmp_path / "sick").is_dir() and bool(only_run(tmp_path).epochs()), process)
    (worker,) = training_workers(process)
    worker.send_signal(signal.SIGSTOP)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    (failure,) = only_run(tmp_path).failures()
    assert "hung" in failure["cause"]
    assert not worker.is_running()


def test_out_of_memory_names_a_batch_size_that_fits(tmp_path: Path, sick: Callable[..., Path]) -> None:
    finished = tandem("run", sick("model: 'sick_models:hungry', batch_size: 1024"))
    assert finished.returncode == 1
    (failure,) = only_run(tmp_path).failures()
    cause = failure["cause"]
    assert "out of memory with batch_size 1024; batch_size " in cause
    fits = int(cause.split("batch_size ")[2].split()[0])
    assert fits in (16, 32, 64, 128, 256)
    assert failure["given_up"]


@pytest.mark.slow
def test_a_run_resumed_from_the_checkpoint_before_a_torn_one_ends_in_the_same_weights(
    tmp_path: Path, sick: Callable[..., Path]
) -> None:
    arm = "model: tutorial_cnn, augmentation: {flip: true, crop: 2}, optimizer: adamw"
    assert tandem("run", sick(arm, workers=2)).returncode == 0
    expected = only_run(tmp_path).position().state
    assert expected is not None

    directory = tmp_path / "sick" / "runs" / only_run(tmp_path).id
    (directory / "result.json").unlink()
    torn = directory / "checkpoints" / "00003.npz"
    torn.write_bytes(torn.read_bytes()[:-100])
    assert only_run(tmp_path).position().epoch == 2
    assert tandem("resume", tmp_path / "sick").returncode == 0
    assert [attempt["first_epoch"] for attempt in only_run(tmp_path).attempts()] == [1, 3]
    resumed = only_run(tmp_path).position().state
    assert resumed is not None
    assert resumed.keys() == expected.keys()
    assert all(np.array_equal(resumed[name], expected[name]) for name in expected)
