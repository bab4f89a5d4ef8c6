"""KubeRay's API definitions are downloaded where they are not at hand, and only the pinned ones are taken."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.kube import crds


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """Serves a directory over HTTP; gives its URL."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(directory: Path) -> str:
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(directory))
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_pinned_definitions_are_downloaded_once(serve: Callable[[Path], str], tmp_path: Path) -> None:
    crds.download(serve(crds.directory()), tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(crds.CHECKSUMS)
    crds.download("http://127.0.0.1:1", tmp_path)


def test_other_files_than_the_pinned_ones_are_refused(serve: Callable[[Path], str], tmp_path: Path) -> None:
    changed, taken = tmp_path / "changed", tmp_path / "taken"
    changed.mkdir()
    for name in crds.CHECKSUMS:
        (changed / name).write_bytes((crds.directory() / name).read_bytes() + b"\n")
    with pytest.raises(crds.DownloadError, match=r"has SHA-256 .* instead of "):
        crds.download(serve(changed), taken)
    with pytest.raises(crds.DownloadError, match=f"cannot be downloaded: .*404.*; set {crds.BASE}"):
        crds.download(serve(tmp_path), taken)
    assert list(taken.iterdir()) == []
