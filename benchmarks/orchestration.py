"""What tandem costs: its steady images/s over the framework's own bare loop, in one process each.

Same network, optimizer, batch, images and threads; the two train in turns of half a second. With as many threads as the
machine has CPUs, the ratio also holds what Ray's own processes take of them; with one thread it is tandem's cost alone.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from benchmarks import harness, slices
from benchmarks.slices import Training

THREADS = (1, 2)
CASES = [("tutorial_cnn", 128, 25_000, 3), ("resnet9", 64, 2048, 1)]
"""Network, batch size, images per thread and epochs in turns, long enough for one checkpoint to weigh little."""
_ASKED_EPOCHS = 1000
"""More than either side trains before it is ended."""
HEADER = ["arm", "tandem", "bare", "ratio (lowest to highest pair)", "target"]


def main(*, pairs: int) -> None:
    """Measure both frameworks on both networks."""
    for threads in THREADS:
        counted = f"{threads} thread{'s' if threads > 1 else ''}"
        rows = []
        for (model, batch_size, images, epochs), framework in itertools.product(CASES, ("keras", "torch")):
            measured = _measure(
                model,
                batch_size,
                images * threads,
                epochs,
                framework=framework,
                threads=threads,
                pairs=pairs,
            )
            rows.append(measured)
            harness.keep(
                f"orchestration_{threads}",
                f"Orchestration cost, {counted}",
                "Images/s of one worker under tandem over the framework's bare loop in one process, "
                f"{counted} on both sides, Adam, in turns of half a second, median of {pairs} pairs of runs, "
                "first epoch left out: "
                + "; ".join(
                    f"{model}, batch {batch_size}, epochs of {images * threads:,} images"
                    for model, batch_size, images, _ in CASES
                )
                + ".",
                HEADER,
                rows,
            )


def _measure(
    model: str, batch_size: int, images: int, epochs: int, *, framework: str, threads: int, pairs: int
) -> list[str]:
    path = harness.archive(images)
    experiment = harness.simple_experiment(
        framework, path, model=model, batch_size=batch_size, epochs=_ASKED_EPOCHS, threads=threads
    )
    script = [str(harness.PEERS / f"bare_{framework}.py"), str(path), model]
    command = [harness.PYTHON, *script, str(batch_size), str(_ASKED_EPOCHS), str(threads)]
    print(f"{framework} {model}, {threads} threads")
    whole = images // batch_size * batch_size
    measured = slices.alternate(
        {
            "tandem": lambda directory: _tandem(experiment, directory, images=images, threads=threads),
            "bare": lambda directory: _bare(command, directory, images=whole, threads=threads),
        },
        pairs,
        epochs=epochs,
    )
    return harness.row(f"{framework} {model}", measured["tandem"], measured["bare"], target=0.98)


def _tandem(experiment: dict[str, Any], directory: Path, *, images: int, threads: int) -> Training:
    def ends() -> list[float]:
        return [
            attempt["started_at"] + epoch["seconds_since_start"]
            for run in directory.glob("bench/runs/*")
            if (run / "epochs.jsonl").exists()
            for attempt in harness.lines(run / "attempts.jsonl")
            for epoch in harness.lines(run / "epochs.jsonl")
        ]

    return Training(harness.start_tandem("run", experiment, directory, threads=threads), images, ends)


def _bare(command: list[str], directory: Path, *, images: int, threads: int) -> Training:
    printed = directory / "printed"
    with printed.open("w") as file:
        process = harness.start(command, threads=threads, stdout=file)

    def ends() -> list[float]:
        said = printed.read_text()
        ended: list[float] = harness.parse(said)["ended_at"] if "{" in said else []
        return ended

    return Training(process, images, ends)
