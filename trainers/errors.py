"""The errors that tandem raises on purpose.

    TandemError              the work failed (exit code 1)
    ├── InputError           what was given is wrong (exit code 2)
    └── ClusterError         the cluster could not be reached, or Ray does not start (exit code 3)

Each message is one sentence that says what is wrong, where, and what would be right. What frameworks and
users' models raise is told by `one_line`.
"""

from __future__ import annotations

import re

_LONGEST = 300
_STYLES = re.compile(r"\x1b\[[0-9;]*m")


class TandemError(Exception):
    """Root of every error that tandem raises on purpose; carries the process exit code."""

    exit_code = 1


class InputError(TandemError):
    """An experiment file, a data set, or an option is wrong."""

    exit_code = 2


class ClusterError(TandemError):
    """The cluster that was named cannot be reached or refuses the work."""

    exit_code = 3


class ForeignError(Exception):
    """What a framework or a user's model raised, as a process without that framework can read it."""


def one_line(error: BaseException) -> str:
    """An error as `Type: what it says`; tandem's own and those told before as they are."""
    if isinstance(error, TandemError | ForeignError):
        return str(error)
    lines = [line.strip() for line in _STYLES.sub("", str(error)).splitlines() if line.strip()]
    if lines[:1] == ["Graph execution error:"]:  # where in TensorFlow's graph, then what, then the node again
        lines = [line for line in lines if not line.startswith("[[")][-1:]
    said = " ".join(lines)
    if len(said) > _LONGEST:
        said = f"{said[:_LONGEST]}…"
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
