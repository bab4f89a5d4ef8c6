"""What tandem costs: its steady images/s over the framework's own bare loop, in one process each.

Same network, optimizer, batch, images and threads; the two train in turns of half a second. With as many threads as the
machine has CPUs, the ratio also holds what Ray's own processes take of them; with one thread it is tandem's cost alone.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks import harness, slices
from benchmarks.slices import Training

THREADS = (1, 2)
CASES = [("tutorial_cnn", 128, 50_000, 40.0), ("resnet9", 64, 4096, 150.0)]
"""Network, batch size, images and seconds of training in turns; an epoch is long enough for one checkpoint to weigh
little."""
_MANY = 1000
HEADER = ["arm", "tandem", "bare", "ratio (lowest to highest pair)", "target"]


def main(*, pairs: int) -> None:
    """Measure both frameworks on both networks."""
    for threads in THREADS:
        counted = f"{threads} thread{'s' if threads > 1 else ''}"
        rows = []
        for case, framework in itertools.product(CASES, ("keras", "torch")):
            rows.append(_measure(*case, framework=framework, threads=threads, pairs=pairs))
            harness.keep(
                f"orchestration_{threads}",
                f"Orchestration cost, {counted}",
                "Images/s of one worker under tandem over the framework's bare loop in one process, "
                f"{counted} on both sides, Adam, in turns of half a second, median of {pairs} pairs of runs, "
                "first epoch left out: "
                + "; ".join(
                    f"{model}, batch {batch_size}, epochs of {images:,} images"
                    for model, batch_size, images, _ in CASES
                )
                + ".",
                HEADER,
                rows,
            )


def _measure(
    model: str, batch_size: int, images: int, seconds: float, *, framework: str, threads: int, pairs: int
) -> list[str]:
    path = harness.archive(images)
    print(f"{framework} {model}, {threads} threads")
    measured: dict[str, list[float]] = {"tandem": [], "bare": []}
    for pair in range(pairs):
        speeds = slices.speeds(
            [
                lambda: _tandem(framework, path, model, batch_size, images, threads),
                lambda: _bare(framework, path, model, batch_size, images, threads),
            ],
            seconds=seconds,
        )
        for name, speed in zip(measured, speeds, strict=True):
            measured[name].append(speed)
            print(f"  pair {pair + 1}, {name}: {speed:,.2f}", flush=True)
    return harness.row(f"{framework} {model}", measured["tandem"], measured["bare"], target=0.98)


def _tandem(framework: str, path: Path, model: str, batch_size: int, images: int, threads: int) -> Training:
    directory = Path(tempfile.mkdtemp())
    file = directory / "experiment.yaml"
    arm = {"framework": framework, "model": model, "batch_size": batch_size, "inputs": "symmetric"}
    experiment: dict[str, Any] = {
        "name": "bench",
        "storage": str(directory),
        "data": {"source": "npz", "path": str(path), "validation": 0},
        "arms": {"arm": arm | {"optimizer": "adam", "epochs": _MANY, "seeds": [0]}},
        "scale": {"cpus_per_worker": threads},
    }
    file.write_text(yaml.safe_dump(experiment))

    def ends() -> list[float]:
        found = [*directory.glob("bench/runs/*")]
        if not found or not (found[0] / "epochs.jsonl").exists():
            return []
        attempt, *_ = harness.lines(found[0] / "attempts.jsonl")
        return [
            attempt["started_at"] + epoch["seconds_since_start"]
            for epoch in harness.lines(found[0] / "epochs.jsonl")
        ]

    return Training(harness.start([harness.TANDEM, "run", str(file)], threads=threads), images, ends)


def _bare(framework: str, path: Path, model: str, batch_size: int, images: int, threads: int) -> Training:
    printed = Path(tempfile.mkdtemp()) / "printed"
    command = [str(harness.PEERS / f"bare_{framework}.py"), str(path), model]
    command += [str(batch_size), str(_MANY), str(threads)]
    with printed.open("w") as file:
        process = harness.start([harness.PYTHON, *command], threads=threads, stdout=file)

    def ends() -> list[float]:
        said = printed.read_text().splitlines()
        ended: list[float] = json.loads(said[-1])["ended_at"] if said else []
        return ended

    return Training(process, images // batch_size * batch_size, ends)
