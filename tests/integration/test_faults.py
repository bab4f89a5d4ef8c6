"""What goes wrong while training: dead workers, interrupts, a disk that fills up."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Storage
from tests.conftest import NO_MOUNT, start_tandem, tandem

pytestmark = [pytest.mark.serial, pytest.mark.ray]

LONG = """\
name: long
data: {{source: digits, image_size: 24}}
arms:
  only: {{framework: {framework}, batch_size: 6, epochs: 5, seeds: [0]}}
scale: {{workers: 2}}
storage: {storage}
"""


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 400) -> None:
    """Wait until a condition holds while the process lives."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def command_of(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def training_workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that train, among all that the command started."""
    return [
        child
        for child in descendants(process)
        if "RayTrainWorker" in child.name() or "RayTrainWorker" in command_of(child)
    ]


def epochs_done(root: Path) -> list[int]:
    with contextlib.suppress(Exception):
        records = ExperimentRecords(Storage(str(root / "long")))
        run = records.run(records.document()["runs"][0]["id"])
        return [epoch["epoch"] for epoch in run.epochs()]
    return []


@pytest.mark.parametrize("framework", [pytest.param("keras", marks=pytest.mark.slow), "torch"])
def test_a_killed_worker_is_replaced_and_the_run_goes_on(
    tmp_path: Path, experiment_file: Callable[[str], Path], framework: str
) -> None:
    process = start_tandem("run", experiment_file(LONG.format(framework=framework, storage=tmp_path)))
    wait_for(lambda: len(epochs_done(tmp_path)) >= 2, process)
    training_workers(process)[0].send_signal(signal.SIGKILL)
    _, err = process.communicate(timeout=400)
    assert process.returncode == 0, err

    records = ExperimentRecords(Storage(str(tmp_path / "long")))
    run = records.run(records.document()["runs"][0]["id"])
    assert [epoch["epoch"] for epoch in run.epochs()] == [1, 2, 3, 4, 5]
    first, second = run.attempts()
    assert first["first_epoch"] == 1
    assert second["first_epoch"] >= 3, "it goes on from its last checkpoint"
    (failure,) = run.failures()
    assert not failure["permanent"]
    assert "died" in failure["cause"]
    report = (tmp_path / "long" / "report" / "report.html").read_text()
    assert "Workers were lost and started again once" in report


def test_an_interrupt_leaves_no_process_and_resume_redoes_nothing(
    tmp_path: Path, experiment_file: Callable[[str], Path]
) -> None:
    process = start_tandem("run", experiment_file(LONG.format(framework="torch", storage=tmp_path)))
    wait_for(lambda: len(epochs_done(tmp_path)) >= 2, process)
    started = descendants(process)
    assert training_workers(process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 130
    assert f"tandem resume {tmp_path / 'long'}" in err.replace("\n", "")
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not alive

    done = epochs_done(tmp_path)
    assert done[:2] == [1, 2]
    moved = (tmp_path / "long").rename(tmp_path / "moved")
    resumed = tandem("resume", moved)
    assert resumed.returncode == 0, resumed.stderr
    assert not (tmp_path / "long").exists()
    records = ExperimentRecords(Storage(str(moved)))
    run = records.run(records.document()["runs"][0]["id"])
    assert [epoch["epoch"] for epoch in run.epochs()] == [1, 2, 3, 4, 5]
    assert [attempt["first_epoch"] for attempt in run.attempts()] == [1, len(done) + 1]
    assert not run.failures()


def test_a_termination_while_ray_starts_is_an_interrupt(
    tmp_path: Path, experiment_file: Callable[[str], Path]
) -> None:
    process = start_tandem("run", experiment_file(LONG.format(framework="torch", storage=tmp_path)))
    wait_for(lambda: bool(descendants(process)), process)
    started = descendants(process)
    process.terminate()
    _, err = process.communicate(timeout=200)
    assert process.returncode == 130
    assert f"tandem resume {tmp_path / 'long'}" in err.replace("\n", "")
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not alive


def test_ray_that_does_not_start_is_told(
    tmp_path: Path, experiment_file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 25)))
    finished = tandem("run", experiment_file(LONG.format(framework="torch", storage=tmp_path)))
    assert finished.returncode == 3
    assert "Traceback" not in finished.stderr
    assert "Ray did not start on this machine" in finished.stderr
    assert "set RAY_TMPDIR to a short path" in finished.stderr


@pytest.mark.slow  # the killed driver of a sweep is in every run of the tests
def test_a_killed_driver_leaves_nothing_training(
    tmp_path: Path, experiment_file: Callable[[str], Path]
) -> None:
    process = start_tandem("run", experiment_file(LONG.format(framework="torch", storage=tmp_path)))
    wait_for(lambda: len(epochs_done(tmp_path)) >= 1, process)
    workers = training_workers(process)
    assert len(workers) == 2
    process.kill()
    process.communicate(timeout=200)
    _, alive = psutil.wait_procs(workers, timeout=120)
    assert not alive


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB, room for one checkpoint and not for two."""
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(NO_MOUNT)
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_full_disk_is_told_before_anything_starts(
    small_disk: Path, experiment_file: Callable[[str], Path]
) -> None:
    (small_disk / "filler").write_bytes(bytes(3 << 19))
    finished = tandem("run", experiment_file(LONG.format(framework="torch", storage=small_disk)))
    assert finished.returncode == 2
    assert "No space left on device" in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.slow
def test_a_disk_that_fills_up_while_training_is_told(
    small_disk: Path, experiment_file: Callable[[str], Path]
) -> None:
    finished = tandem("run", experiment_file(LONG.format(framework="torch", storage=small_disk)))
    assert finished.returncode == 2
    assert "No space left on device" in finished.stderr
    assert "Traceback" not in finished.stderr
