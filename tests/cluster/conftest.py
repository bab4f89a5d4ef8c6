"""Control planes to test against."""

from __future__ import annotations

import dataclasses
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.cluster.kube import crds
from tests.cluster.kube.api_server import ApiServer, serving
from tests.cluster.kube.control_plane import KUBECONFIG, ControlPlane
from tests.cluster.kube.nodes import RayNodes, free_port
from tests.cluster.kube.operator import Operator
from tests.conftest import TOOLS


@pytest.fixture(scope="session")
def _kubeconfig() -> Iterator[str]:
    if KUBECONFIG in os.environ:
        yield Path(os.environ[KUBECONFIG]).read_text()
        return
    with serving(crds.directory()) as server:
        yield server.kubeconfig()


@pytest.fixture
def plane(_kubeconfig: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlPlane]:
    """A namespace on the test server, or on the control plane of TANDEM_TEST_KUBECONFIG."""
    plane = ControlPlane(_kubeconfig, tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    yield plane
    plane.remove()


@pytest.fixture
def server() -> Iterator[ApiServer]:
    """A test server of the test's own, to break."""
    with serving(crds.directory()) as server:
        yield server


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[str]:
    """The address of a cluster whose token is in this process's environment."""
    nodes = RayNodes(secrets.token_hex(16), {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", nodes.token)
        nodes.start_head("head", cpus="2")
        limit = time.monotonic() + 60
        while True:
            try:
                if requests.get(f"{nodes.dashboard}/api/version", headers=bearer(nodes.token), timeout=5).ok:
                    break
            except requests.ConnectionError:
                pass
            assert time.monotonic() < limit
            time.sleep(0.5)
        yield nodes.dashboard
        nodes.kill_all()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Environment of an S3 bucket called `bucket`, which is this process' own too."""
    port = free_port()
    command = [str(TOOLS / "moto" / "bin" / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    environment = {
        "AWS_ACCESS_KEY_ID": "planted-key",
        "AWS_SECRET_ACCESS_KEY": "planted-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    limit = time.monotonic() + 60
    while True:
        try:
            assert requests.put(f"{environment['AWS_ENDPOINT_URL']}/bucket", timeout=5).ok
            break
        except requests.ConnectionError:
            assert time.monotonic() < limit
            time.sleep(0.2)
    yield environment
    server.kill()
    server.wait()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The address and the password of a Redis that forgets everything at its end."""
    port, password = free_port(), secrets.token_hex(16)
    command = [str(Path(sys.prefix) / "bin" / "redis-server"), "--port", str(port), "--requirepass", password]
    server = subprocess.Popen([*command, "--save", ""], cwd=tmp_path, stdout=subprocess.DEVNULL)
    yield f"127.0.0.1:{port}", password
    server.kill()
    server.wait()


@dataclasses.dataclass(frozen=True)
class KubeRayHere:
    """A test server with the stand-in operator, in a namespace called default."""

    server: ApiServer
    operator: Operator


@pytest.fixture
def kuberay(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeRayHere]:
    """A cluster that turns RayJobs into real Ray nodes; KUBECONFIG leads to it."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(server.kubeconfig())
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    operator = Operator(server).start()
    yield KubeRayHere(server, operator)
    operator.stop()
    assert not operator.failures, operator.failures
