"""How fast the command answers."""

from __future__ import annotations

import re
import time

import pytest

from tests.conftest import tandem

pytestmark = pytest.mark.serial


def test_help_answers_at_once() -> None:
    tandem("--help")
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        told = tandem("--help")
        seconds.append(time.perf_counter() - start)
        assert told.returncode == 0
        assert not re.search(r"\w\.\.\.$", told.stdout, re.MULTILINE), "each command's line is whole"
    assert min(seconds) < 0.3
