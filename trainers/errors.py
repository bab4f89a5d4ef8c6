"""The errors that tandem raises on purpose.

    TandemError              the work failed (exit code 1)
    ├── InputError           what was given is wrong (exit code 2)
    └── ClusterError         the cluster could not be reached (exit code 3)

Each message is one sentence that says what is wrong, where, and what would be right.
"""


class TandemError(Exception):
    """Root of every error that tandem raises on purpose; carries the process exit code."""

    exit_code = 1


class InputError(TandemError):
    """An experiment file, a data set, or an option is wrong."""

    exit_code = 2


class ClusterError(TandemError):
    """The cluster that was named cannot be reached or refuses the work."""

    exit_code = 3
