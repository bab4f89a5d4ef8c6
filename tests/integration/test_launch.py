"""Groups of workers that cannot be connected, that fail, that train beside each other, that outlive the driver."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.serial, pytest.mark.ray]

BACKENDS = """
from ray.train.backend import Backend, BackendConfig
from trainers.ray_train.launch import connect_workers


class Strangers(Backend):
    def on_start(self, worker_group, backend_config):
        def rendezvous():
            raise RuntimeError("no way")

        connect_workers(worker_group, rendezvous)


class Workers(BackendConfig):
    backend_cls = Strangers
"""
SCRIPT = """
import pathlib
import sys
import time

import ray

from orchestrator.execution.workers import worker_group
from orchestrator.execution.ray_runtime import local_ray
from trainers.ray_train import launch

HERE = pathlib.Path(sys.argv[1])


def train(config):
    from ray.train.collective import barrier, broadcast_from_rank_zero

    assert broadcast_from_rank_zero({"told": 1}) == {"told": 1}
    barrier()
    pathlib.Path(config["file"]).touch()
    if config["fails"]:
        raise ValueError("too bad")
    time.sleep(config["seconds"])


def start(name, *, backend="trainers.torch.trainer", seconds=0, fails=False):
    config = {"file": str(HERE / name), "seconds": seconds, "fails": fails}
    resources = {"CPU": ray.cluster_resources()["CPU"] / 2}
    return launch.launch(
        launch.Group(name=name, backend=backend, train=train, config=config, workers=1, resources=resources,
              accelerator_type=None, label_selector=None,
              storage_url=str(HERE), hang_seconds=60)
    )


with local_ray():
    for _ in range(3):
        strangers = worker_group.diagnose(worker_group.outcome(start("strangers", backend="strangers")))
    groups = [start("one"), start("two", fails=True), start("three")]
    errors = [error and worker_group.diagnose(error) for error in map(worker_group.outcome, groups)]
    start("endless", seconds=1000)
    while not (HERE / "endless").exists():
        time.sleep(0.1)
print(strangers.cause, errors, "shut down", sep="\\n")
"""


def test_groups_fail_each_by_itself_and_give_their_resources_back(tmp_path: Path) -> None:
    (tmp_path / "strangers.py").write_text(BACKENDS)
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", tmp_path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, "no thread that waits for a group ends the driver's process" + done.stderr
    strangers, errors, last = done.stdout.splitlines()
    assert "no way" in strangers
    assert errors.startswith("[None, Failure(kind='error', cause='ValueError: too bad'")
    assert errors.endswith(", None]")
    assert last == "shut down"
    assert "Traceback" not in done.stderr, "Ray Train's log is in Ray's files"
