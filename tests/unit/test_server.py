"""`tandem serve` over real HTTP: what it shows, to whom, and what it keeps to itself."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import report
from orchestrator.report.server import listen
from orchestrator.store.storage import Storage
from tests.unit.synthetic import make_records
from trainers.errors import InputError

ARMS = {"keras": [0.5, 0.6, 0.7], "torch": [0.6, 0.65, 0.8]}
REPORT = "/two/report/report.html"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two experiments with reports, one without, and a file beside them."""
    root = tmp_path_factory.mktemp("served")
    for name, started in (("one", 1.0e9), ("two", 1.7e9)):
        records = make_records(root / name, ARMS)
        records.storage.append_line("sessions.jsonl", {"started_at": started, "environment": {}})
        report.write(records)
    make_records(root / "open", ARMS)
    (root / "secret.txt").write_text("secret")
    (root / "two" / "report" / "link.txt").symlink_to(root / "secret.txt")
    outside = root.parent / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "key.txt").write_text("secret")
    (root / "two" / "report" / "away.txt").symlink_to(outside / "key.txt")
    (root / "two" / "report" / "further").symlink_to(outside)
    return root


@pytest.fixture(scope="module")
def port(root: Path) -> Iterator[int]:
    server = listen(Storage(str(root)), "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def get(
    port: int, path: str, *, method: str = "GET", host: str | None = None
) -> tuple[int, dict[str, str], str]:
    """Status, headers and body of the response to a path that is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, dict(response.getheaders()), body


def test_the_index_shows_date_and_verdict_of_each_experiment_the_latest_first(port: int) -> None:
    status, _, page = get(port, "/")
    assert status == 200
    assert 'href="/one/report/report.html"' in page
    assert page.index("/two/report") < page.index("/one/report"), "the latest is first"
    assert "2023-11-14 22:13 UTC" in page
    assert page.count("torch") >= 2, "each has its verdict"
    assert "/open/" not in page
    assert 'type="search"' in page


def test_reports_are_served_and_nothing_else(port: int) -> None:
    assert get(port, REPORT)[0] == 200
    assert get(port, "/two/report/results.csv")[0] == 200
    for path in (
        "/secret.txt",
        "/one/experiment.json",
        "/one/report/../experiment.json",
        "/one/report/..%2f..%2fsecret.txt",
        "/one/report/%2e%2e/experiment.json",
        "/one/report/report.html%00",
        "/%00",
        "/one/report/nothing.html",
        "/one/runs",
        "/one/runs/",
        "/nothing",
    ):
        assert get(port, path)[0] == 404, path


def test_links_are_not_followed_out_of_the_directory(port: int) -> None:
    for path in ("away.txt", "further", "further/key.txt"):
        status, _, body = get(port, f"/two/report/{path}")
        assert status == 404
        assert "secret" not in body


@pytest.mark.parametrize("path", ["/two", "/two/", "/two/report", "/two/report/"])
def test_a_directory_leads_to_its_report(port: int, path: str) -> None:
    status, headers, _ = get(port, path)
    assert (status, headers["Location"]) == (302, REPORT)


@pytest.mark.parametrize("path", ["/", REPORT, "/nothing"])
def test_a_head_request_gets_the_headers_alone(port: int, path: str) -> None:
    status, headers, body = get(port, path, method="HEAD")
    expected, wanted, content = get(port, path)
    assert (status, headers["Content-Length"]) == (expected, wanted["Content-Length"])
    assert int(wanted["Content-Length"]) == len(content.encode())
    assert body == ""


def test_nothing_is_written(port: int) -> None:
    assert get(port, REPORT, method="PUT")[0] == 501
    assert get(port, REPORT, method="DELETE")[0] == 501


@pytest.mark.parametrize(
    "host", ["attacker.example", "attacker.example:8080", "127.0.0.1.attacker.example", ""]
)
def test_a_page_of_another_site_cannot_reach_it_by_its_own_name(port: int, host: str) -> None:
    status, _, body = get(port, REPORT, host=host)
    assert status == 421
    assert "names another host" in body


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:80", "[::1]:8080", "192.0.2.7"])
def test_it_is_reached_by_addresses_and_its_own_names(port: int, host: str) -> None:
    assert get(port, REPORT, host=host)[0] == 200


def test_a_report_runs_in_a_sandbox_without_network(port: int) -> None:
    policy = get(port, REPORT)[1]["Content-Security-Policy"]
    assert "sandbox allow-scripts allow-downloads" in policy
    assert "allow-same-origin" not in policy
    assert "default-src 'none'" in policy
    index = get(port, "/")[1]["Content-Security-Policy"]
    assert "script-src 'sha256-" in index


def test_the_storage_of_one_experiment_is_refused(root: Path) -> None:
    with pytest.raises(InputError, match="one experiment; give the directory above"):
        listen(Storage(str(root / "one")), "127.0.0.1", 0)
