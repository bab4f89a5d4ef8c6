"""Workers that Ray Train cannot bring together, and workers that are ended."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.serial

SCRIPT = """
import logging
import pathlib
import time
import psutil
import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.backend import Backend, BackendConfig
from ray.train.collective import barrier, broadcast_from_rank_zero
from trainers.launch import LeanTrainer, end


class Strangers(Backend):
    def on_start(self, worker_group, backend_config):
        raise RuntimeError("no way")


class StrangersConfig(BackendConfig):
    backend_cls = Strangers


def launch(train, backend):
    return LeanTrainer(
        train,
        backend_config=backend,
        scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(storage_path="STORAGE"),
    ).launch(hang_seconds=1)


def train_for_ever():
    assert broadcast_from_rank_zero({"told": 1}) == {"told": 1}
    barrier()
    pathlib.Path("STORAGE/training").touch()
    time.sleep(1000)


ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
print(launch(lambda: None, StrangersConfig()).ended.result())
written = [*logging.getLogger("ray.train").handlers]
led = launch(train_for_ever, BackendConfig())
while not pathlib.Path("STORAGE/training").exists():
    time.sleep(0.1)
running = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
assert any("LeanWorker" in name for name in running)
assert not any("SynchronizationActor" in name for name in running), "one worker waits for nobody"
assert not any("Controller" in name for name in running), "a thread leads them"
end([led])
assert led.ended.done() and led.ended.result() is not None
print(launch(lambda: time.sleep(4), BackendConfig()).ended.result() or "trained")
assert written == logging.getLogger("ray.train").handlers, "the files of those at work stay open"
"""


def test_their_cpus_are_free_for_the_next(tmp_path: object) -> None:
    script = SCRIPT.replace("STORAGE", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "no way" in done.stdout and done.stdout.endswith("\ntrained\n")
    assert "Traceback" not in done.stderr, "Ray Train's log is in Ray's files"
