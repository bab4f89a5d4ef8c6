"""How benchmarks run things: tandem and the scripts beside it as commands, on CIFAR-10."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.peers import cifar10
from trainers.machine import preset

ROOT = Path(__file__).resolve().parent.parent
SCRATCH = ROOT / "build" / "benchmarks"
RAY_NICENESS = 15
"""Ray starts its workers with it; a bare loop at 0 would keep its core where anything else runs, and they would not."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says."""

    data: Path
    """Directory of CIFAR-10's Parquet files."""
    pairs: int
    epochs: int
    """Of the tutorials, on both sides."""
    smoke: bool
    """Sizes that only show that a benchmark works."""


def archive(data: Path, images: int) -> Path:
    """The first training images of CIFAR-10, and 1,000 test images at most, as one .npz."""
    path = SCRATCH / f"cifar10-{images}.npz"
    if not path.exists():
        (x_train, y_train), (x_test, y_test) = cifar10.read(data, "train"), cifar10.read(data, "test")
        SCRATCH.mkdir(parents=True, exist_ok=True)
        np.savez(
            path,
            x_train=x_train[:images],
            y_train=y_train[:images],
            x_test=x_test[:1000],
            y_test=y_test[:1000],
        )
    return path


def start(command: list[str], **variables: str) -> subprocess.Popen[str]:
    """Start a command from which the project can be imported."""
    settings = {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | settings
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a command and return what it printed.

    Raises:
        RuntimeError: it failed.
    """
    out, err = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args} failed:\n{out[-1000:]}\n{err[-3000:]}")
    return out


def script(
    name: str, *arguments: object, threads: int, processes: int = 1, niceness: int = RAY_NICENESS
) -> dict[str, Any]:
    """Run a script of `benchmarks/peers` and return the JSON of its last line.

    Args:
        name: of its module.
        arguments: of the script.
        threads: of each process, whose environment is the preset of tandem's workers.
        processes: more than one are started by torchrun.
        niceness: of the processes; 0 for a script that starts Ray itself.
    """
    launcher = ["nice", "-n", str(niceness), sys.executable, "-m"]
    if processes > 1:
        launcher += ["torch.distributed.run", f"--nproc_per_node={processes}", f"--master_port={free_port()}"]
        launcher += ["-m"]
    process = start(
        [*launcher, f"benchmarks.peers.{name}", *map(str, arguments)], **preset.environment(threads)
    )
    return _last_line(finish(process))


def script_pair(name: str, *arguments: object, threads: int) -> dict[str, Any]:
    """Run a script in two processes that share a TF_CONFIG; returns what the first of them printed last."""
    workers = [f"localhost:{free_port()}" for _ in range(2)]
    command = ["nice", "-n", str(RAY_NICENESS), sys.executable, "-m", f"benchmarks.peers.{name}"]
    command += map(str, arguments)
    processes = []
    for index in range(2):
        cluster = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        variables = preset.environment(threads) | {"TF_CONFIG": json.dumps(cluster)}
        processes.append(start(command, **variables))
    first, _ = [finish(process) for process in processes]
    return _last_line(first)


def free_port() -> int:
    """A TCP port that no process listens on."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return int(listener.getsockname()[1])


def _last_line(output: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(output.splitlines()[-1])
    return document


@dataclasses.dataclass(frozen=True)
class Run:
    """One trained run, from its records."""

    arm: str
    attempt: dict[str, Any]
    """The first: when it started, and what start-up took."""
    epochs: list[dict[str, Any]]
    result: dict[str, Any] | None
    """The final test; None for a trial of a sweep."""

    @property
    def first_step_at(self) -> float:
        """Seconds since 1970."""
        return float(self.attempt["started_at"] + self.attempt["startup"]["build_seconds"])

    @property
    def epoch_ends(self) -> list[float]:
        """When each epoch was over, checkpoint included, in seconds since 1970."""
        return [self.attempt["started_at"] + epoch["seconds_since_start"] for epoch in self.epochs]


@dataclasses.dataclass(frozen=True)
class Command:
    """A finished `tandem run` or `tandem sweep`."""

    started_at: float
    seconds: float
    runs: list[Run]
    """By start. For a sweep these are the trials."""

    def run_of(self, arm: str) -> Run:
        """The only run of an arm."""
        (run,) = [run for run in self.runs if run.arm == arm]
        return run


def tandem(
    verb: str,
    experiment: dict[str, Any] | Path,
    *overrides: str,
    keep: Path | None = None,
    modules: dict[str, str] | None = None,
) -> Command:
    """Run `tandem run` or `tandem sweep` in a directory of its own, and read its records.

    Args:
        verb: run or sweep.
        experiment: a file, or the fields of one.
        overrides: of fields, as for `--set`.
        keep: storage that survives an interruption, so that the next call resumes; removed at the end.
        modules: files that the experiment's own functions are in, and their text.
    """
    directory = keep or Path(tempfile.mkdtemp(prefix="tandem-benchmark-"))
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in (modules or {}).items():
        (directory / name).write_text(text)
    started = time.time()
    run_in(directory, verb, experiment, *overrides)
    seconds = time.time() - started
    pattern = "*/sweep/*/runs/*" if verb == "sweep" else "*/runs/*"
    runs = [_read(run) for run in directory.glob(pattern)]
    shutil.rmtree(directory)
    return Command(started, seconds, sorted(runs, key=lambda run: run.attempt["started_at"]))


def run_in(directory: Path, verb: str, experiment: dict[str, Any] | Path, *overrides: str) -> None:
    """Run `tandem run` or `tandem sweep` with its results in a directory.

    Raises:
        RuntimeError: it failed.
    """
    file = experiment
    if not isinstance(file, Path):
        file = directory / "experiment.yaml"
        file.write_text(yaml.safe_dump({"name": "benchmark"} | experiment))
    command = [str(Path(sys.executable).with_name("tandem")), verb, str(file)]
    for override in [f"storage={directory}", *overrides]:
        command += ["--set", override]
    finish(start(command))


def _read(directory: Path) -> Run:
    def lines(name: str) -> list[Any]:
        return [json.loads(line) for line in (directory / name).read_text().splitlines()]

    description, result = directory / "run.json", directory / "result.json"
    return Run(
        json.loads(description.read_text())["arm"] if description.exists() else "",
        lines("attempts.jsonl")[0],
        lines("epochs.jsonl"),
        json.loads(result.read_text()) if result.exists() else None,
    )


def example(name: str, data: Path, framework: str, seed: int) -> dict[str, Any]:
    """One arm and one seed of a file in examples/, whose arms are named after their frameworks."""
    experiment: dict[str, Any] = yaml.safe_load((ROOT / "examples" / f"{name}.yaml").read_text())
    del experiment["name"]
    experiment["data"]["path"] = str(data)
    experiment["arms"] = {framework: experiment["arms"][framework] | {"seeds": [seed]}}
    return experiment


def images_per_second(images: int, epoch_ends: list[float]) -> float:
    """Over whole epochs, checkpoints included, without the first epoch, which also compiles and fills caches."""
    return images * (len(epoch_ends) - 1) / (epoch_ends[-1] - epoch_ends[0])


def alternate(sides: dict[str, Callable[[], Any]], pair: int) -> dict[str, Any]:
    """Measure all sides once, in this order in odd pairs and in reverse in even ones."""
    order = list(sides) if pair % 2 else list(reversed(sides))
    measured = {name: sides[name]() for name in order}
    return {name: measured[name] for name in sides}


def medians(*sides: Sequence[float], digits: int = 1) -> list[str]:
    """The median of each side, for a table."""
    return [f"{statistics.median(side):,.{digits}f}" for side in sides]
