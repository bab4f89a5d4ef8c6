"""How fast the command starts."""

from __future__ import annotations

import os
import re

from tests.conftest import tandem, within


def test_help_is_printed_at_once() -> None:
    def processor_seconds() -> float:
        before = os.times()
        told = tandem("--help")
        after = os.times()
        assert told.returncode == 0
        assert not re.search(r"\w\.\.\.$", told.stdout, re.MULTILINE), "each command's line is whole"
        return after.children_user + after.children_system - before.children_user - before.children_system

    processor_seconds()  # reads the files into memory
    assert within(0.3, lambda: min(processor_seconds() for _ in range(5)))
