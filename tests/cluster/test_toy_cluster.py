"""A kind of cluster from another package: one class and an entry point, and every command reaches it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.clusters.interface import Finding
from orchestrator.clusters.job_bundle import JobBundle
from orchestrator.clusters.job_cluster import DriverLostError, Job, JobCluster, JobState, StatusNode
from orchestrator.store.storage import Storage
from trainers.errors import InputError


class Toy(JobCluster):
    """Keeps each job in a file of the address's directory. A job ends when its log is read to the end.

    An experiment called `lost` loses its first driver, one called `broken` fails.
    """

    @property
    def _directory(self) -> Path:
        return Path(self.address.partition(":")[2])

    def submit(self, bundle: JobBundle) -> Job:
        job = Job(
            id=bundle.job_id,
            experiment=bundle.spec.experiment.name,
            results=bundle.spec.results,
            state=JobState.RUNNING,
            message="",
            started_at=1.0,
            ended_at=None,
        )
        self._keep(job)
        return job

    def _keep(self, job: Job) -> None:
        (self._directory / f"{job.id}.json").write_text(json.dumps(dataclasses.asdict(job)))

    def job(self, job_id: str) -> Job:
        file = self._directory / f"{job_id}.json"
        if not file.exists():
            raise InputError(f"{self.address} has no job called {job_id!r}")
        document = json.loads(file.read_text())
        return Job(**document | {"state": JobState(document["state"])})

    def jobs(self) -> list[Job]:
        return [self.job(file.stem) for file in sorted(self._directory.glob("tandem-*.json"))]

    def log(self, job_id: str, *, follow: bool) -> Iterator[str]:
        job = self.job(job_id)
        mark = self._directory / "was-lost"
        if job.experiment == "lost" and not mark.exists():
            mark.touch()
            raise DriverLostError("the driver does not answer")
        yield f"{job_id} trains"
        state = JobState.FAILED if job.experiment == "broken" else JobState.SUCCEEDED
        if state is JobState.SUCCEEDED:
            Storage(job.results).write_json("report/results.json", {"conclusion": "equal"})
        self._keep(dataclasses.replace(job, state=state, ended_at=2.0))

    def cancel(self, job_id: str) -> Job:
        job = dataclasses.replace(self.job(job_id), state=JobState.STOPPED)
        self._keep(job)
        return job

    def objects(self, job_id: str) -> StatusNode:
        return StatusNode(kind="Toy", name=job_id, state=self.job(job_id).state)

    def check(self, bundle: JobBundle, *, probes: bool) -> Iterator[str]:
        yield f"{bundle.spec.experiment.name} fits on a toy"

    def findings(self, job_id: str | None) -> list[Finding]:
        if job_id is None or self.job(job_id).state is not JobState.FAILED:
            return []
        return [Finding("toy-broken", "the toy is broken", "buy another")]


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A toy cluster, installed as another package would install it."""
    metadata = tmp_path / "toys" / "toys-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        f"[tandem.clusters]\ntoy = {__name__}:Toy\nhollow = {__name__}:nothing\nodd = builtins:dict\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "toys")
    (tmp_path / "jobs").mkdir()
    return f"toy:{tmp_path / 'jobs'}"


def tandem(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def written(tmp_path: Path, name: str) -> Path:
    document = {
        "name": name,
        "arms": {"torch": {"framework": "torch"}},
        "storage": str(tmp_path / "results"),
        "kubernetes": {"image": "none", "retries": 1},
    }
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def test_every_command_reaches_it(tmp_path: Path, address: str) -> None:
    file = written(tmp_path, "digits")
    assert tandem("check", file, "--on", address).stdout == "digits fits on a toy\n"
    (job,) = json.loads(tandem("submit", file, "--on", address, "--json").stdout)
    assert tandem("logs", job["id"], "-f", "--on", address).stdout == f"{job['id']} trains\n"
    status = json.loads(tandem("status", job["id"], "--on", address, "--json").stdout)
    assert status["status_tree"] == {
        "kind": "Toy",
        "name": job["id"],
        "state": "succeeded",
        "detail": "",
        "children": [],
    }
    assert tandem("list", "--on", address).stdout == f"{job['id']}  succeeded  {job['results']}\n"
    assert tandem("doctor", job["id"], "--on", address).stdout == "nothing is wrong\n"
    assert "stopped" in tandem("cancel", job["id"], "--on", address).stdout


def test_a_job_is_followed_to_its_end(tmp_path: Path, address: str) -> None:
    done = tandem("run", written(tmp_path, "digits"), "--on", address, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["conclusion"] == "equal"
    assert f"--on {address}" in done.stderr.splitlines()[0] and "trains" in done.stderr.splitlines()[1]


def test_a_job_that_lost_its_driver_is_submitted_again(tmp_path: Path, address: str) -> None:
    done = tandem("run", written(tmp_path, "lost"), "--on", address)
    assert done.exit_code == 0, done.output
    assert "the driver does not answer; submitting it again" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("trains")
    (tmp_path / "jobs" / "was-lost").unlink()
    unwilling = tandem("run", written(tmp_path, "lost"), "--on", address, "--set", "kubernetes.retries=0")
    assert unwilling.exit_code == 3 and unwilling.stderr.endswith("tandem: the driver does not answer\n")


def test_a_failure_has_its_cause_and_exit_code(tmp_path: Path, address: str) -> None:
    failed = tandem("run", written(tmp_path, "broken"), "--on", address)
    assert failed.exit_code == 1
    assert failed.stderr.endswith("tandem: the toy is broken; buy another\n")


def test_wrong_addresses_are_one_sentence(tmp_path: Path, address: str) -> None:
    file = written(tmp_path, "digits")
    for wrong, sentence in [
        ("train:8265", "or an address that begins with toy"),
        ("hollow:1", "nothing"),
        ("odd:1", "builtins:dict"),
        ("http://", "give a host, such as http://head:8265"),
        ("local", "accepts no jobs; tandem run trains there"),
    ]:
        refused = tandem("submit", file, "--on", wrong)
        assert refused.exit_code == 2, refused.output
        assert sentence in refused.stderr and len(refused.stderr.splitlines()) == 1
    named = tandem("list", "--on", address, "--namespace", "team")
    assert named.exit_code == 2 and "--namespace team: is for --on kuberay" in named.stderr
    rendered = tandem("render", file, "--on", address)
    assert rendered.exit_code == 2 and "only kuberay" in rendered.stderr
