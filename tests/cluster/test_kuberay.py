"""From submission to report on Kubernetes: a strict API server, a stand-in operator, and real Ray that trains."""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.clusters.kuberay.api import RAY_JOB, KubernetesApi
from tests.cluster.conftest import KubeRayHere
from tests.cluster.kube.api_server import ApiServer
from tests.cluster.models import SLOW_MODEL
from tests.conftest import start_tandem, tandem

pytestmark = [pytest.mark.serial, pytest.mark.ray]


def written(tmp_path: Path, document: dict[str, Any], **kubernetes: Any) -> Path:
    """An experiment whose results are kept on a claim, which here is a directory."""
    block = {
        "image": "registry.example/tandem:1",
        "head": {"cpus": 1},
        "workers": [{"min": 1, "max": 1, "cpus": 2}],
        "claims": [{"claim": "results", "path": str(tmp_path)}],
        "keep_seconds": 600,
    }
    file = tmp_path / "experiment.yaml"
    storage = {"storage": str(tmp_path / "there")}
    file.write_text(yaml.safe_dump(document | storage | {"kubernetes": block | kubernetes}, sort_keys=False))
    return file


def slow(tmp_path: Path, epochs: int = 20, **kubernetes: Any) -> Path:
    (tmp_path / "slow.py").write_text(SLOW_MODEL)
    document = {
        "name": "slow",
        "data": {"source": "digits"},
        "defaults": {"epochs": epochs, "batch_size": 64, "seeds": [0]},
        "arms": {"torch": {"framework": "torch", "model": "slow:build"}},
    }
    return written(tmp_path, document, **kubernetes)


def until(happens: Callable[[], Any], *, seconds: float = 400) -> Any:
    limit = time.monotonic() + seconds
    while not (found := happens()):
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.3)
    return found


def epochs_in(tmp_path: Path) -> list[dict[str, Any]]:
    files = list((tmp_path / "there").glob("*/runs/*/epochs.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def files_of(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_an_experiment_goes_from_submission_to_report(tmp_path: Path, kuberay: KubeRayHere) -> None:
    document = {
        "name": "digits",
        "data": {"source": "digits"},
        "defaults": {"epochs": 2, "batch_size": 64, "seeds": [0], "model": "lenet5"},
        "arms": {"torch": {"framework": "torch"}},
    }
    done = tandem("run", written(tmp_path, document), "--on", "kuberay", "--json")
    assert done.returncode == 0, done.stderr
    (arm,) = json.loads(done.stdout)["arms"]
    assert arm["runs"][0]["test_accuracy"] > 0.5
    for epoch in (1, 2):
        assert done.stderr.count(f"epoch {epoch}/2") == 1, "each epoch is told once"
    assert "report/report.html" in done.stderr

    job = json.loads(tandem("list", "--on", "kuberay", "--json").stdout)[0]
    assert job["state"] == "succeeded"
    until(lambda: not kuberay.server.store.list("pods", "default"))
    tree = json.loads(tandem("status", job["id"], "--on", "kuberay", "--json").stdout)["status_tree"]
    assert (tree["kind"], tree["state"]) == ("RayJob", "Complete")
    below = [(node["kind"], node["state"]) for node in tree["children"]]
    assert [kind for kind, _ in below] == ["RayCluster", "Ray job", "run"] and below[-1] == ("run", "done")
    kept = tandem("logs", tmp_path / "there" / "digits")
    assert kept.returncode == 0 and "report/report.html" in kept.stdout, "the log outlives the cluster"

    made_there = files_of(tmp_path / "there/digits/report")
    fetched = tmp_path / "fetched"
    assert tandem("fetch", tmp_path / "there/digits", fetched).returncode == 0
    shutil.rmtree(fetched / "report")
    assert tandem("report", fetched).returncode == 0
    assert len(made_there) > 20 and files_of(fetched / "report") == made_there, "to the byte"


@pytest.mark.slow
def test_a_probe_looks_from_the_cluster_and_leaves_nothing(tmp_path: Path, kuberay: KubeRayHere) -> None:
    file = slow(tmp_path, workers=[{"min": 1, "max": 2, "cpus": 3}])
    fine = tandem("check", file, "--on", "kuberay", "--probe")
    assert fine.returncode == 0, fine.stderr
    assert "1 runs, 1 at a time" in fine.stdout
    assert "can be written" in fine.stdout
    until(lambda: not kuberay.server.store.list("rayjobs.ray.io", None))
    until(lambda: not kuberay.server.store.list("pods", "default"))
    assert not epochs_in(tmp_path)
    lacking = ("--set", "data.source=folder", "--set", "data.path=/nowhere")
    wrong = tandem("check", file, "--on", "kuberay", "--probe", *lacking)
    assert wrong.returncode == 3 and "/nowhere" in wrong.stderr and "Traceback" not in wrong.stderr
    until(lambda: not kuberay.server.store.list("rayjobs.ray.io", None))


@pytest.mark.slow
@pytest.mark.parametrize("outlives", [False, True], ids=["forgetting", "redis"])
def test_a_lost_head_loses_no_finished_epoch(
    tmp_path: Path, kuberay: KubeRayHere, redis: tuple[str, str], outlives: bool
) -> None:
    address, password = redis
    kuberay.server.store.put(
        ("secrets", "default", "redis"),
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "redis", "namespace": "default"},
            "data": {"password": base64.b64encode(password.encode()).decode()},
        },
    )
    epochs = 80  # more than a worker that has lost its head trains before the new one comes
    file = slow(tmp_path, epochs, **({"redis": {"address": address, "secret": "redis"}} if outlives else {}))
    running = start_tandem("run", file, "--on", "kuberay")
    until(lambda: len(epochs_in(tmp_path)) >= 3)
    kuberay.operator.kill_pod("default", "headgroup")
    out, err = running.communicate(timeout=540)
    assert running.returncode == 0, (out, err)
    attempts = [
        json.loads(line)
        for path in (tmp_path / "there").glob("*/runs/*/attempts.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert [attempt["first_epoch"] > 1 for attempt in attempts] == [False, True]
    assert ("submitting it again" in err) == outlives, "a new head that remembers the job says it still runs"
    numbers = [epoch["epoch"] for epoch in epochs_in(tmp_path)]
    assert numbers == list(range(1, epochs + 1)), "every epoch once"
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or password.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_a_lost_worker_is_replaced_and_the_run_goes_on(tmp_path: Path, kuberay: KubeRayHere) -> None:
    running = start_tandem("run", slow(tmp_path), "--on", "kuberay")
    until(lambda: len(epochs_in(tmp_path)) >= 3)
    kuberay.operator.kill_processes("default", group="workers")
    out, err = running.communicate(timeout=540)
    assert running.returncode == 0, (out, err)
    assert [epoch["epoch"] for epoch in epochs_in(tmp_path)] == list(range(1, 21))
    (job,) = kuberay.server.store.list("rayjobs.ray.io", None)
    assert job["status"].get("failed", 0) == 0, "the same cluster and the same driver"


@pytest.mark.slow
def test_an_experiment_runs_on_a_cluster_that_stands(tmp_path: Path, kuberay: KubeRayHere) -> None:
    _, job = yaml.safe_load_all(tandem("render", slow(tmp_path)).stdout)
    spec = job["spec"]["rayClusterSpec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        pod["volumes"] = [volume for volume in pod["volumes"] if "configMap" not in volume]
    team = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "team", "namespace": "default"},
    }
    kuberay.server.store.put(("rayclusters.ray.io", "default", "team"), team | {"spec": spec})
    until(lambda: ("default", "team-head-svc") in kuberay.server.proxies)
    file = slow(tmp_path, epochs=3, cluster="team", retries=0)
    done = tandem("run", file, "--on", "kuberay")
    assert done.returncode == 0, done.stderr
    assert [epoch["epoch"] for epoch in epochs_in(tmp_path)] == [1, 2, 3]
    assert kuberay.server.store.get(("rayclusters.ray.io", "default", "team")), "it stands on"
    assert not kuberay.server.store.list("configmaps", "default")


@pytest.mark.slow
def test_a_cluster_deleted_in_the_middle_and_after_the_end_takes_nothing_with_it(
    tmp_path: Path, kuberay: KubeRayHere
) -> None:
    file = slow(tmp_path)
    job = json.loads(tandem("submit", file, "--on", "kuberay", "--json").stdout)[0]["id"]
    until(lambda: len(epochs_in(tmp_path)) >= 2)
    cancelled = tandem("cancel", job, "--on", "kuberay", "--json")
    assert json.loads(cancelled.stdout)[0]["state"] == "stopped"
    assert not kuberay.server.store.list("pods", "default")
    done = len(epochs_in(tmp_path))
    time.sleep(2)
    assert len(epochs_in(tmp_path)) == done, "nothing trains on"
    there = tmp_path / "there" / "slow"
    resumed = tandem("resume", there, "--on", "kuberay")
    assert resumed.returncode == 0, resumed.stderr
    assert [epoch["epoch"] for epoch in epochs_in(tmp_path)] == list(range(1, 21))

    for kind in ("rayjobs.ray.io", "rayclusters.ray.io"):
        for gone in kuberay.server.store.list(kind, None):
            kuberay.server.store.delete((kind, "default", gone["metadata"]["name"]))
    until(lambda: not kuberay.server.store.list("pods", "default"))
    before = files_of(there / "report")
    assert tandem("report", there).returncode == 0
    assert files_of(there / "report") == before
    assert tandem("logs", there).returncode == 0
    again = tandem("resume", there, "--on", "kuberay")
    assert again.returncode == 0, again.stderr
    assert [epoch["epoch"] for epoch in epochs_in(tmp_path)] == list(range(1, 21)), "nothing was left to do"


@pytest.mark.slow
def test_an_api_server_that_goes_away_loses_no_line_of_the_log(
    tmp_path: Path, kuberay: KubeRayHere, bucket: dict[str, str]
) -> None:
    """Results in a bucket, so that the log is read from there; credentials come from a Secret alone."""
    data = {name: base64.b64encode(value.encode()).decode() for name, value in bucket.items()}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "data": data}
    kuberay.server.store.put(("secrets", "default", "s3"), secret)
    file = slow(tmp_path, epochs=12, claims=[], secrets=["s3"])
    on_s3 = ("--set", "storage=s3://bucket/results")
    running = start_tandem("run", file, "--on", "kuberay", *on_s3)
    until(lambda: [key for key in stored() if key.endswith("epochs.jsonl")])
    kuberay.server.stop()
    time.sleep(float(os.environ.get("TANDEM_TEST_OUTAGE", "8")))
    kuberay.server.start()
    kuberay.server.store.compact()
    storm = iter([429, 500, 503] * 3)

    def fault(method: str, path: str) -> tuple[int, dict[str, str]] | None:
        code = next(storm, None)
        return None if code is None else (code, {"Retry-After": "1"} if code == 429 else {})

    kuberay.server.fault = fault
    out, err = running.communicate(timeout=540)
    assert running.returncode == 0, (out, err)
    for epoch in range(1, 13):
        assert err.count(f"epoch {epoch}/12") == 1, err
    fetched = tandem("fetch", "s3://bucket/results/slow", tmp_path / "fetched")
    assert fetched.returncode == 0, fetched.stderr
    assert (tmp_path / "fetched/report/report.html").is_file()
    again = tandem("report", "s3://bucket/results/slow")
    assert again.returncode == 0, again.stderr
    kept = b"".join(path.read_bytes() for path in (tmp_path / "fetched").rglob("*") if path.is_file())
    manifests = json.dumps(
        [kuberay.server.store.list(kind, None) for kind in ("rayjobs.ray.io", "pods", "configmaps")]
    )
    for planted in ("planted-key", "planted-secret"):
        assert planted not in out + err + manifests and planted.encode() not in kept


def stored() -> list[str]:
    from pyarrow import fs

    files, path = fs.FileSystem.from_uri("s3://bucket/results")
    return [
        entry.path
        for entry in files.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    ]


def test_a_busy_server_is_asked_again_when_it_says_so(
    tmp_path: Path, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy on the way may name a time instead of seconds, or nothing that can be read."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(server.kubeconfig())
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    api = KubernetesApi()
    asked_at: list[float] = []
    told = iter(["1", formatdate(time.time() + 4, usegmt=True), "soon"])

    def fault(method: str, path: str) -> tuple[int, dict[str, str]] | None:
        asked_at.append(time.time())
        value = next(told, None)
        return None if value is None else (429, {"Retry-After": value})

    server.fault = fault
    assert api.list(RAY_JOB) == []
    assert len(asked_at) == 4
    assert asked_at[1] - asked_at[0] >= 1 and asked_at[2] - asked_at[0] > 2.5


@pytest.mark.slow
def test_a_job_that_cannot_start_says_why(tmp_path: Path, kuberay: KubeRayHere) -> None:
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "node1"},
        "status": {"allocatable": {"cpu": "4", "memory": "16Gi"}},
    }
    kuberay.server.store.put(("nodes", "", "node1"), node)
    file = slow(tmp_path, workers=[{"min": 1, "max": 1, "cpus": 64, "gpus": 8}], start_seconds=12, retries=0)
    done = tandem("run", file, "--on", "kuberay")
    assert done.returncode == 1, done.stderr
    assert "waiting: no node has room for a pod of group workers" in done.stderr
    assert "cpu (64 requested, the largest node has 4)" in done.stderr
    assert "nvidia.com/gpu (8 requested, the largest node has 0)" in done.stderr
    job = json.loads(tandem("list", "--on", "kuberay", "--json").stdout)[0]["id"]
    told = tandem("doctor", job, "--on", "kuberay")
    assert told.returncode == 1 and "start_seconds" in told.stdout


@pytest.mark.slow
def test_a_failed_driver_is_tried_again_on_a_new_cluster(tmp_path: Path, kuberay: KubeRayHere) -> None:
    file = slow(tmp_path, retries=1)
    running = start_tandem("run", file, "--on", "kuberay")
    until(lambda: len(epochs_in(tmp_path)) >= 2)
    first = kuberay.server.store.list("rayclusters.ray.io", None)[0]["metadata"]["name"]
    for process in drivers():
        process.kill()
    out, err = running.communicate(timeout=540)
    assert running.returncode == 0, (out, err)
    (job,) = kuberay.server.store.list("rayjobs.ray.io", None)
    assert job["status"]["failed"] == 1 and job["status"]["rayClusterName"] != first
    assert [epoch["epoch"] for epoch in epochs_in(tmp_path)] == list(range(1, 21))


def drivers() -> list[Any]:
    import psutil

    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "orchestrator.head" in (process.info["cmdline"] or []) and "-m" in process.info["cmdline"]
    ]


FAILING_MODEL = """
def build(image_shape, num_classes):
    raise ValueError("no such layer")
"""


@pytest.mark.slow
def test_a_users_own_error_is_trained_into_once(tmp_path: Path, kuberay: KubeRayHere) -> None:
    """KubeRay starts a failed driver again on a new cluster; that one ends at once with the recorded error."""
    file = slow(tmp_path, retries=2)
    (tmp_path / "slow.py").write_text(FAILING_MODEL)
    done = tandem("run", file, "--on", "kuberay")
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert "no such layer" in done.stderr.splitlines()[-1]
    (job,) = kuberay.server.store.list("rayjobs.ray.io", None)
    assert job["status"]["failed"] == 3
    (failures,) = (tmp_path / "there").glob("*/runs/*/failures.jsonl")
    assert len(failures.read_text().splitlines()) == 1, "only the first attempt trained"


def secret_of(bucket: dict[str, str], **more: str) -> dict[str, Any]:
    values = {name: base64.b64encode(value.encode()).decode() for name, value in (bucket | more).items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "data": values}


@pytest.mark.slow
@pytest.mark.parametrize("outlives", [False, True], ids=["forgetting", "redis"])
def test_a_head_that_stays_away_costs_no_healthy_job(
    tmp_path: Path,
    kuberay: KubeRayHere,
    bucket: dict[str, str],
    redis: tuple[str, str],
    outlives: bool,
) -> None:
    """The lease that a new driver finds was last renewed long before that driver started."""
    address, password = redis
    kuberay.server.store.put(("secrets", "default", "s3"), secret_of(bucket, password=password))
    more = {"redis": {"address": address, "secret": "s3"}} if outlives else {}
    file = slow(tmp_path, 60, claims=[], secrets=["s3"], **more)
    running = start_tandem("run", file, "--on", "kuberay", "--set", "storage=s3://bucket/results")
    until(lambda: [key for key in stored() if key.endswith("epochs.jsonl")])
    kuberay.operator.cordoned = True
    kuberay.operator.kill_pod("default", "headgroup")
    time.sleep(float(os.environ.get("TANDEM_TEST_AWAY", "65")))
    kuberay.operator.uncordon()
    out, err = running.communicate(timeout=540)
    assert running.returncode == 0, (out, err)
    assert err.count("submitting it again") == int(outlives), err
    assert "nodes are available: 1 node(s) were unschedulable" in err, "it says what the job waits for"


@pytest.mark.slow
def test_an_experiment_with_own_modules_is_resumed_from_its_url(
    tmp_path: Path, kuberay: KubeRayHere, bucket: dict[str, str]
) -> None:
    kuberay.server.store.put(("secrets", "default", "s3"), secret_of(bucket))
    file = slow(tmp_path, 8, claims=[], secrets=["s3"])
    job = json.loads(
        tandem("submit", file, "--on", "kuberay", "--set", "storage=s3://bucket/results", "--json").stdout
    )[0]["id"]
    until(lambda: [key for key in stored() if key.endswith("epochs.jsonl")])
    assert tandem("cancel", job, "--on", "kuberay").returncode == 0
    (tmp_path / "slow.py").unlink()
    resumed = tandem("resume", "s3://bucket/results/slow", "--on", "kuberay")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stderr.count("epoch 8/8") == 1


@pytest.mark.slow
def test_a_driver_stops_at_the_deadline_and_trains_no_more(tmp_path: Path, kuberay: KubeRayHere) -> None:
    file = slow(tmp_path, 500, deadline_seconds=60)
    done = tandem("run", file, "--on", "kuberay")
    assert done.returncode == 1 and "deadline" in done.stderr.splitlines()[-1], done.stderr
    until(lambda: not kuberay.server.store.list("pods", "default"))
    trained = len(epochs_in(tmp_path))
    assert trained >= 1
    time.sleep(3)
    assert len(epochs_in(tmp_path)) == trained
