"""KubeRay's API definitions: taken from ../shared where it is, and downloaded elsewhere."""

from __future__ import annotations

import functools
import hashlib
import os
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import ROOT, TOOLS

BASE = "TANDEM_TEST_CRDS_URL"
"""Names another place to download from, such as a mirror."""
_PUBLISHED = (
    "https://raw.githubusercontent.com/ray-project/kuberay/feeaf72facab4881ba2b179248bb67315634e229"
    "/helm-chart/kuberay-operator/crds"
)
CHECKSUMS = {
    "ray.io_rayclusters.yaml": "c44704442eef0c6721ad40c1d66782c8bd3fdab9d3344306a5820910a679baa1",
    "ray.io_raycronjobs.yaml": "31c2c753bba01f7e8e89cb8e8c504131b58ee42090ca536d87f5ac27605a568e",
    "ray.io_rayjobs.yaml": "01a5cf3b17c1769fda44af7e82debcd98722f0c27b9ab84d084681c6649121f5",
    "ray.io_rayservices.yaml": "0a8fc325e6e22b9231c1f282b309555e2ecf94227ca20a03df3d1d9a403907ab",
}
"""SHA-256 of each file at that commit."""
_SHARED = ROOT.parent / "shared" / "kuberay" / "crds"
_DOWNLOADED = TOOLS / "kuberay"
_SECONDS = 60


class DownloadError(Exception):
    """The definitions cannot be downloaded, or are not the pinned ones."""


@functools.cache
def directory() -> Path:
    """The directory of the definitions; skips the test where they are neither at hand nor can be downloaded."""
    if _SHARED.is_dir():
        return _SHARED
    try:
        download(os.environ.get(BASE, _PUBLISHED), _DOWNLOADED)
    except DownloadError as error:
        pytest.skip(str(error))
    return _DOWNLOADED


def download(base: str, to: Path) -> None:
    """Download the definitions that are not in a directory yet.

    Args:
        base: URL of the directory that they are in.
        to: where they are written.

    Raises:
        DownloadError: the server does not send them, or sends others.
    """
    to.mkdir(parents=True, exist_ok=True)
    for name, checksum in CHECKSUMS.items():
        if (to / name).exists():
            continue
        url = f"{base.rstrip('/')}/{name}"
        try:
            with urllib.request.urlopen(url, timeout=_SECONDS) as response:
                content = response.read()
        except OSError as error:
            raise DownloadError(
                f"KubeRay's CRDs cannot be downloaded: {url}: {error}; set {BASE} to another place"
            ) from error
        if (found := hashlib.sha256(content).hexdigest()) != checksum:
            raise DownloadError(f"{url} has SHA-256 {found} instead of {checksum}")
        part = to / f"{name}.{os.getpid()}"  # several processes may download at once
        part.write_bytes(content)
        part.replace(to / name)
