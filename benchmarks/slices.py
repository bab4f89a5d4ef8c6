"""Two programs that train at once, each stopped while the other goes on for a moment.

What else a machine does slows both alike, which it does not where one is measured minutes after the other.
"""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import time
from collections.abc import Callable

import psutil

_SLICE_SECONDS = 0.5
_LOOK_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Training:
    """A program that trains epoch after epoch."""

    process: subprocess.Popen[str]
    images: int
    """Of an epoch."""
    ends: Callable[[], list[float]]
    """When the epochs ended that have, in seconds since 1970."""


def speeds(starts: list[Callable[[], Training]], *, seconds: float) -> list[float]:
    """Images/s of each program, from the end of its first epoch, which also compiles, and in its own slices only.

    Args:
        starts: start a program each.
        seconds: for which each trains in slices; several epochs of it.
    """
    trainings, trees = [], []
    for start in starts:
        training = start()
        _await_epoch(training)
        trainings.append(training)
        trees.append(_tree(training.process))
        _signal(trees[-1], signal.SIGSTOP)
    slices: list[list[tuple[float, float]]] = [[] for _ in trees]
    for turn in range(round(seconds / _SLICE_SECONDS)):
        for place in range(len(trees)) if turn % 2 else reversed(range(len(trees))):
            began = time.time()
            _signal(trees[place], signal.SIGCONT)
            time.sleep(_SLICE_SECONDS)
            _signal(trees[place], signal.SIGSTOP)
            slices[place].append((began, time.time()))
    measured = [_speed(training, own) for training, own in zip(trainings, slices, strict=True)]
    for tree in trees:
        _signal(tree, signal.SIGCONT)
    for training in trainings:
        training.process.terminate()
        training.process.communicate()
    return measured


def _await_epoch(training: Training) -> None:
    while not training.ends():
        if training.process.poll() is not None:
            raise RuntimeError(
                f"{training.process.args} failed:\n{training.process.communicate()[1][-3000:]}"
            )
        time.sleep(_LOOK_SECONDS)


def _tree(process: subprocess.Popen[str]) -> list[psutil.Process]:
    own = psutil.Process(process.pid)
    return [own, *own.children(recursive=True)]


def _signal(tree: list[psutil.Process], number: signal.Signals) -> None:
    for process in tree:
        process.send_signal(number)


def _speed(training: Training, slices: list[tuple[float, float]]) -> float:
    """Over the whole epochs that lie between the first and the last end within the slices."""
    ends = [end for end in training.ends() if slices[0][0] <= end]
    trained = sum(max(min(end, ends[-1]) - max(began, ends[0]), 0.0) for began, end in slices)
    return training.images * (len(ends) - 1) / trained
