"""Two drivers at once are excluded; a dead one is not waited for longer than needed. With real processes and S3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from orchestrator.execution import lease
from orchestrator.store.storage import Storage
from tests.conftest import ROOT

pytestmark = pytest.mark.serial

HOLDER = """
import sys, time
from orchestrator.execution import lease
from orchestrator.store.storage import Storage
with lease.held(Storage(sys.argv[1]), on_loss=lambda: None):
    print("held", flush=True)
    time.sleep(60)
"""


def nothing() -> None:
    pass


def holder(directory: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(directory)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_driver_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    process = holder(tmp_path)
    refused = pytest.raises(lease.HeldError, match=f"process {process.pid} on")
    with refused, lease.held(Storage(str(tmp_path)), on_loss=nothing):
        pass
    process.kill()
    process.wait()


@pytest.mark.parametrize("waited_for", [True, False])
def test_after_a_kill_the_next_driver_does_not_wait(tmp_path: Path, waited_for: bool) -> None:
    process = holder(tmp_path)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | (0 if waited_for else os.WNOWAIT))
    started = time.monotonic()
    with lease.held(Storage(str(tmp_path)), on_loss=nothing):
        assert time.monotonic() - started < 15, "half of what a driver elsewhere is waited for"
    assert not (tmp_path / "lease.json").exists()


def elsewhere(storage: Storage, renewals: int = 0) -> None:
    """A lease of a driver on another machine."""
    storage.write_json(
        "lease.json",
        {
            "holder": "other",
            "host": "elsewhere",
            "boot": "other",
            "pid": 1,
            "process_created": 1.0,
            "renewals": renewals,
            "renewed_at": time.time(),
        },
    )


def test_a_driver_elsewhere_is_dead_when_it_renews_no_more(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    elsewhere(storage)
    started = time.monotonic()
    with lease.held(storage, on_loss=nothing, expired_after=2):
        assert time.monotonic() - started >= 2
        assert lease.renewed_at(storage) is not None


def test_a_driver_elsewhere_that_renews_is_alive(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    elsewhere(storage)
    threading.Timer(0.5, lambda: elsewhere(storage, renewals=1)).start()
    refused = pytest.raises(lease.HeldError, match="process 1 on elsewhere")
    with refused, lease.held(storage, on_loss=nothing, expired_after=5):
        pass


def test_who_loses_its_lease_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_RENEW_SECONDS", 0.2)
    storage, lost = Storage(str(tmp_path)), threading.Event()
    with lease.held(storage, on_loss=lost.set):
        elsewhere(storage)
        assert lost.wait(timeout=30)
    assert json.loads((tmp_path / "lease.json").read_text())["holder"] == "other", "it is left alone"


LOGGER = """
import os, subprocess, sys
from orchestrator.execution.monitoring import driver_log
from orchestrator.store.storage import Storage
with driver_log.kept(Storage(sys.argv[1]), "job"):
    print("from python")
    print("from stderr", file=sys.stderr)
    os.write(1, b"from C\\n")
    subprocess.run(["echo", "from a child"], check=True)
    for line in range(int(sys.argv[2])):
        print("line", line, "x" * 80)
    print("the end, without a newline", end="")
"""


@pytest.mark.parametrize("lines", [10, 9000])
def test_all_that_a_driver_prints_is_kept_and_read_once(tmp_path: Path, lines: int) -> None:
    from orchestrator.execution.monitoring.driver_log import KeptLog, jobs_of

    done = subprocess.run(
        [sys.executable, "-u", "-c", textwrap.dedent(LOGGER), str(tmp_path), str(lines)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    log = KeptLog(Storage(str(tmp_path)), "job")
    read = log.new()
    assert not read.endswith("newline"), "a line under way waits until it is whole"
    read += log.new(final=True)
    assert log.new(final=True) == ""
    assert read == done.stdout, "what is printed still goes where it went, and is kept in the same order"
    for words in ("from python", "from stderr", "from C", "from a child", f"line {lines - 1} ", "the end"):
        assert words in read
    assert jobs_of(Storage(str(tmp_path))) == ["job"]
