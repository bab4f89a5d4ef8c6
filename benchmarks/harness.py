"""What all benchmarks share: CIFAR-10 as arrays, tandem and peers as subprocesses, pairs, results."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
import yaml

from orchestrator.execution import environment
from orchestrator.store.storage import Storage
from orchestrator.store.trial_records import SearchHistory, SearchRecords
from trainers.data import DataSpec, open_dataset

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "benchmarks" / "peers"
RESULTS = ROOT / "benchmarks" / "results"
PYTHON = sys.executable
_TRIES = 3
DATA = Path(os.environ.get("TANDEM_BENCH_DATA", ROOT.parent / "shared" / "data" / "cifar10"))


def archive(images: int | None = None) -> Path:
    """CIFAR-10, or the first images of its parts, as one .npz."""
    data = open_dataset(DataSpec(source="cifar10", path=str(DATA), validation=0))
    path = Path(tempfile.mkdtemp()) / "images.npz"
    np.savez(
        path,
        x_train=data.train_images[:images],
        y_train=data.train_labels[:images],
        x_test=data.test_images[:images],
        y_test=data.test_labels[:images],
    )
    return path


def steady(images_per_second: list[float]) -> float:
    """Median over the epochs after the first, which also compiles and fills caches."""
    return statistics.median(images_per_second[1:])


def script(name: str, *arguments: object, processes: int = 1, threads: int = 1) -> dict[str, Any]:
    """Run a peer's script, under torchrun for several processes, and parse its last line."""
    launcher = [PYTHON]
    if processes > 1:
        launcher = [PYTHON, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
        launcher += ["--master_port", str(free_port())]
    command = [*launcher, str(PEERS / name), *map(str, arguments)]
    for _ in range(_TRIES - 1):
        with contextlib.suppress(RuntimeError):  # a peer that crashes now and then is measured again
            return parse(finish(start(command, threads=threads)))
    return parse(finish(start(command, threads=threads)))


def keras_pair(name: str, *arguments: object, threads: int = 1) -> dict[str, Any]:
    """Run a Keras peer in two processes that share a TF_CONFIG."""
    workers = [f"localhost:{free_port()}" for _ in range(2)]
    processes = []
    for index in range(2):
        config = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        command = [PYTHON, str(PEERS / name), *map(str, arguments)]
        processes.append(start(command, threads=threads, TF_CONFIG=json.dumps(config)))
    outputs = [finish(process) for process in processes]
    return parse(outputs[0])


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return int(listener.getsockname()[1])


def start(
    command: list[str], *, threads: int, stdout: IO[str] | int = subprocess.PIPE, **variables: str
) -> subprocess.Popen[str]:
    """Start a command with a limit of threads; the project's packages can be imported.

    TensorFlow uses oneDNN's kernels on both sides, as tandem has it do on every processor.
    """
    settings = {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT), "TF_ENABLE_ONEDNN_OPTS": "1"}
    settings |= variables
    return subprocess.Popen(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=os.environ | settings
    )


def start_tandem(
    command: str, experiment: dict[str, Any], directory: Path, *, threads: int
) -> subprocess.Popen[str]:
    """Start a command on an experiment, without name and storage, that is called bench and kept in a directory."""
    file = directory / "experiment.yaml"
    file.write_text(yaml.safe_dump({"name": "bench", "storage": str(directory)} | experiment))
    return start([str(Path(PYTHON).with_name("tandem")), command, str(file)], threads=threads)


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a command and return what it printed.

    Raises:
        RuntimeError: it failed.
    """
    out, err = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args} failed:\n{err[-3000:]}")
    return out


def parse(output: str) -> dict[str, Any]:
    """The last line of JSON that was printed."""
    line = next(line for line in reversed(output.splitlines()) if line.startswith("{"))
    document: dict[str, Any] = json.loads(line)
    return document


@dataclasses.dataclass(frozen=True)
class TandemSweep:
    """The search of the only arm of one `tandem sweep`, as its log tells it."""

    history: SearchHistory
    seconds: float
    """From asking for workers to the last trial's end."""
    first_step_at: float
    """When the first trial took its first step, in seconds since 1970."""

    @property
    def steady_seconds(self) -> float:
        """From the first trial's first step to the last trial's end."""
        return float(max(trial.epochs[-1]["time"] for trial in self.history.trials) - self.first_step_at)

    def best_within(self, seconds: float) -> float:
        """The best validation accuracy of the trials that had ended so long after the first step."""
        return max(
            (trial.value("validation_accuracy") or 0.0)
            for trial in self.history.trials
            if trial.epochs[-1]["time"] - self.first_step_at <= seconds
        )


def tandem_sweep(experiment: dict[str, Any], *, modules: dict[str, str] | None = None) -> TandemSweep:
    """Sweep an experiment of one arm in a directory of its own, with a user's modules beside it."""
    directory = Path(tempfile.mkdtemp())
    for name, text in (modules or {}).items():
        (directory / name).write_text(text)
    finish(start_tandem("sweep", experiment, directory, threads=1))
    (search,) = (directory / "bench" / "sweep").iterdir()
    history = SearchRecords(Storage(str(search))).history()
    attempts = [
        json.loads((run / "attempts.jsonl").read_text().splitlines()[0])
        for run in (search / "runs").iterdir()
    ]
    first = min(attempt["started_at"] + attempt["startup"]["build_seconds"] for attempt in attempts)
    shutil.rmtree(directory)
    return TandemSweep(history, history.seconds, first)


@dataclasses.dataclass(frozen=True)
class TandemRun:
    """One `tandem run` of one experiment and what its records say."""

    seconds: float
    """From the command's start to its end."""
    started_at: float
    runs: list[dict[str, Any]]
    """In order of training: id, epochs, attempts, result."""


def tandem(experiment: dict[str, Any], *, kept_in: Path | None = None) -> TandemRun:
    """Run an experiment in a directory of its own.

    Args:
        experiment: its fields, without name and storage.
        kept_in: where to leave it if it is interrupted, so that the next call goes on with it.
    """
    directory = kept_in or Path(tempfile.mkdtemp())
    directory.mkdir(parents=True, exist_ok=True)
    started = time.time()
    finish(start_tandem("run", experiment, directory, threads=int(experiment["scale"]["cpus_per_worker"])))
    seconds = time.time() - started
    runs = [_read(run) for run in (directory / "bench" / "runs").iterdir()]
    shutil.rmtree(directory)
    return TandemRun(seconds, started, sorted(runs, key=lambda run: run["attempts"][0]["started_at"]))


def lines(file: Path) -> list[Any]:
    """The records of a .jsonl file."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def _read(run: Path) -> dict[str, Any]:
    return {
        "id": run.name,
        "epochs": lines(run / "epochs.jsonl"),
        "attempts": lines(run / "attempts.jsonl"),
        "result": json.loads((run / "result.json").read_text()),
    }


def tandem_speed(experiment: dict[str, Any]) -> float:
    """Tandem's steady images/s in an experiment of one run."""
    return steady(speeds(tandem(experiment).runs[0]))


def simple_experiment(
    framework: str,
    path: Path,
    *,
    model: str,
    batch_size: int,
    epochs: int,
    threads: int,
    workers: int = 1,
) -> dict[str, Any]:
    """One arm on an archive, one seed, with Adam and workers of some threads each."""
    arm = {"framework": framework, "model": model, "batch_size": batch_size, "inputs": "symmetric"}
    return {
        "data": {"source": "npz", "path": str(path), "validation": 0},
        "arms": {"arm": arm | {"optimizer": "adam", "epochs": epochs, "seeds": [0]}},
        "scale": {"workers": workers, "cpus_per_worker": threads},
    }


def speeds(run: dict[str, Any]) -> list[float]:
    """Images/s of each epoch of a run."""
    return [epoch["images_per_second"] for epoch in run["epochs"]]


def alternate(sides: dict[str, Callable[[], float]], pairs: int) -> dict[str, list[float]]:
    """Measure every side in turn, `pairs` times."""
    measured: dict[str, list[float]] = {name: [] for name in sides}
    for pair in range(pairs):
        for name, measure in sides.items():
            measured[name].append(measure())
            print(f"  pair {pair + 1}, {name}: {measured[name][-1]:,.2f}", flush=True)
    return measured


def row(what: str, ours: list[float], theirs: list[float], *, target: float, least: bool = True) -> list[str]:
    """A table's row: medians, the median of the paired ratios with its range, target met or missed."""
    ratios = sorted(mine / other for mine, other in zip(ours, theirs, strict=True))
    ratio = statistics.median(ratios)
    met = ratio >= target if least else ratio <= target
    print(f"{what}: median ratio {ratio:.3f} ({'met' if met else 'missed'})", flush=True)
    return [
        what,
        f"{statistics.median(ours):,.1f}",
        f"{statistics.median(theirs):,.1f}",
        f"**{ratio:.3f}** ({ratios[0]:.3f} to {ratios[-1]:.3f})",
        f"{'≥' if least else '≤'} {target:g}: {'met' if met else 'missed'}",
    ]


def keep(name: str, title: str, text: str, header: list[str], rows: Iterable[list[str]]) -> None:
    """Keep a benchmark's table and write RESULTS.md anew."""
    RESULTS.mkdir(exist_ok=True)
    document = {
        "title": title,
        "text": text,
        "header": header,
        "rows": list(rows),
        "date": time.strftime("%Y-%m-%d"),
        "environment": _environment(),
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    write()


@functools.cache
def _environment() -> dict[str, Any]:
    """The machine and the commit, described before a kept table itself changes a file of it."""
    return environment.describe()


def write() -> None:
    """Write RESULTS.md from all tables that are kept."""
    parts = ["# Benchmark results\n"]
    for path in sorted(RESULTS.glob("*.json")):
        kept = json.loads(path.read_text())
        machine = kept["environment"]
        packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items() if number)
        lines = [kept["header"], ["---"] * len(kept["header"]), *kept["rows"]]
        parts += [
            f"## {kept['title']}\n",
            f"{kept['text']}\n",
            "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n",
            f"Measured {kept['date']} on {machine['cpu']}, {machine['cpus']} CPUs, "
            f"{machine['memory_gib']} GiB, GPUs: {', '.join(machine['gpus']) or 'none'}; Python "
            f"{machine['python']}, {packages}.\n",
        ]
    (ROOT / "benchmarks" / "RESULTS.md").write_text("\n".join(parts))
