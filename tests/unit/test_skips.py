"""CI passes over no test for a reason that nobody has written down."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import NO_MOUNT, ROOT

TESTS = f"""
import pytest

def test_for_a_listed_reason():
    pytest.skip({NO_MOUNT!r})

def test_for_another_reason():
    pytest.skip("there is no such tool")

@pytest.fixture
def tool():
    pytest.skip("there is no such tool")

def test_without_its_fixture(tool): ...
"""


@pytest.mark.parametrize(("ci", "outcome"), [("true", "1 failed, 1 skipped, 1 error"), ("", "3 skipped")])
def test_a_skip_is_a_failure_in_ci_unless_its_reason_is_listed(tmp_path: Path, ci: str, outcome: str) -> None:
    file = tmp_path / "test_it.py"
    file.write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "--rootdir", tmp_path, file],
        cwd=ROOT,
        env=os.environ | {"CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in done.stdout, done.stdout + done.stderr
    assert ("a reason in tests/conftest.py: there is no such tool" in done.stdout) == (ci == "true")
