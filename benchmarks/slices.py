"""Programs that train at once, each stopped while another goes on for a moment.

What else a machine does slows all alike, which it does not where one is measured minutes after the other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

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


def alternate(
    sides: dict[str, Callable[[Path], Training]], pairs: int, *, epochs: int
) -> dict[str, list[float]]:
    """Measure all sides `pairs` times, as `speeds` does.

    Args:
        sides: start a program each, in the directory that it is given.
        pairs: how often.
        epochs: of each at least, after its first.
    """
    measured: dict[str, list[float]] = {name: [] for name in sides}
    for pair in range(pairs):
        with tempfile.TemporaryDirectory() as scratch:
            starts = []
            for name, start in sides.items():
                directory = Path(scratch) / name
                directory.mkdir()
                starts.append(functools.partial(start, directory))
            for name, speed in zip(sides, speeds(starts, epochs=epochs), strict=True):
                measured[name].append(speed)
                print(f"  pair {pair + 1}, {name}: {speed:,.2f}", flush=True)
    return measured


def speeds(starts: Sequence[Callable[[], Training]], *, epochs: int) -> list[float]:
    """Images/s of each program over whole epochs in its own slices, after one that also compiles.

    Args:
        starts: start a program each.
        epochs: that each trains after its first at least.
    """
    trainings: list[Training] = []
    trees: list[list[psutil.Process]] = []
    slices: list[list[tuple[float, float]]] = []
    try:
        for start in starts:
            trainings.append(start())
            began = _first_end(trainings[-1])
            trees.append(_tree(trainings[-1].process))
            slices.append([(began, time.time())])
            _stop(trees[-1])
        places = range(len(trees))
        while any(len(training.ends()) <= epochs for training in trainings):
            for training in trainings:
                _require_running(training)
            for place in [*places, *reversed(places)]:
                slices[place].append(_go_on(trees[place]))
        return [_speed(*side) for side in zip(trainings, slices, strict=True)]
    finally:
        for tree in trees:
            _signal(tree, signal.SIGCONT)
        for training in trainings:
            training.process.terminate()
            training.process.communicate()


def _first_end(training: Training) -> float:
    while not (ends := training.ends()):
        _require_running(training)
        time.sleep(_LOOK_SECONDS)
    return ends[0]


def _require_running(training: Training) -> None:
    if training.process.poll() is not None:
        raise RuntimeError(f"{training.process.args} failed:\n{training.process.communicate()[1][-3000:]}")


def _tree(process: subprocess.Popen[str]) -> list[psutil.Process]:
    own = psutil.Process(process.pid)
    return sorted([own, *own.children(recursive=True)], key=psutil.Process.create_time)


def _go_on(tree: list[psutil.Process]) -> tuple[float, float]:
    """Let a program run for a slice; its time counts from when all of it goes on until a part of it is stopped.

    To signal the processes of a program one after the other takes milliseconds where all CPUs are busy.
    """
    _signal(tree, signal.SIGCONT)
    began = time.time()
    time.sleep(_SLICE_SECONDS)
    ended = time.time()
    _stop(tree)
    return began, ended


def _stop(tree: list[psutil.Process]) -> None:
    """Stop first what was started last, which is what trains."""
    _signal(tree[::-1], signal.SIGSTOP)


def _signal(tree: list[psutil.Process], number: signal.Signals) -> None:
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _speed(training: Training, slices: list[tuple[float, float]]) -> float:
    ends = training.ends()
    trained = sum(max(min(end, ends[-1]) - max(began, ends[0]), 0.0) for began, end in slices)
    return training.images * (len(ends) - 1) / trained
