"""The errors that tandem raises on purpose.

    TandemError              the work failed (exit code 1)
    ├── InputError           what was given is wrong (exit code 2)
    └── ClusterError         the cluster could not be reached, or Ray does not start (exit code 3)

Each message is one sentence that says what is wrong, where, and what would be right. `one_line` describes what
frameworks and users' models raise.
"""

from __future__ import annotations

import re
import socket
import sysconfig
import traceback
from pathlib import Path

_LONGEST = 300
_STYLES = re.compile(r"\x1b\[[0-9;]*m")
_PACKAGES = {"site-packages", "dist-packages"}
_ROOT = Path(__file__).resolve().parent.parent
_OTHER_CODE = (_ROOT / "trainers", _ROOT / "orchestrator", Path(sysconfig.get_path("stdlib")).resolve())
"""Directories of code that is not the user's."""


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


def no_gpu(framework: str, version: str, *, cuda: str | None) -> TandemError:
    """What a worker with a GPU says when its framework sees none.

    Args:
        framework: as its users write it.
        version: of the framework.
        cuda: the version of CUDA that the framework was built for; None without CUDA.
    """
    if cuda is None:
        remedy = f"this {framework} is built without CUDA; install one with CUDA"
    else:
        remedy = (
            f"check that nvidia-smi lists a GPU there and that its driver supports CUDA {cuda}, for which this "
            f"{framework} is built"
        )
    return TandemError(
        f"scale.gpus_per_worker asks for a GPU, but {framework} {version} sees none on node {socket.gethostname()}: "
        f"{remedy}, or set scale.gpus_per_worker to 0"
    )


def one_line(error: BaseException) -> str:
    """An error as `Type: what it says (file, line)`, with the place in the user's code if it came from there.

    tandem's own errors, and those that were described before, stay as they are.
    """
    if isinstance(error, TandemError | ForeignError):
        return str(error)
    lines = [line.strip() for line in _STYLES.sub("", str(error)).splitlines() if line.strip()]
    if lines[:1] == ["Graph execution error:"]:  # where in TensorFlow's graph, then what, then the node again
        lines = [line for line in lines if not line.startswith("[[")][-1:]
    said = " ".join(lines)
    if len(said) > _LONGEST:
        said = f"{said[:_LONGEST]}…"
    named = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return named + place_of(error)


def place_of(error: BaseException) -> str:
    """` (file.py, line 12)`, the innermost line of the user's code that an error came through; empty without one."""
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = Path(frame.f_code.co_filename)
        if file.is_file() and not _PACKAGES & {*file.parts}:
            resolved = file.resolve()
            if not any(resolved.is_relative_to(directory) for directory in _OTHER_CODE):
                place = f" ({file.name}, line {line})"
    return place
