"""What tandem costs: its steady images/s over the framework's own bare loop, in one process each.

Same network, optimizer, batch, images and threads. With as many threads as the machine has CPUs, the
ratio also holds what Ray's own processes take of them; with one thread it is tandem's cost alone.
"""

from __future__ import annotations

import itertools

from benchmarks import harness

THREADS = (1, 2)
CASES = [("tutorial_cnn", 128, 50_000, 3), ("resnet9", 64, 4096, 2)]
"""Network, batch size, images and epochs; an epoch is long enough for one checkpoint to weigh little."""
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
                f"{counted} on both sides, Adam, median of {pairs} alternating pairs, first epoch left out: "
                + "; ".join(
                    f"{model}, batch {batch_size}, epochs of {images:,} images"
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

    def ours() -> float:
        return harness.tandem_speed(
            framework, path, model=model, batch_size=batch_size, epochs=epochs, threads=threads
        )

    def bare() -> float:
        measured = harness.script(
            f"bare_{framework}.py", path, model, batch_size, epochs, threads, threads=threads
        )
        return harness.steady(measured["images_per_second"])

    print(f"{framework} {model}, {threads} threads")
    measured = harness.alternate({"tandem": ours, "bare": bare}, pairs)
    return harness.row(f"{framework} {model}", measured["tandem"], measured["bare"], target=0.98)
