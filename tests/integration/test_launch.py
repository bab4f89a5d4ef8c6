"""Workers that Ray Train cannot bring together, or loses the controller of."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.serial

SCRIPT = """
import pathlib
import time
import psutil
import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.backend import BackendConfig
from ray.train.collective import barrier, broadcast_from_rank_zero
from trainers.launch import LeanTrainer, MeetingBackend


class Strangers(MeetingBackend):
    def meet(self, worker_group):
        raise RuntimeError("no way")


class StrangersConfig(BackendConfig):
    backend_cls = Strangers


def launch(train, backend):
    return LeanTrainer(
        train,
        backend_config=backend,
        scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(storage_path="STORAGE"),
    ).launch()


def train_for_ever():
    assert broadcast_from_rank_zero({"told": 1}) == {"told": 1}
    barrier()
    pathlib.Path("STORAGE/training").touch()
    time.sleep(1000)


ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
print(launch(lambda: None, StrangersConfig()).error())
led = launch(train_for_ever, BackendConfig())
while not pathlib.Path("STORAGE/training").exists():
    time.sleep(0.1)
running = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
assert any("RayTrainWorker" in name for name in running)
assert not any("SynchronizationActor" in name for name in running), "one worker waits for nobody"
ray.kill(led.controller)
try:
    led.error()
except ray.exceptions.RayActorError:
    print("the controller died")
print(launch(lambda: None, BackendConfig()).error() or "trained")
"""


def test_their_cpus_are_free_for_the_next(tmp_path: object) -> None:
    script = SCRIPT.replace("STORAGE", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "no way" in done.stdout and done.stdout.endswith("the controller died\ntrained\n")
