"""The Roles of k8s/base allow what the commands do, and nothing that they do not; what a 403 means is said."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.clusters.job_bundle import JobBundle
from orchestrator.clusters.kuberay.cluster import KubeRay
from orchestrator.clusters.kuberay.manifests import claim_pod
from orchestrator.experiment import reader
from orchestrator.planning.job import JobSpec
from tests.cluster.kube.api_server import ApiServer, Kind
from tests.cluster.test_charts import assert_unprivileged
from tests.cluster.test_kuberay import until
from tests.conftest import ROOT

ROLES = {
    manifest["metadata"]["name"]: manifest["rules"]
    for manifest in yaml.safe_load_all((ROOT / "k8s/base/rbac.yaml").read_text())
    if manifest["kind"] == "Role"
}
EXPERIMENT = {
    "name": "there",
    "data": {"source": "digits"},
    "arms": {"torch": {"framework": "torch"}},
    "storage": "/data/results",
    "kubernetes": {
        "image": "registry.example/tandem:1",
        "head": {"cpus": 1, "memory_gib": 1},
        "workers": [{"min": 1, "max": 1, "cpus": 1, "memory_gib": 1}],
        "claims": [{"claim": "results", "path": "/data"}],
        "queue": "experiments",
    },
}


def tandem(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT))
    return path


Bind = Callable[..., None]


@pytest.fixture
def bind(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bind:
    """Makes this process an account with some of the Roles, on a server that has Kueue."""
    for kind, plural in (("Workload", "workloads"), ("LocalQueue", "localqueues")):
        server.kinds.append(Kind("kueue.x-k8s.io/v1beta2", kind, plural))
    server.tokens["account"] = "system:serviceaccount:default:account"
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(server.kubeconfig(token="account"))
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))

    def bound(*roles: str) -> None:
        for role in roles:
            metadata = {"name": role, "namespace": "default"}
            group = "rbac.authorization.k8s.io"
            server.store.put(
                (f"roles.{group}", "default", role), {"metadata": metadata, "rules": ROLES[role]}
            )
            subject = {"kind": "ServiceAccount", "name": "account", "namespace": "default"}
            binding = {"metadata": metadata, "subjects": [subject], "roleRef": {"kind": "Role", "name": role}}
            server.store.put((f"rolebindings.{group}", "default", role), binding)

    return bound


def started(server: ApiServer, job: str) -> None:
    """Make a job one that runs on a cluster with a pod whose sidecar has failed."""
    status = {
        "jobDeploymentStatus": "Running",
        "jobStatus": "RUNNING",
        "rayClusterName": "cluster",
        "dashboardURL": "cluster-head-svc.default.svc:8265",
        "jobId": job,
    }
    server.store.update(("rayjobs.ray.io", "default", job), lambda found: found.update(status=status))
    metadata: dict[str, Any] = {"name": "cluster", "namespace": "default"}
    server.store.put(("rayclusters.ray.io", "default", "cluster"), {"metadata": metadata, "spec": {}})
    ended = {"name": "autoscaler", "state": {"terminated": {"exitCode": 1}}}
    ready = {"type": "Ready", "status": "True"}
    pod = {
        "metadata": metadata
        | {"name": "head", "labels": {"ray.io/cluster": "cluster", "ray.io/group": "headgroup"}},
        "status": {"containerStatuses": [ended], "conditions": [ready]},
    }
    server.store.put(("pods", "default", "head"), pod)
    server.pod_logs["default", "head", "autoscaler"] = "no token\n"


def run_pods(server: ApiServer, over: threading.Event) -> None:
    """Run each new pod's command on this machine, where its claim's path is a real directory."""
    while not over.wait(0.1):
        for pod in server.store.list("pods", "default"):
            name = pod["metadata"]["name"]
            if not name.startswith("tandem-fetch-") or "status" in pod:
                continue
            container = pod["spec"]["containers"][0]
            done = subprocess.run(
                [sys.executable, *container["command"][1:]], capture_output=True, text=True, check=False
            )
            server.pod_logs["default", name, container["name"]] = done.stdout + done.stderr
            phase = "Failed" if done.returncode else "Succeeded"
            server.store.update(
                ("pods", "default", name), lambda found, p=phase: found.update(status={"phase": p})
            )


@pytest.fixture
def kubelet(server: ApiServer) -> Iterator[None]:
    over = threading.Event()
    thread = threading.Thread(target=run_pods, args=(server, over))
    thread.start()
    yield
    over.set()
    thread.join()


def on_claim(tmp_path: Path) -> Path:
    """An experiment with results on a claim, and the results."""
    claims = [{"claim": "results", "path": str(tmp_path)}]
    document = EXPERIMENT | {"storage": str(tmp_path / "results")}
    document["kubernetes"] = EXPERIMENT["kubernetes"] | {"claims": claims}
    results = tmp_path / "results" / "there"
    (results / "report").mkdir(parents=True)
    (results / "report" / "report.html").write_bytes(bytes(range(256)) * 100)
    checkpoints = results / "runs" / "keras-seed0-1" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "state.npz").write_text("large")
    file = tmp_path / "claim.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def test_results_on_a_claim_are_fetched_through_a_pod(
    server: ApiServer, bind: Bind, tmp_path: Path, kubelet: None
) -> None:
    bind("tandem-submitter")
    file, to = on_claim(tmp_path), tmp_path / "here"
    done = tandem("fetch", file, to, "--on", "kuberay")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"1 files in {to}\n"
    assert (to / "report/report.html").read_bytes() == bytes(range(256)) * 100
    assert server.store.list("pods", "default") == [], "the pod is gone"
    (tmp_path / "results").rename(tmp_path / "moved")
    missing = tandem("fetch", file, tmp_path / "nothing", "--on", "kuberay")
    assert missing.exit_code == 2 and "cannot be read from its claim: no directory" in missing.stderr


def test_the_pod_that_reads_a_claim_is_admitted_by_the_strictest_pod_security(tmp_path: Path) -> None:
    spec = JobSpec(experiment=reader.load(on_claim(tmp_path), []), searches=False, command=[])
    bundle = JobBundle(spec=spec, module_path=tmp_path)
    pod = claim_pod(bundle, name="x", namespace="default", command=["python"])
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    assert_unprivileged(pod["spec"])
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert [volume["name"] for volume in pod["spec"]["volumes"]] == ["claim-0"]


def test_the_commands_use_each_verb_of_the_submitters_roles_and_no_other(
    server: ApiServer, bind: Bind, file: Path, tmp_path: Path, kubelet: None
) -> None:
    bind("tandem-submitter", "tandem-log-reader")
    assert tandem("fetch", on_claim(tmp_path), tmp_path / "here", "--on", "kuberay").exit_code == 0
    queue = {"metadata": {"name": "experiments", "namespace": "default"}}
    server.store.put(("localqueues.kueue.x-k8s.io", "default", "experiments"), queue)
    assert tandem("doctor", "--on", "kuberay").exit_code == 0
    checked = tandem("check", file, "--on", "kuberay")
    assert checked.exit_code == 0, checked.output
    submitted = tandem("submit", file, "--on", "kuberay", "--json")
    assert submitted.exit_code == 0, submitted.output
    job = json.loads(submitted.stdout)[0]["id"]
    started(server, job)
    for command in (("list",), ("status", job), ("logs", job)):
        done = tandem(*command, "--on", "kuberay")
        assert done.exit_code == 0, done.output
    assert "no token" in tandem("doctor", job, "--on", "kuberay").stdout
    following = threading.Thread(target=lambda: [*KubeRay("kuberay").log(job, follow=True)])
    following.start()
    until(lambda: any(verb == "watch" for _, verb, _ in server.verbs), seconds=60)
    server.store.delete(("pods", "default", "head"))
    assert tandem("cancel", job, "--on", "kuberay").exit_code == 0
    following.join(timeout=60)

    used = {(verb, resource) for user, verb, resource in server.verbs if user.endswith(":account")}
    allowed = {
        (verb, f"{resource}.{group}" if group else resource)
        for role in ("tandem-submitter", "tandem-log-reader")
        for rule in ROLES[role]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert used == allowed


def test_a_submitter_runs_on_a_claim_without_the_right_to_read_secrets(
    server: ApiServer, bind: Bind, file: Path
) -> None:
    bind("tandem-submitter")
    job = json.loads(tandem("submit", file, "--on", "kuberay", "--json").stdout)[0]["id"]
    started(server, job)
    shown = tandem("logs", job, "--on", "kuberay")
    assert shown.exit_code == 0, shown.output
    (line,) = shown.stdout.splitlines()
    assert "the log cannot be followed from here" in line and "tandem-log-reader" in line


def test_a_quota_is_no_missing_permission(server: ApiServer, bind: Bind, file: Path) -> None:
    bind("tandem-submitter")
    quota = {
        "metadata": {"name": "team", "namespace": "default"},
        "spec": {"hard": {"count/rayjobs.ray.io": "0"}},
    }
    server.store.put(("resourcequotas", "default", "team"), quota)
    refused = tandem("submit", file, "--on", "kuberay")
    assert refused.exit_code == 3
    assert "exceeded quota: team" in refused.stderr and "not a permission" in refused.stderr
    assert "Role" not in refused.stderr


def test_a_missing_verb_names_the_role_that_has_it(server: ApiServer, bind: Bind, file: Path) -> None:
    bind("tandem-viewer")
    assert tandem("list", "--on", "kuberay").exit_code == 0
    refused = tandem("submit", file, "--on", "kuberay")
    assert refused.exit_code == 3 and "ask for the Role tandem-submitter" in refused.stderr


def test_who_cannot_see_the_queue_is_told_that(server: ApiServer, bind: Bind, file: Path) -> None:
    bind("tandem-submitter")
    job = json.loads(tandem("submit", file, "--on", "kuberay", "--json").stdout)[0]["id"]
    server.store.update(("rayjobs.ray.io", "default", job), lambda found: found["spec"].update(suspend=True))
    told = json.loads(tandem("doctor", job, "--on", "kuberay", "--json").stdout)
    assert [finding["cause"] for finding in told] == ["queue-silent"]
    role = ("roles.rbac.authorization.k8s.io", "default", "tandem-submitter")
    server.store.update(role, lambda found: found["rules"].pop())
    told = json.loads(tandem("doctor", job, "--on", "kuberay", "--json").stdout)
    assert [finding["cause"] for finding in told] == ["queue-unreadable"]
