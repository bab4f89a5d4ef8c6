"""The same file on this machine, on a Ray cluster and on Kubernetes: the same accuracy, the same report."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import KubeRayHere
from tests.conftest import ROOT, tandem

pytestmark = [pytest.mark.serial, pytest.mark.ray]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_clusters_give_the_same_result_and_the_same_report(
    tmp_path: Path, ray_cluster: str, kuberay: KubeRayHere
) -> None:
    document = yaml.safe_load((ROOT / "examples/quickstart.yaml").read_text())
    document["kubernetes"] = {
        "image": "registry.example/tandem:1",
        "head": {"cpus": 1},
        "workers": [{"min": 1, "max": 1, "cpus": 2}],
        "claims": [{"claim": "results", "path": str(tmp_path)}],
    }
    file = tmp_path / "quickstart.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    places = {"here": (), "ray": ("--on", ray_cluster), "kubernetes": ("--on", "kuberay")}
    accuracies, sections = {}, {}
    for place, options in places.items():
        done = tandem("run", file, "--json", "--set", f"storage={tmp_path / place}", *options, timeout=400)
        assert done.returncode == 0, (place, done.stderr)
        arms = json.loads(done.stdout)["arms"]
        accuracies[place] = {arm["name"]: [run["test_accuracy"] for run in arm["runs"]] for arm in arms}
        page = (tmp_path / place / "quickstart/report/report.html").read_text()
        sections[place] = [line for line in page.splitlines() if line.startswith("<h2")]
    assert accuracies["here"] == accuracies["ray"] == accuracies["kubernetes"]
    assert sections["here"] == sections["ray"] == sections["kubernetes"]

    tokens = [os.environ["RAY_AUTH_TOKEN"]]
    tokens += [secret["data"]["auth_token"] for secret in kuberay.server.store.list("secrets", None)]
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.name != "kubeconfig":
            content = path.read_bytes()
            assert not any(token.encode() in content for token in tokens), path
