"""The verbs against a control plane: nothing here needs an operator, nor that the control plane is the tests' own."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml

from orchestrator.clusters.job_bundle import JobBundle
from orchestrator.clusters.kuberay.cluster import KubeRay
from orchestrator.experiment import reader
from orchestrator.planning.job import JobSpec
from tests.cluster.kube.control_plane import ControlPlane
from tests.conftest import ROOT, tandem
from trainers.errors import ClusterError

EXPERIMENT = {
    "name": "there",
    "data": {"source": "digits"},
    "arms": {"keras": {"framework": "keras"}},
    "storage": "/data/results",
    "kubernetes": {
        "image": "registry.example/tandem:1",
        "head": {"cpus": 1, "memory_gib": 1},
        "workers": [{"min": 1, "max": 1, "cpus": 1, "memory_gib": 1}],
        "claims": [{"claim": "results", "path": "/data"}],
        "suspended": True,
    },
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT))
    return path


def bundled(**changes: object) -> JobBundle:
    spec = JobSpec(experiment=reader.load_mapping(EXPERIMENT | changes), searches=False, command=[])
    return JobBundle(spec=spec, module_path=Path())


def test_a_submitted_experiment_is_one_job_with_its_files(plane: ControlPlane, file: Path) -> None:
    first = tandem("submit", file, "--on", "kuberay", "--json")
    assert first.returncode == 0, first.stderr
    (job,) = json.loads(first.stdout)
    again = tandem("submit", file, "--on", "kuberay", "--json")
    assert json.loads(again.stdout)[0]["id"] == job["id"]
    (ray_job,) = plane.ray_jobs()
    assert ray_job["metadata"]["name"] == job["id"]
    assert ray_job["spec"]["submissionMode"] == "HTTPMode"
    config_map = plane.core.read_namespaced_config_map(job["id"], plane.namespace)
    assert config_map.metadata.owner_references[0].uid == ray_job["metadata"]["uid"]
    assert json.loads(config_map.data["tandem-job.json"])["experiment"]["name"] == "there"

    listed = json.loads(tandem("list", "--on", "kuberay", "--json").stdout)
    assert [entry["id"] for entry in listed] == [job["id"]]
    status = tandem("status", job["id"], "--on", "kuberay", "--json")
    assert json.loads(status.stdout)["state"] == "pending"
    other = tandem("submit", file, "--on", "kuberay", "--set", "keras.epochs=3", "--json")
    assert json.loads(other.stdout)[0]["id"] != job["id"]

    cancelled = tandem("cancel", job["id"], "--on", "kuberay", "--json")
    assert cancelled.returncode == 0, cancelled.stderr
    assert json.loads(cancelled.stdout)[0]["state"] == "stopped"
    assert job["id"] not in {found["metadata"]["name"] for found in plane.ray_jobs()}
    gone = tandem("status", job["id"], "--on", "kuberay")
    assert gone.returncode == 2 and "has no job called" in gone.stderr


def test_kubectl_sees_what_was_submitted(plane: ControlPlane, file: Path) -> None:
    job = json.loads(tandem("submit", file, "--on", "kuberay", "--json").stdout)[0]["id"]
    listed = plane.kubectl("get", "rayjob", "-l", "app.kubernetes.io/managed-by=tandem", "-o", "name")
    assert listed.stdout.split() == [f"rayjob.ray.io/{job}"], listed.stderr
    command = plane.kubectl("get", "rayjob", job, "-o", "jsonpath={.spec.entrypoint}")
    assert command.stdout == f"python -m orchestrator.head {job} /tandem/job"


def test_what_render_prints_the_server_takes(plane: ControlPlane, file: Path) -> None:
    for cron in ([], ["--cron", "@daily"]):
        checked = tandem("render", file, "--dry-run=server", *cron)
        assert checked.returncode == 0, checked.stderr
        elsewhere = tandem("render", file, "--dry-run=server", "--namespace", "nowhere", *cron)
        assert elsewhere.returncode == 3 and "has no namespace 'nowhere'" in elsewhere.stderr
    assert plane.ray_jobs() == [], "a dry run keeps nothing"
    applied = plane.kubectl("create", "--validate=false", "-f", "-", stdin=tandem("render", file).stdout)
    assert applied.returncode == 0, applied.stderr
    assert len(plane.ray_jobs()) == 1


def test_a_thousand_jobs_are_listed_within_a_second_of_our_own_time(plane: ControlPlane) -> None:
    cluster = KubeRay("kuberay", plane.namespace)
    ids = {cluster.submit(bundled(name=f"job-{number}")).id for number in range(5)}
    (template, *_) = plane.ray_jobs()
    for number in range(1000):
        copy = {
            "apiVersion": "ray.io/v1",
            "kind": "RayJob",
            "metadata": {
                "name": f"many-{number}",
                "labels": template["metadata"]["labels"],
                "annotations": template["metadata"]["annotations"],
            },
            "spec": template["spec"],
        }
        plane.custom.create_namespaced_custom_object("ray.io", "v1", plane.namespace, "rayjobs", copy)
    before = time.thread_time()
    jobs = cluster.jobs()
    seconds = time.thread_time() - before
    assert len(jobs) == 1005 and ids <= {job.id for job in jobs}
    assert seconds < 1.0


def test_the_submitters_role_is_enough_and_needed(
    plane: ControlPlane, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig = plane.kubeconfig_of("researcher")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    refused = tandem("submit", file, "--on", "kuberay")
    assert refused.returncode == 3 and "Traceback" not in refused.stderr
    assert "forbidden" in refused.stderr and "tandem-submitter" in refused.stderr
    told = tandem("doctor", "--on", "kuberay")
    assert told.returncode == 1 and "create rayjobs.ray.io" in told.stdout

    (role,) = [
        manifest
        for manifest in yaml.safe_load_all((ROOT / "k8s/base/rbac.yaml").read_text())
        if manifest["kind"] == "Role" and manifest["metadata"]["name"] == "tandem-submitter"
    ]
    role["metadata"].pop("namespace", None)
    subject = {"kind": "ServiceAccount", "name": "researcher", "namespace": plane.namespace}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "researcher"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tandem-submitter"},
        "subjects": [subject],
    }
    made = plane.kubectl(
        "create",
        "--validate=false",
        "-n",
        plane.namespace,
        "-f",
        "-",
        stdin=yaml.safe_dump_all([role, binding]),
    )
    assert made.returncode == 0, made.stderr
    healthy = tandem("doctor", "--on", "kuberay")
    assert healthy.returncode == 0, healthy.stdout
    submitted = tandem("submit", file, "--on", "kuberay", "--json")
    assert submitted.returncode == 0, submitted.stderr
    job = json.loads(submitted.stdout)[0]["id"]
    for command in (("status", job), ("list",), ("cancel", job)):
        done = tandem(*command, "--on", "kuberay")
        assert done.returncode == 0, done.stderr


def test_check_tells_what_would_not_fit(plane: ControlPlane, file: Path) -> None:
    fine = tandem("check", file, "--on", "kuberay")
    assert fine.returncode == 0, fine.stderr
    assert f"namespace {plane.namespace}" in fine.stdout and "accepts the experiment's objects" in fine.stdout
    assert plane.ray_jobs() == [], "nothing is made"
    for name, spec in (
        ("plenty", {"hard": {"requests.memory": "1Pi"}}),
        ("of-others", {"hard": {"requests.cpu": "0"}, "scopes": ["Terminating"]}),
    ):
        plane.core.create_namespaced_resource_quota(
            plane.namespace, {"metadata": {"name": name}, "spec": spec}
        )
    assert tandem("check", file, "--on", "kuberay").returncode == 0
    plane.core.create_namespaced_resource_quota(
        plane.namespace, {"metadata": {"name": "small"}, "spec": {"hard": {"requests.cpu": "1"}}}
    )
    tight = tandem("check", file, "--on", "kuberay")
    assert tight.returncode == 3
    assert "quota small leaves 1 of requests.cpu, but the pods need 2" in tight.stderr


def test_what_is_wrong_is_one_sentence(
    plane: ControlPlane, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tandem("submit", file, "--on", "kuberay", "--namespace", "not-there")
    assert missing.returncode == 3 and "no namespace 'not-there'" in missing.stderr
    elsewhere = tandem("list", "--on", "kuberay:nowhere")
    assert elsewhere.returncode == 3 and "no context 'nowhere'" in elsewhere.stderr
    wrong = plane.kubeconfig_with("wrong", "not-the-token")
    monkeypatch.setenv("KUBECONFIG", str(wrong))
    refused = tandem("list", "--on", "kuberay")
    assert refused.returncode == 3 and "does not accept your credentials" in refused.stderr
    broken = tmp_path / "broken"
    broken.write_text("clusters: [")
    monkeypatch.setenv("KUBECONFIG", str(broken))
    unreadable = tandem("list", "--on", "kuberay")
    assert unreadable.returncode == 3 and "no usable kubeconfig" in unreadable.stderr
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    absent = tandem("list", "--on", "kuberay")
    assert absent.returncode == 3 and "no usable kubeconfig" in absent.stderr
    for done in (missing, elsewhere, refused, unreadable, absent):
        assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert "not-the-token" not in done.stderr


def test_an_unknown_field_is_refused_before_anything_is_made(plane: ControlPlane) -> None:
    cluster = KubeRay("kuberay", plane.namespace)
    good = cluster.submit(bundled())
    from orchestrator.clusters.kuberay import api as api

    manifest = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": f"{good.id}-x"},
        "spec": {"entrypont": "x"},
    }
    with pytest.raises(ClusterError, match=r'unknown field "spec\.entrypont"'):
        api.KubernetesApi(None, plane.namespace).create(api.RAY_JOB, manifest)
    assert len(plane.ray_jobs()) == 1
