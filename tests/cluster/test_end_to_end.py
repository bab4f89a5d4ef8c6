"""The commands on a real cluster: TANDEM_TEST_KUBECONFIG, TANDEM_TEST_IMAGE and TANDEM_TEST_STORAGE name it.

The storage is a URL that this machine and the pods can reach, or a claim and where pods see it, as `CLAIM:PATH`.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.kube.control_plane import KUBECONFIG
from tests.conftest import NO_CLUSTER, tandem

IMAGE, STORAGE = "TANDEM_TEST_IMAGE", "TANDEM_TEST_STORAGE"
NAMESPACE = "TANDEM_TEST_NAMESPACE"
"""Holds the claim and the account; the kubeconfig's own when left out."""

pytestmark = [
    pytest.mark.serial,
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(name in os.environ for name in (KUBECONFIG, IMAGE, STORAGE)), reason=NO_CLUSTER
    ),
]


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A small experiment of its own name."""
    monkeypatch.setenv("KUBECONFIG", os.environ[KUBECONFIG])
    storage = os.environ[STORAGE]
    kubernetes: dict[str, Any] = {
        "image": os.environ[IMAGE],
        "head": {"cpus": 1, "memory_gib": 3},
        "workers": [{"min": 1, "max": 1, "cpus": 1, "memory_gib": 4}],
    }
    if NAMESPACE in os.environ:
        kubernetes["namespace"] = os.environ[NAMESPACE]
    if "://" not in storage:
        claim, _, path = storage.partition(":")
        kubernetes["claims"] = [{"claim": claim, "path": path}]
        storage = f"{path}/tests"
    return {
        "name": f"real-{uuid.uuid4().hex[:6]}",
        "data": {"source": "digits"},
        "defaults": {"model": "tutorial_cnn", "epochs": 2, "batch_size": 64, "seeds": [0]},
        "arms": {"torch": {"framework": "torch"}},
        "storage": storage,
        "kubernetes": kubernetes,
    }


def written(tmp_path: Path, experiment: dict[str, Any]) -> Path:
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(experiment, sort_keys=False))
    return file


def test_an_experiment_goes_from_submission_to_a_report_here(
    tmp_path: Path, experiment: dict[str, Any]
) -> None:
    file, to = written(tmp_path, experiment), tmp_path / "fetched"
    checked = tandem("render", file, "--dry-run=server")
    assert checked.returncode == 0, checked.stderr
    done = tandem("run", file, "--on", "kuberay", timeout=1100)
    assert done.returncode == 0, done.stderr
    fetched = tandem("fetch", file, to, "--on", "kuberay")
    assert fetched.returncode == 0, fetched.stderr
    assert (to / "report" / "report.html").is_file()
    jobs = json.loads(tandem("list", "--on", "kuberay", "--json").stdout)
    (job,) = [job for job in jobs if job["experiment"] == experiment["name"]]
    assert job["state"] == "succeeded"
    assert tandem("doctor", job["id"], "--on", "kuberay").stdout == "nothing is wrong\n"
    assert tandem("cancel", job["id"], "--on", "kuberay").returncode == 0


def test_a_users_own_error_is_said_and_not_repeated(tmp_path: Path, experiment: dict[str, Any]) -> None:
    (tmp_path / "wrong.py").write_text(
        "def build(image_shape, num_classes):\n    raise ValueError('no such layer')\n"
    )
    experiment["arms"]["torch"]["model"] = "wrong:build"
    done = tandem("run", written(tmp_path, experiment), "--on", "kuberay", timeout=1100)
    assert done.returncode == 1 and "no such layer" in done.stderr.splitlines()[-1]
