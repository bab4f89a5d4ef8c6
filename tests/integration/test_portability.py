"""Nothing needs what only Linux has: everything is imported, and an experiment checked, where there is no /proc."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import NO_MOUNT, ROOT

HIDDEN = [
    "unshare",
    "--user",
    "--map-root-user",
    "--mount",
    "sh",
    "-c",
    'mount -t tmpfs none /proc && exec "$@"',
]
SCRIPT = """
import importlib, os, pkgutil, sys

del os.sched_getaffinity
excluded, *arguments = sys.argv[1:]
assert os.listdir("/proc") == []
names = ["tandem"]
for package in ("orchestrator", "trainers"):
    found = importlib.import_module(package)
    names += [module.name for module in pkgutil.walk_packages(found.__path__, f"{package}.")]
for name in names:
    if not name.startswith(excluded):
        importlib.import_module(name)
from orchestrator.cli import main
sys.argv = ["tandem", *arguments]
main()
"""


@pytest.mark.parametrize("excluded", ["trainers.torch", "trainers.keras"])
def test_everything_but_the_other_framework_is_imported_and_an_experiment_checked_without_proc(
    tmp_path: Path, experiment_file: Callable[[str], Path], excluded: str
) -> None:
    if subprocess.run([*HIDDEN, "sh", "true"], capture_output=True, check=False).returncode:
        pytest.skip(NO_MOUNT)
    file = experiment_file(
        f"name: here\ndata: {{source: digits}}\narms: {{only: {{framework: torch}}}}\nstorage: {tmp_path}\n"
    )
    done = subprocess.run(
        [*HIDDEN, "sh", sys.executable, "-c", SCRIPT, excluded, "check", file],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 runs, ")
