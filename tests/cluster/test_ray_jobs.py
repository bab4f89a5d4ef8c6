"""A real Ray cluster with token authentication, reached through its Jobs API."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from orchestrator.clusters.job_bundle import JobBundle
from orchestrator.experiment import reader
from orchestrator.planning.job import JOB_FILE, JobSpec
from tests.cluster.kube.nodes import free_port
from tests.cluster.models import REMEMBERING_MODEL, SLOW_MODEL
from tests.conftest import ROOT, start_tandem, tandem

pytestmark = [pytest.mark.serial, pytest.mark.ray]

EXPERIMENT = """\
name: there
data: {{source: digits}}
defaults: {{epochs: {epochs}, batch_size: 64, seeds: [0]}}
arms:
{arms}
storage: {storage}
"""
QUICK = "  torch: {framework: torch, model: lenet5}"
REMEMBERING = "  torch: {framework: torch, model: 'remembering:build'}"
SLOW = "  torch: {framework: torch, model: 'slow:build'}"


def write(tmp_path: Path, **fields: object) -> Path:
    file = tmp_path / "experiment.yaml"
    file.write_text(EXPERIMENT.format(**{"epochs": 2, "arms": QUICK, "storage": tmp_path / "there"} | fields))
    return file


def test_an_experiment_goes_from_submission_to_report(tmp_path: Path, ray_cluster: str) -> None:
    (tmp_path / "remembering.py").write_text(REMEMBERING_MODEL)
    file = write(tmp_path, arms=REMEMBERING)
    checked = tandem("check", file, "--on", ray_cluster)
    assert checked.returncode == 0, checked.stderr
    assert "1 runs, 1 at a time" in checked.stdout and "time: no earlier run" in checked.stdout
    assert not (tmp_path / "there/there/runs").exists(), "nothing was trained"
    done = tandem("run", file, "--on", ray_cluster, "--json")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "epoch" in line]
    assert len(lines) == len(set(lines)) == 2, "each epoch is told once"
    assert done.stderr.rstrip().endswith("report/report.html")
    assert json.loads(done.stdout)["arms"][0]["runs"][0]["test_accuracy"] > 0.5
    again = tandem("check", file, "--on", ray_cluster, "--set", "torch.epochs=9")
    assert "from 1 earlier runs" in again.stdout, again.stdout
    refused = tandem("run", file, "--on", ray_cluster, "--json", "--set", "scale.workers=64")
    assert refused.returncode == 1
    assert "failed with exit code 2: tandem: scale: 64 workers" in refused.stderr.splitlines()[-1]
    assert not refused.stdout, "the earlier results are not this job's"
    job = json.loads(tandem("list", "--on", ray_cluster, "--json").stdout)[0]["id"]
    diagnosis = json.loads(tandem("doctor", job, "--on", ray_cluster, "--json").stdout)
    assert [finding["cause"] for finding in diagnosis] == ["driver-failed"]
    assert "the driver failed with exit code 2: tandem: scale: 64 workers" in diagnosis[0]["sentence"]


@pytest.mark.slow
def test_submitting_twice_is_one_job_and_a_cancelled_one_goes_on_later(
    tmp_path: Path, ray_cluster: str
) -> None:
    (tmp_path / "slow.py").write_text(SLOW_MODEL)
    file = write(tmp_path, epochs=40, arms=SLOW)
    submitted = [
        json.loads(tandem("submit", file, "--on", ray_cluster, "--json").stdout)[0] for _ in range(2)
    ]
    assert submitted[0]["id"] == submitted[1]["id"]
    job = submitted[0]["id"]
    follower = start_tandem("logs", job, "-f", "--on", ray_cluster)
    records = tmp_path / "there" / "there" / "runs"
    limit = time.monotonic() + 120
    while not list(records.glob("*/epochs.jsonl")):
        assert time.monotonic() < limit
        time.sleep(0.5)
    assert json.loads(tandem("status", job, "--on", ray_cluster, "--json").stdout)["state"] == "running"
    stopped = json.loads(tandem("cancel", job, "--on", ray_cluster, "--json").stdout)[0]
    assert stopped["state"] == "stopped"
    followed, _ = follower.communicate(timeout=200)
    assert "epoch 1/40" in followed
    done = len(next(records.glob("*/epochs.jsonl")).read_text().splitlines())
    time.sleep(3)
    assert len(next(records.glob("*/epochs.jsonl")).read_text().splitlines()) == done, "nothing trains on"

    file = write(tmp_path, epochs=40, arms=SLOW)
    again = start_tandem("run", file, "--on", ray_cluster)
    out, err = again.communicate(timeout=540)
    assert again.returncode == 0, (out, err)
    assert f"{job}-2" in err
    attempts = [json.loads(line) for line in next(records.glob("*/attempts.jsonl")).read_text().splitlines()]
    assert attempts[0]["first_epoch"] == 1 and attempts[1]["first_epoch"] > 1
    listed = json.loads(tandem("list", "--on", ray_cluster, "--json").stdout)
    states = {entry["id"]: entry["state"] for entry in listed}
    assert states[job] == "stopped" and states[f"{job}-2"] == "succeeded"


@pytest.mark.slow
def test_scaling_is_measured_on_the_cluster(tmp_path: Path, ray_cluster: str) -> None:
    file = write(tmp_path)
    done = tandem("bench", "scaling", file, "--on", ray_cluster, "--json")
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["torch"]["efficiency"]["weak"]) == ["1", "2"]
    told = [line for line in done.stderr.splitlines() if " scaling, " in line]
    assert told[:4] == [
        f"{mode} scaling, {n}" for mode in ("strong", "weak") for n in ("1 worker", "2 workers")
    ]
    assert "torch, weak scaling, efficiency by workers: 1: 100%, 2: " in done.stderr
    assert (tmp_path / "there/there/scaling/scaling.svg").exists()
    assert not (tmp_path / "there/there/runs").exists(), "the experiment itself is not trained"
    too_many = tandem("bench", "scaling", file, "--workers", "1,64", "--on", ray_cluster)
    assert too_many.returncode == 1 and "64 workers with 1 CPUs each need 64 CPUs" in too_many.stderr


@pytest.mark.slow
def test_a_lost_follower_leaves_the_job_running(tmp_path: Path, ray_cluster: str) -> None:
    (tmp_path / "slow.py").write_text(SLOW_MODEL)
    process = start_tandem("run", write(tmp_path, epochs=20, arms=SLOW), "--on", ray_cluster)
    limit = time.monotonic() + 120
    while not list((tmp_path / "there").rglob("epochs.jsonl")):
        assert time.monotonic() < limit
        time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "the job goes on; tandem logs" in err
    attached = tandem("run", write(tmp_path, epochs=20, arms=SLOW), "--on", ray_cluster)
    assert attached.returncode == 0, attached.stderr
    assert attached.stderr.count("epoch 1/20") == 1, "the log is told from its beginning, each line once"


def test_what_is_wrong_with_a_cluster_is_one_sentence(
    tmp_path: Path, ray_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path)
    nobody = tandem("run", file, "--on", f"http://127.0.0.1:{free_port()}")
    assert nobody.returncode == 3 and "does not answer" in nobody.stderr
    checked = tandem("doctor", "--on", f"http://127.0.0.1:{free_port()}")
    assert checked.returncode == 3 and "does not answer" in checked.stderr
    assert tandem("doctor", "--on", ray_cluster).stdout == "nothing is wrong\n"
    unknown = tandem("status", "tandem-none", "--on", ray_cluster)
    assert unknown.returncode == 2 and "has no job called 'tandem-none'" in unknown.stderr
    nonsense = tandem("run", file, "--on", "head:8265")
    assert nonsense.returncode == 2 and "such as http://head:8265" in nonsense.stderr
    monkeypatch.setenv("RAY_AUTH_TOKEN", "not-the-token")
    refused = tandem("run", file, "--on", ray_cluster)
    assert refused.returncode == 3 and "refuses the token" in refused.stderr
    assert "not-the-token" not in refused.stderr
    for done in (nobody, checked, unknown, nonsense, refused):
        assert "Traceback" not in done.stderr


def bundled(file: Path, *overrides: str) -> JobBundle:
    spec = JobSpec(experiment=reader.load(file, overrides), searches=False, command=[])
    return JobBundle(spec=spec, module_path=file.parent)


def test_only_code_is_shipped(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_MODEL)
    (tmp_path / "secret.env").write_text("TOKEN=1")
    (tmp_path / "photos").mkdir()
    file = write(tmp_path, arms=SLOW)
    bundle = bundled(file)
    with bundle.directory() as directory:
        top = {path.name for path in directory.iterdir()}
        assert top == {"orchestrator", "trainers", "slow.py", JOB_FILE}
        suffixes = {path.suffix for path in directory.rglob("*") if path.is_file()}
        assert suffixes <= {".py", ".html", ".css", ".js", ".json"}
        for package in ("orchestrator", "trainers"):
            of_package, shipped = (
                {
                    path.relative_to(root)
                    for path in (root / package).rglob("*.*")
                    if "__pycache__" not in path.parts
                }
                for root in (ROOT, directory)
            )
            assert shipped == of_package, "all of the package is shipped"
        size = sum(path.stat().st_size for path in directory.rglob("*"))
    assert size < 2 << 20
    assert bundled(file, "torch.epochs=3").job_id != bundle.job_id
