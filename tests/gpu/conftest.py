"""The device, the pictures, and the table that is printed at the end."""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path

import pytest

NO_GPU = "PyTorch sees no NVIDIA GPU on this machine"
_ROWS = pytest.StashKey[list[list[str]]]()
_NOTES = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--gpu-table", metavar="FILE", help="write the table to a file as well")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS], config.stash[_NOTES] = [], []


@pytest.fixture(scope="session")
def device():
    """The first GPU."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip(NO_GPU)
    return torch.device("cuda", 0)


@pytest.fixture(scope="session")
def cifar10():
    """CIFAR-10 from TANDEM_BENCH_DATA; None where it is not given."""
    from tests.gpu import pictures

    directory = os.environ.get("TANDEM_BENCH_DATA")
    if directory is None or importlib.util.find_spec("PIL") is None:
        return None
    return pictures.cifar10(Path(directory))


@pytest.fixture
def row(request: pytest.FixtureRequest):
    """Adds a row to the table: what was measured, and its figures."""
    return lambda *cells: request.config.stash[_ROWS].append([str(cell) for cell in cells])


@pytest.fixture
def note(request: pytest.FixtureRequest):
    """Adds a line below the table."""
    return lambda line: request.config.stash[_NOTES].append(line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows, notes = config.stash[_ROWS], config.stash[_NOTES]
    if not rows:
        return
    import torch

    header = [
        "network, precision, batch",
        "tandem, images/s",
        "bare loop, images/s",
        "ratio",
        "compile, s",
        "peak of both, GiB",
    ]
    lines = [
        f"{torch.cuda.get_device_name(0)}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}, "
        f"{time.strftime('%Y-%m-%d')}.",
        "",
        *(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)),
        *(line for note in notes for line in ("", note)),
    ]
    for line in ("", *lines):
        terminalreporter.write_line(line)
    if file := config.getoption("--gpu-table", default=None):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text("\n".join(lines) + "\n")
