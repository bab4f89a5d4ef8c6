"""Control planes to test against."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.kube.api_server import ApiServer, serving
from tests.cluster.kube.control_plane import CRDS, KUBECONFIG, ControlPlane
from tests.cluster.kube.operator import Operator


@pytest.fixture(scope="session")
def _kubeconfig() -> Iterator[str]:
    if KUBECONFIG in os.environ:
        yield Path(os.environ[KUBECONFIG]).read_text()
        return
    if not CRDS.is_dir():
        pytest.skip(f"KubeRay's CRDs are not at {CRDS}")
    with serving(CRDS) as server:
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
    if not CRDS.is_dir():
        pytest.skip(f"KubeRay's CRDs are not at {CRDS}")
    with serving(CRDS) as server:
        yield server


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
