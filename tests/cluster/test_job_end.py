"""How jobs end on Kubernetes: what is deleted, what is repeated, and what a doctor says; no Ray is started."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from orchestrator import head
from orchestrator.clusters.driver_diagnosis import diagnose_log
from orchestrator.execution import job_failure, room
from orchestrator.execution.job_failure import JobFailure, container_memory
from orchestrator.execution.monitoring.driver_log import KeptLog, own_lines
from orchestrator.execution.termination import DeadlineError, sigterm_interrupts, stopped_at
from orchestrator.experiment import reader
from orchestrator.planning.job import JOB_FILE, JobSpec
from orchestrator.store import modules
from orchestrator.store.storage import Storage
from tests.cluster.conftest import KubeRayHere
from tests.cluster.kube import redis as redis_server
from tests.cluster.kube.store import reference, timestamp
from tests.cluster.test_kuberay import until
from tests.conftest import ROOT, tandem
from trainers.errors import ClusterError, InputError

pytestmark = pytest.mark.serial

MISSING = "registry.example/missing:1"
"""An image whose pods never start, so that no Ray does either."""


def written(tmp_path: Path, **kubernetes: Any) -> Path:
    block = {
        "image": MISSING,
        "workers": [{"min": 1, "max": 1, "cpus": 2}],
        "claims": [{"claim": "results", "path": "/data"}],
    }
    document = {
        "name": "there",
        "data": {"source": "digits"},
        "arms": {"torch": {"framework": "torch"}},
        "storage": "/data/results",
        "kubernetes": block | kubernetes,
    }
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


@pytest.fixture
def stuck(kuberay: KubeRayHere) -> KubeRayHere:
    """A cluster whose nodes cannot pull the experiments' image."""
    kuberay.operator.missing_images.add(MISSING)
    return kuberay


def submitted(file: Path) -> str:
    done = tandem("submit", file, "--on", "kuberay", "--json")
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)[0]["id"])


def ended(kuberay: KubeRayHere, job: str, seconds_ago: float, **status: str) -> None:
    """Make a job one that ended some time ago."""
    ending = {"endTime": timestamp(time.time() - seconds_ago)} | status
    key = ("rayjobs.ray.io", "default", job)
    kuberay.server.store.update(key, lambda found: found.setdefault("status", {}).update(ending))


def jobs(kuberay: KubeRayHere) -> list[str]:
    return [job["metadata"]["name"] for job in kuberay.server.store.list("rayjobs.ray.io", None)]


def test_a_finished_job_leaves_nothing_and_cancel_removes_what_is_left(
    tmp_path: Path, stuck: KubeRayHere
) -> None:
    job = submitted(written(tmp_path, keep_seconds=3600))
    until(lambda: stuck.server.store.list("pods", "default"))
    done = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
    ended(stuck, job, 5, **done)
    until(lambda: not stuck.server.store.list("pods", "default"))
    assert jobs(stuck) == [job], "the object is kept"
    cancelled = json.loads(tandem("cancel", job, "--on", "kuberay", "--json").stdout)
    assert cancelled[0]["state"] == "succeeded" and jobs(stuck) == []

    job = submitted(written(tmp_path, keep_seconds=0))
    ended(stuck, job, 40, **done)
    until(lambda: jobs(stuck) == [])


def test_without_deletion_rules_the_next_command_removes_old_jobs(tmp_path: Path, stuck: KubeRayHere) -> None:
    stuck.operator.has_deletion_rules = False
    file = written(tmp_path, keep_seconds=60)
    job = submitted(file)
    (found,) = stuck.server.store.list("rayjobs.ray.io", None)
    assert found["spec"]["ttlSecondsAfterFinished"] == 0 and "deletionStrategy" not in found["spec"]
    until(lambda: stuck.server.store.list("pods", "default"))
    ended(stuck, job, 30, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    until(lambda: not stuck.server.store.list("pods", "default"))
    listed = json.loads(tandem("list", "--on", "kuberay", "--json").stdout)
    assert [entry["id"] for entry in listed] == [job]
    ended(stuck, job, 90)
    assert json.loads(tandem("list", "--on", "kuberay", "--json").stdout) == [] and jobs(stuck) == []


def test_cancel_with_redis_ends_and_leaves_no_keys(
    tmp_path: Path, stuck: KubeRayHere, redis: tuple[str, str]
) -> None:
    address, password = redis
    data = {"password": base64.b64encode(password.encode()).decode()}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "redis"}, "data": data}
    stuck.server.store.put(("secrets", "default", "redis"), secret)
    job = submitted(written(tmp_path, redis={"address": address, "secret": "redis"}))
    (cluster,) = until(lambda: stuck.server.store.list("rayclusters.ray.io", None))
    redis_server.write(address, password, f"RAY{cluster['metadata']['uid']}@KV")
    cancelled = tandem("cancel", job, "--on", "kuberay", "--json", timeout=60)
    assert cancelled.returncode == 0, cancelled.stderr
    until(lambda: not stuck.server.store.list("rayclusters.ray.io", None))
    assert stuck.operator.redis_cleanups == 1 and redis_server.keys(address, password) == []


def test_the_shipped_account_has_a_token_where_the_autoscaler_runs(
    tmp_path: Path, stuck: KubeRayHere
) -> None:
    store = stuck.server.store
    for account in yaml.safe_load_all((ROOT / "k8s/base/service-accounts.yaml").read_text()):
        store.put(("serviceaccounts", "default", account["metadata"]["name"]), account)
    growing = [{"min": 0, "max": 2, "cpus": 1}]
    job = submitted(written(tmp_path, workers=growing, service_account="tandem-driver"))
    (pod,) = until(lambda: store.list("pods", "default"))
    ready = {status["name"]: status.get("ready") for status in pod["status"]["containerStatuses"]}
    assert ready["autoscaler"], pod["status"]
    tandem("cancel", job, "--on", "kuberay")

    *_, manifest = yaml.safe_load_all(tandem("render", written(tmp_path, workers=growing)).stdout)
    spec = manifest["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    spec["serviceAccountName"] = "tandem-driver"
    del spec["automountServiceAccountToken"]
    key = ("rayjobs.ray.io", "default", manifest["metadata"]["name"])
    manifest["metadata"]["namespace"] = "default"
    store.put(key, manifest)
    until(lambda: store.list("pods", "default"))
    told = tandem("doctor", key[2], "--on", "kuberay")
    assert told.returncode == 1 and "nothing is wrong" not in told.stdout
    assert "container autoscaler of group headgroup ended with exit code 1" in told.stdout
    assert "FileNotFoundError" in told.stdout


def test_an_old_shortage_is_told_once_and_only_while_it_lasts(tmp_path: Path, stuck: KubeRayHere) -> None:
    store = stuck.server.store
    quota = {"metadata": {"name": "team", "namespace": "default"}, "spec": {"hard": {"requests.cpu": "3"}}}
    store.put(("resourcequotas", "default", "team"), quota)
    job = submitted(written(tmp_path))
    until(lambda: len(store.list("events", "default")) > 5)
    told = json.loads(tandem("doctor", job, "--on", "kuberay", "--json").stdout)
    shortages = [finding for finding in told if finding["cause"] == "quota"]
    assert len(shortages) == 1 and shortages[0]["count"] > 1 and "requests.cpu=2" in shortages[0]["sentence"]
    store.delete(("resourcequotas", "default", "team"))
    until(lambda: len(store.list("pods", "default")) == 2)
    told = json.loads(tandem("doctor", job, "--on", "kuberay", "--json").stdout)
    assert "quota" not in {finding["cause"] for finding in told}
    ended(stuck, job, 1, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    assert tandem("doctor", job, "--on", "kuberay").stdout == "nothing is wrong\n"


def driver(tmp_path: Path, *, submitted_at: float | None = 1.0, deadline_seconds: int | None = None) -> Path:
    """The directory of a job, as a head pod sees it."""
    document = {
        "name": "there",
        "arms": {"torch": {"framework": "torch"}},
        "storage": str(tmp_path / "results"),
        "kubernetes": {"image": "i", "deadline_seconds": deadline_seconds},
    }
    spec = JobSpec(
        experiment=reader.load_mapping(document), searches=False, command=[], submitted_at=submitted_at
    )
    directory = tmp_path / "job"
    directory.mkdir(exist_ok=True)
    (directory / JOB_FILE).write_text(json.dumps(spec.to_json()))
    return directory


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """Errors that the next attempts of a driver end with; each attempt takes one."""
    errors: list[Exception] = []

    def run(spec: JobSpec, directory: Path) -> int:
        if errors:
            raise errors.pop(0)
        return 0

    monkeypatch.setattr(head, "_run", run)
    monkeypatch.setattr(head, "_LAST_LINES_SECONDS", 0.0)
    return errors


def test_a_users_own_error_is_not_repeated(
    tmp_path: Path, attempts: list[Exception], capfd: pytest.CaptureFixture[str]
) -> None:
    directory = driver(tmp_path)
    attempts += [InputError("arms.torch.batch_size is wrong"), AssertionError("nothing trains again")]
    assert head.main("job", directory) == 2
    assert head.main("job", directory) == 2
    assert capfd.readouterr().err.count("tandem: arms.torch.batch_size is wrong") == 2, "said again"
    assert len(attempts) == 1, "only the first attempt did anything"
    attempts.clear()
    assert head.main("job", driver(tmp_path, submitted_at=2.0)) == 0, "a new submission is tried"
    attempts += [ClusterError("a process of Ray's was lost")]
    directory = driver(tmp_path, submitted_at=3.0)
    assert head.main("job", directory) == 3
    assert head.main("job", directory) == 0, "what another cluster may mend is tried again"


def test_a_driver_that_was_killed_for_memory_is_not_started_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failure(submitted_at: float) -> JobFailure:
        return JobFailure(Storage(str(tmp_path)), "job", submitted_at=submitted_at, seconds=0)

    cgroup = tmp_path / "cgroup"
    cgroup.mkdir()
    (cgroup / "memory.max").write_text(f"{8 << 30}\n")
    (cgroup / "memory.stat").write_text(f"anon {5 << 30}\nfile {3 << 30}\nshmem {(3 << 30) - (100 << 20)}\n")
    memory = container_memory(cgroup)
    assert memory is not None and memory[1] == 8 << 30
    monkeypatch.setattr(job_failure, "container_memory", lambda: memory)
    with failure(1.0).memory_noted(every=0.05):
        until((tmp_path / "jobs/job/memory.json").exists, seconds=30)
        left_behind = (tmp_path / "jobs/job/memory.json").read_bytes()
    assert failure(1.0).read() is None, "it ended by itself"
    (tmp_path / "jobs/job/memory.json").write_bytes(left_behind)
    code, (line,) = failure(1.0).read() or (0, [""])
    assert code == 1 and "used 7.90 of 8.00 GiB" in line
    found = diagnose_log(line)
    assert found is not None and found.cause == "driver-out-of-memory" and "head.memory_gib" in found.remedy
    assert failure(2.0).read() is None, "submitted again, perhaps with more memory"


def test_a_request_for_resources_is_taken_back_when_its_driver_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "_WATCH_SECONDS", 0.05)
    process = psutil.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    taken: list[float] = []
    keeper = threading.Thread(
        target=room.Keeper().watch,
        args=(process.pid, process.create_time()),
        kwargs={"then": lambda: taken.append(time.time())},
    )
    keeper.start()
    time.sleep(0.5)
    assert taken == [], "its driver lives"
    process.kill()
    keeper.join(timeout=30)
    assert len(taken) == 1
    process.wait()


def test_the_log_of_a_job_numbers_its_attempts_and_leaves_out_earlier_jobs(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    for start, text in (
        ("1000.000", "epoch 1 of an earlier job"),
        ("2000.500", "epoch 1"),
        ("2100.000", "epoch 2"),
    ):
        storage.write(f"logs/job/{start}-00001.txt", f"{text}\n".encode())
    log = KeptLog(storage, "job", since=2000.0)
    assert log.new() == "epoch 1\nattempt 2, started 1970-01-01 00:35:00+00:00\nepoch 2\n"
    assert log.new(final=True) == ""


def test_messages_of_ray_and_tensorflow_are_left_out_or_labelled() -> None:
    log = (
        "2026-11-29 10:00:00,123\tINFO worker.py:1789 -- Connecting to existing Ray cluster\n"
        "(raylet pid=12, ip=10.0.0.7) [2026-11-29 10:00:01,000\tWARNING memory.py:10 -- The disk is full\n"
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
        "I0000 00:00:1764410000.123456    99 port.cc:153] oneDNN custom operations are on.\n"
        "2026-11-29 10:00:02.123456: W tensorflow/core/framework/op.cc:1] This is slow\n"
        "E0000 00:00:1764410000.123456    99 cuda_dnn.cc:8310] Unable to register cuDNN factory\n"
        "torch seed 0: epoch 1/2, validation accuracy 91.00%, 500 images/s\n"
    )
    assert [*own_lines(log)] == [
        "Ray's warning: The disk is full",
        "TensorFlow's error: Unable to register cuDNN factory",
        "torch seed 0: epoch 1/2, validation accuracy 91.00%, 500 images/s",
    ]


def test_a_failure_of_a_rendered_job_is_not_taken_for_a_later_jobs(tmp_path: Path) -> None:
    def failure(seconds: float) -> JobFailure:
        return JobFailure(Storage(str(tmp_path)), "nightly", submitted_at=None, seconds=seconds)

    failure(600).write(1, ["torch seed 0 failed: ValueError: 1; failed permanently"])
    found = failure(600).read()
    assert found == (1, ["torch seed 0 failed: ValueError: 1; failed permanently"])
    assert failure(0).read() is None


def test_a_driver_stops_at_the_deadline_of_its_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    started: list[float] = []

    def run(spec: JobSpec, directory: Path) -> int:
        started.append(time.time())
        while True:
            time.sleep(0.05)

    monkeypatch.setattr(head, "_run", run)
    monkeypatch.setattr(head, "_LAST_LINES_SECONDS", 0.0)
    directory = driver(tmp_path, submitted_at=time.time() - 99, deadline_seconds=100)
    assert head.main("job", directory) == 1
    assert "the deadline has passed" in capfd.readouterr().err
    assert head.main("job", directory) == 1 and len(started) == 1
    later = driver(tmp_path, submitted_at=time.time() - 101, deadline_seconds=100)
    assert head.main("job", later) == 1 and len(started) == 1, "a new attempt does not train on"


def test_only_the_deadline_makes_an_interrupt_a_deadline() -> None:
    interrupted = pytest.raises(KeyboardInterrupt)
    with interrupted, sigterm_interrupts(), stopped_at(time.time() + 60):
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
        time.sleep(20)
    with pytest.raises(DeadlineError), sigterm_interrupts(), stopped_at(time.time() + 0.2):
        time.sleep(20)


def test_modules_are_kept_with_the_results_and_missing_ones_are_named(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "results"))
    experiment = {"arms": {"torch": {"model": "models:build", "extends": "a"}}, "storage": "s3://b/x"}
    gone = tmp_path / "gone"
    with pytest.raises(InputError, match=r"module models is neither in .*gone nor kept with"):
        modules.directory_for(storage, experiment, gone)
    files = {"models.py": "def build(): ...\n", "parts/layers.py": "x = 1\n", "secret.env": "TOKEN=1"}
    modules.keep(storage, files)
    modules.keep(storage, files)
    assert len(storage.names("modules")) == 2, "each text once, and only Python files"
    copy = modules.directory_for(storage, experiment, gone)
    assert (copy / "models.py").read_text() == files["models.py"] and (copy / "parts/layers.py").is_file()
    gone.mkdir()
    (gone / "models.py").touch()
    assert modules.directory_for(storage, experiment, gone) == gone


def test_a_nightly_jobs_objects_are_those_of_a_job(tmp_path: Path, stuck: KubeRayHere) -> None:
    """Only KubeRay's label tells whose they are."""
    *objects, cron = yaml.safe_load_all(tandem("render", written(tmp_path), "--cron", "@daily").stdout)
    store = stuck.server.store
    for manifest in (*objects, cron):
        manifest["metadata"]["namespace"] = "default"
    for manifest in objects:
        store.put(("configmaps", "default", manifest["metadata"]["name"]), manifest)
    name = cron["metadata"]["name"]
    store.put(("raycronjobs.ray.io", "default", name), cron)
    job = stuck.operator.start_cron_job("default", name)
    assert reference(store.get(("raycronjobs.ray.io", "default", name)) or {})["name"] == name
    listed = json.loads(tandem("list", "--on", "kuberay", "--json").stdout)
    assert [entry["id"] for entry in listed] == [job] and listed[0]["experiment"] == "there"
    assert json.loads(tandem("status", job, "--on", "kuberay", "--json").stdout)["state"] == "pending"
    until(lambda: store.list("pods", "default"))
    assert "does not exist" in tandem("doctor", job, "--on", "kuberay").stdout
    assert tandem("cancel", job, "--on", "kuberay").returncode == 0 and jobs(stuck) == []
