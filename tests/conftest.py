"""What all tests share: a cache of their own, a command runner, CIFAR-10 where it is at hand, what CI may skip."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".venv"
"""Below which the Makefile installs what tests use."""
CIFAR10 = ROOT.parent / "shared" / "data" / "cifar10"

NO_CIFAR10 = "CIFAR-10 is not beside the repository, in ../shared/data/cifar10"
NO_GPU = "PyTorch sees no NVIDIA GPU on this machine"
NO_MOUNT = "mounting a file system needs root"
NO_CLUSTER = "TANDEM_TEST_KUBECONFIG, TANDEM_TEST_IMAGE and TANDEM_TEST_STORAGE do not name a cluster"
ALLOWED_SKIPS = {
    NO_CLUSTER: "the same commands run against the tests' own API server and real Ray; make test-kind runs these",
    NO_CIFAR10: "the data set is no part of the repository; small files in its formats are read everywhere",
    NO_GPU: "the same checks run on CPUs in tests/unit/test_device.py, but for throughput and memory",
    NO_MOUNT: "neither a small disk nor a machine without /proc can be made without it",
}
"""Why a test may be skipped where CI=true, and why that is tolerable. There any other skipped test is a failure."""

# A shell starts background jobs with SIGINT ignored, which the commands under test would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail what CI skips for a reason that is not listed."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        _, _, reason = report.longrepr
        reason = reason.removeprefix("Skipped: ")
        if reason not in ALLOWED_SKIPS:
            report.outcome = "failed"
            report.longrepr = f"skipped, which CI allows only for a reason in tests/conftest.py: {reason}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["TANDEM_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ.pop("TANDEM_DATA", None)


@pytest.fixture(scope="session")
def cifar10() -> Path:
    """CIFAR-10 as Parquet files."""
    if not CIFAR10.is_dir():
        pytest.skip(NO_CIFAR10)
    return CIFAR10


def start_tandem(*arguments: str | Path, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Start the command in a process group of its own, its output captured."""
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("tandem")), *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def tandem(
    *arguments: str | Path, cwd: Path | None = None, timeout: float = 540
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    process = start_tandem(*arguments, cwd=cwd)
    out, err = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def within(bound: float, seconds: Callable[[], float]) -> bool:
    """Whether work takes at most so many seconds of a core that nobody shares, at the second try at the latest.

    Other processes on a shared machine take up to half of a core, for seconds or for hours. The bound is longer by as
    much as a loop of Python takes longer before or after.
    """
    for _ in range(2):
        before, taken = _slowness(), seconds()
        allowed = bound * max(before, _slowness())
        print(f"{taken:.1f} s, where {allowed:.1f} s are allowed")
        if taken < allowed:
            return True
    return False


_UNSHARED_SECONDS = 0.2
"""What the loop below takes on a core of an AMD EPYC at 2.45 GHz whose other half is idle."""


def _slowness() -> float:
    started = time.process_time()
    total = 0
    for number in range(5_000_000):
        total += number
    return max(1.0, (time.process_time() - started) / _UNSHARED_SECONDS)


@pytest.fixture
def experiment_file(tmp_path: Path) -> Callable[[str], Path]:
    """Writes an experiment file."""

    def write(text: str) -> Path:
        path = tmp_path / "experiment.yaml"
        path.write_text(text)
        return path

    return write
