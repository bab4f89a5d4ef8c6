"""A real Ray cluster with token authentication, reached through its Jobs API."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from orchestrator import spec
from orchestrator.clusters.package import EXPERIMENT_FILE, Package
from tests.conftest import start_tandem, tandem

EXPERIMENT = """\
name: there
data: {{source: digits}}
defaults: {{epochs: {epochs}, batch_size: 64, seeds: [0]}}
arms:
{arms}
storage: {storage}
"""
BOTH = "  keras: {framework: keras}\n  torch: {framework: torch}"
SLOW = "  torch: {framework: torch, model: 'slow:build'}"
SLOW_MODEL = """
import time

from torch import nn


class Slow(nn.Module):
    def __init__(self, pixels, num_classes):
        super().__init__()
        self.dense = nn.Linear(pixels, num_classes)

    def forward(self, x):
        if self.training:
            time.sleep(0.05)
        return self.dense(x.flatten(1))


def build(image_shape, num_classes):
    return Slow(image_shape[0] * image_shape[1] * image_shape[2], num_classes)
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster whose token is in this process's environment."""
    dashboard = free_port()
    token = secrets.token_hex(16)
    ray = str(Path(sys.executable).with_name("ray"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "PATH": path}
    scratch = tempfile.mkdtemp(prefix="ray")
    command = [ray, "start", "--head", f"--port={free_port()}", "--num-cpus=2", f"--temp-dir={scratch}"]
    command += [f"--dashboard-port={dashboard}", "--disable-usage-stats", "--block"]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        head = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        processes = psutil.Process(head.pid)
        address = f"http://127.0.0.1:{dashboard}"
        limit = time.monotonic() + 60
        while True:
            try:
                if requests.get(f"{address}/api/version", headers=bearer(token), timeout=5).ok:
                    break
            except requests.ConnectionError:
                pass
            assert time.monotonic() < limit
            time.sleep(0.5)
        yield address
        started = [processes, *processes.children(recursive=True)]
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(started, timeout=30)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def write(tmp_path: Path, **fields: object) -> Path:
    file = tmp_path / "experiment.yaml"
    file.write_text(EXPERIMENT.format(**{"epochs": 2, "arms": BOTH, "storage": tmp_path / "there"} | fields))
    return file


def test_a_cluster_gives_the_same_result_and_the_same_report(tmp_path: Path, cluster: str) -> None:
    there = tandem("run", write(tmp_path), "--on", cluster, "--json")
    assert there.returncode == 0, there.stderr
    here = tandem("run", write(tmp_path, storage=tmp_path / "here"), "--json")
    assert here.returncode == 0, here.stderr

    def told(output: str) -> list[list[float]]:
        comparison = json.loads(output)
        return [[run["test_accuracy"] for run in arm["runs"]] for arm in comparison["arms"]]

    assert told(there.stdout) == told(here.stdout)
    pages = [(tmp_path / where / "there/report/report.html").read_text() for where in ("there", "here")]
    titles = [[line for line in page.splitlines() if line.startswith("<h2")] for page in pages]
    assert titles[0] == titles[1]
    lines = [line for line in there.stderr.splitlines() if "epoch" in line]
    assert len(lines) == len(set(lines)) == 4, "each epoch of each run is told once"
    assert there.stderr.rstrip().endswith("report/report.html")

    token = os.environ["RAY_AUTH_TOKEN"].encode()
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or token not in file.read_bytes(), file


@pytest.mark.slow
def test_submitting_twice_is_one_job_and_a_cancelled_one_goes_on_later(tmp_path: Path, cluster: str) -> None:
    (tmp_path / "slow.py").write_text(SLOW_MODEL)
    file = write(tmp_path, epochs=40, arms=SLOW)
    submitted = [json.loads(tandem("submit", file, "--on", cluster, "--json").stdout)[0] for _ in range(2)]
    assert submitted[0]["id"] == submitted[1]["id"]
    job = submitted[0]["id"]
    follower = start_tandem("logs", job, "-f", "--on", cluster)
    records = tmp_path / "there" / "there" / "runs"
    limit = time.monotonic() + 120
    while not list(records.glob("*/epochs.jsonl")):
        assert time.monotonic() < limit
        time.sleep(0.5)
    assert json.loads(tandem("status", job, "--on", cluster, "--json").stdout)[0]["state"] == "running"
    stopped = json.loads(tandem("cancel", job, "--on", cluster, "--json").stdout)[0]
    assert stopped["state"] == "stopped"
    followed, _ = follower.communicate(timeout=60)
    assert "epoch 1/40" in followed
    done = len(next(records.glob("*/epochs.jsonl")).read_text().splitlines())
    time.sleep(3)
    assert len(next(records.glob("*/epochs.jsonl")).read_text().splitlines()) == done, "nothing trains on"

    file = write(tmp_path, epochs=40, arms=SLOW)
    again = start_tandem("run", file, "--on", cluster)
    out, err = again.communicate(timeout=240)
    assert again.returncode == 0, (out, err)
    assert f"{job}-2" in err
    attempts = [json.loads(line) for line in next(records.glob("*/attempts.jsonl")).read_text().splitlines()]
    assert attempts[0]["first_epoch"] == 1 and attempts[1]["first_epoch"] > 1
    listed = json.loads(tandem("list", "--on", cluster, "--json").stdout)
    states = {entry["id"]: entry["state"] for entry in listed}
    assert states[job] == "stopped" and states[f"{job}-2"] == "succeeded"


@pytest.mark.slow
def test_a_lost_follower_leaves_the_job_running(tmp_path: Path, cluster: str) -> None:
    (tmp_path / "slow.py").write_text(SLOW_MODEL)
    process = start_tandem("run", write(tmp_path, epochs=20, arms=SLOW), "--on", cluster)
    limit = time.monotonic() + 120
    while not list((tmp_path / "there").rglob("epochs.jsonl")):
        assert time.monotonic() < limit
        time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the job goes on; tandem logs" in err
    attached = tandem("run", write(tmp_path, epochs=20, arms=SLOW), "--on", cluster)
    assert attached.returncode == 0, attached.stderr
    assert attached.stderr.count("epoch 1/20") == 1, "the log is told from its beginning, each line once"


def test_what_is_wrong_with_a_cluster_is_one_sentence(
    tmp_path: Path, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path)
    nobody = tandem("run", file, "--on", f"http://127.0.0.1:{free_port()}")
    assert nobody.returncode == 3 and "does not answer" in nobody.stderr
    unknown = tandem("status", "tandem-none", "--on", cluster)
    assert unknown.returncode == 2 and "has no job called 'tandem-none'" in unknown.stderr
    nonsense = tandem("run", file, "--on", "head:8265")
    assert nonsense.returncode == 2 and "such as http://head:8265" in nonsense.stderr
    monkeypatch.setenv("RAY_AUTH_TOKEN", "not-the-token")
    refused = tandem("run", file, "--on", cluster)
    assert refused.returncode == 3 and "refuses the token" in refused.stderr
    assert "not-the-token" not in refused.stderr
    for done in (nobody, unknown, nonsense, refused):
        assert "Traceback" not in done.stderr


def test_only_code_is_shipped(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_MODEL)
    (tmp_path / "secret.env").write_text("TOKEN=1")
    (tmp_path / "photos").mkdir()
    file = write(tmp_path, arms=SLOW)
    package = Package(experiment=spec.load(file), searches=False, module_path=tmp_path, command=[])
    with package.directory() as directory:
        top = {path.name for path in directory.iterdir()}
        assert top == {"orchestrator", "trainers", "slow.py", EXPERIMENT_FILE}
        suffixes = {path.suffix for path in directory.rglob("*") if path.is_file()}
        assert suffixes <= {".py", ".html", ".json"}
        size = sum(path.stat().st_size for path in directory.rglob("*"))
    assert size < 2 << 20
    other = Package(
        experiment=spec.load(file, ["torch.epochs=3"]), searches=False, module_path=tmp_path, command=[]
    )
    assert package.job_id != other.job_id
