"""k8s/ and helm/: what kubectl and helm make of them is valid for the API and for KubeRay, unknown fields refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.cluster.kube import crds, schemas
from tests.conftest import ROOT, TOOLS, tandem

CHART = ROOT / "helm" / "tandem"
OVERLAYS = sorted(path.name for path in (ROOT / "k8s/overlays").iterdir())
OTHERS = ("kueue.x-k8s.io/", "monitoring.coreos.com/")
"""Groups whose schemas no library ships."""
EVERYTHING = {
    "standingCluster": {
        "enabled": True,
        "workers": {"min": 1, "max": 4, "cpus": 8, "memoryGiB": 32, "gpus": 1, "nodeSelector": {"a": "b"}},
    },
    "podMonitor": {"enabled": True},
    "dashboard": {"enabled": True},
    "nightly": {
        "enabled": True,
        "experiment": '{"experiment": {"name": "n", "storage": "s3://b"}}',
        "secrets": ["s3"],
    },
    "readLogsThroughDashboard": True,
    "pullSecrets": ["registry"],
    "submitters": [{"kind": "User", "name": "ada@example.com"}],
    "viewers": [{"kind": "ServiceAccount", "name": "ci", "namespace": "ci"}],
}
VALUES: dict[str, dict[str, Any]] = {
    "default": {},
    "everything": EVERYTHING,
    "growing": {"standingCluster": {"enabled": True}},
    "fixed": {"standingCluster": {"enabled": True, "workers": {"min": 2, "max": 2}}},
    "one-node": {"storage": {"accessMode": "ReadWriteOnce", "size": "10Gi", "storageClass": "local"}},
    "proxied": {
        "readLogsThroughDashboard": True,
        "networkPolicy": {"apiServerCidrs": ["10.0.0.0/24"], "egressPorts": [443, 6379]},
    },
    "watched": {"podMonitor": {"enabled": True}, "dashboard": {"enabled": True}},
    "nothing": {
        "networkPolicy": {"enabled": False},
        "quota": {"enabled": False},
        "storage": {"enabled": False},
    },
}


def tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(TOOLS / "kubernetes" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def objects(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def check(manifest: dict[str, Any]) -> None:
    """Refuse what the API server would."""
    api = manifest["apiVersion"]
    if api.startswith("ray.io/"):
        definition = schemas.crd(crds.directory() / f"ray.io_{manifest['kind'].lower()}s.yaml")
        schema = schemas.version_of(definition, "v1")["schema"]["openAPIV3Schema"]
        assert list(schemas.unknown_fields(manifest, schema)) == []
        below = {name: value for name, value in manifest.items() if name != "metadata"}
        assert list(schemas.problems(below, schema)) == []
        for template in templates(manifest["spec"]):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": template["spec"]}
            kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
            assert_unprivileged(template["spec"])
    elif not api.startswith(OTHERS):
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def templates(value: Any) -> Iterator[dict[str, Any]]:
    """Every pod template in an object."""
    if isinstance(value, dict):
        if "containers" in value.get("spec", {}):
            yield value
        for below in value.values():
            yield from templates(below)
    elif isinstance(value, list):
        for below in value:
            yield from templates(below)


def assert_unprivileged(spec: dict[str, Any]) -> None:
    """What the namespace's pod security, `restricted`, asks for, and a read-only root beyond it."""
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] and context["capabilities"] == {"drop": ["ALL"]}
        assert context["allowPrivilegeEscalation"] is False
        limits = container["resources"]["limits"]
        assert limits == container["resources"]["requests"] or "ray" not in container["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_valid(overlay: str) -> None:
    made = objects(tool("kubectl", "kustomize", ROOT / "k8s/overlays" / overlay))
    for manifest in made:
        check(manifest)
    kinds = {manifest["kind"] for manifest in made}
    assert {"Namespace", "ServiceAccount", "Role", "NetworkPolicy", "ResourceQuota"} <= kinds


def test_the_nightly_component_is_what_render_prints() -> None:
    file = ROOT / "k8s/components/nightly/nightly.yaml"
    printed = tandem("render", "examples/nightly.yaml", "--cron", "0 3 * * *", cwd=ROOT)
    assert printed.returncode == 0, printed.stderr
    assert file.read_text() == printed.stdout
    config_map, cron = yaml.safe_load_all(printed.stdout)
    check(config_map)
    check(cron)
    assert len(cron["metadata"]["name"]) <= 36
    assert "jobId" not in cron["spec"]["jobTemplate"], "each night is a job of its own"
    refused = tandem("render", "examples/nightly.yaml", "--cron", "tonight", cwd=ROOT)
    assert refused.returncode == 2 and "--cron 'tonight': give minute, hour" in refused.stderr


def test_roles_give_no_more_than_the_commands_use() -> None:
    manifests = objects(tool("kubectl", "kustomize", ROOT / "k8s/base"))
    for manifest in manifests:
        assert manifest["kind"] not in ("ClusterRole", "ClusterRoleBinding")
        for rule in manifest.get("rules", []):
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
    roles = {
        manifest["metadata"]["name"]: manifest["rules"]
        for manifest in manifests
        if manifest["kind"] == "Role"
    }
    writes = {"create", "delete", "patch", "update"}
    assert not any(writes & set(rule["verbs"]) for rule in roles["tandem-viewer"])
    for name, rules in roles.items():
        secret = [rule for rule in rules if "secrets" in rule["resources"]]
        assert not secret or name == "tandem-log-reader"


def test_the_chart_is_clean() -> None:
    linted = tool("helm", "lint", CHART, "--strict")
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("values", VALUES)
def test_the_chart_is_valid_under_values(values: str, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(VALUES[values]))
    made = objects(tool("helm", "template", "team", CHART, "-n", "team", "-f", file))
    for manifest in made:
        check(manifest)
    kinds = [manifest["kind"] for manifest in made]
    assert kinds.count("Role") == 4
    stands = values in ("everything", "growing", "fixed")
    assert ("RayCluster" in kinds) == ("PodDisruptionBudget" in kinds) == stands
    assert ("RayCronJob" in kinds) == (values == "everything")
    assert ("NetworkPolicy" in kinds) == (values != "nothing")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"imagee": "x"}, "imagee"),
        ({"rayVersion": "latest"}, "rayVersion"),
        ({"nightly": {"enabled": True}}, "experiment"),
        ({"nightly": {"enabled": True, "experiment": "name: x"}}, "tandem render FILE --cron"),
        ({"nightly": {"schedule": "every night at 3"}}, "schedule"),
        ({"standingCluster": {"workers": {"min": 3, "max": 2}}}, "min 3 exceeds max 2"),
        ({"networkPolicy": {"apiServerCidrs": ["all"]}}, "apiServerCidrs"),
        ({"standingCluster": {"workers": {"cpus": 0}}}, "cpus"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], words: str, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    done = tool("helm", "template", "team", CHART, "-f", file)
    assert done.returncode != 0 and words in done.stderr


def test_the_chart_and_kustomize_make_the_same_objects() -> None:
    base = tool("kubectl", "kustomize", ROOT / "k8s/base")
    chart = tool("helm", "template", "team", CHART, "-n", "tandem", "--no-hooks")

    def contents(done: subprocess.CompletedProcess[str]) -> dict[tuple[str, str], dict[str, Any]]:
        return {
            (found["kind"], found["metadata"]["name"]): {
                field: value for field, value in found.items() if field != "metadata"
            }
            for found in objects(done)
        }

    ours = contents(base)
    del ours["Namespace", "tandem"]  # helm install --create-namespace
    assert contents(chart) == ours


def test_the_standing_clusters_are_alike() -> None:
    overlay = tool("kubectl", "kustomize", ROOT / "k8s/overlays/spot")
    chart = tool("helm", "template", "team", CHART, "-n", "tandem", "--set", "standingCluster.enabled=true")

    def head_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
        (cluster,) = [found for found in objects(done) if found["kind"] == "RayCluster"]
        return dict(cluster["spec"]["headGroupSpec"])

    assert head_of(overlay) == head_of(chart)


def test_a_teams_overlays_hold_nothing_outside_of_its_namespace() -> None:
    for overlay in OVERLAYS:
        for manifest in objects(tool("kubectl", "kustomize", ROOT / "k8s/overlays" / overlay)):
            assert manifest["kind"] == "Namespace" or manifest["metadata"]["namespace"] == "tandem"
    kinds = {found["kind"] for found in objects(tool("kubectl", "kustomize", ROOT / "k8s/cluster/kueue"))}
    assert kinds == {"ResourceFlavor", "ClusterQueue", "WorkloadPriorityClass"}
    gpu = tool("kubectl", "kustomize", ROOT / "k8s/overlays/gpu").stdout
    assert "tandem:0.1.0-cuda" in gpu and "tandem:0.1.0-cpu" not in gpu


def test_the_dashboard_shows_what_the_driver_exports() -> None:
    source = (ROOT / "orchestrator/execution/monitoring/prometheus.py").read_text()
    dashboard = json.loads((CHART / "dashboards/tandem.json").read_text())
    for panel in dashboard["panels"]:
        metric = panel["targets"][0]["expr"].partition("ray_")[2].partition("{")[0]
        assert f'"{metric}"' in source


def test_every_example_renders_to_what_the_operator_takes(tmp_path: Path) -> None:
    for example in sorted((ROOT / "examples").glob("*.yaml")):
        document = yaml.safe_load(example.read_text())
        document["kubernetes"] = document.get("kubernetes") or {"image": "registry.example/tandem:1"}
        document["storage"] = "s3://bucket/results"
        file = tmp_path / example.name
        file.write_text(yaml.safe_dump(document, sort_keys=False))
        for manifest in objects(tandem("render", file)):
            check(manifest)
