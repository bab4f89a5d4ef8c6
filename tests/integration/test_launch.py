"""Workers that Ray Train cannot bring together."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.backend import BackendConfig
from trainers.launch import LeanTrainer, MeetingBackend


class Strangers(MeetingBackend):
    def meet(self, worker_group):
        raise RuntimeError("no way")


class StrangersConfig(BackendConfig):
    backend_cls = Strangers


ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
for backend in (StrangersConfig(), BackendConfig()):
    trainer = LeanTrainer(
        lambda: None,
        backend_config=backend,
        scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(storage_path="STORAGE"),
    )
    print(trainer.launch().error() or "trained")
"""


@pytest.mark.slow
def test_their_cpus_are_free_for_the_next(tmp_path: object) -> None:
    script = SCRIPT.replace("STORAGE", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "no way" in done.stdout and done.stdout.rstrip().endswith("trained")
