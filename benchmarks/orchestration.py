"""What tandem costs: its steady images/s over the framework's own bare loop, in one process each.

Same network, optimizer, batch, images and threads. With as many threads as the machine has CPUs, the
ratio also holds what Ray's own processes take of them; with one thread it is tandem's cost alone.
"""

from __future__ import annotations

import itertools

from benchmarks import harness

THREADS = (1, 2)
CASES = [("tutorial_cnn", 128, 8192), ("resnet9", 64, 256)]
HEADER = ["arm", "tandem", "bare", "ratio (lowest to highest pair)", "target"]


def main(*, pairs: int) -> None:
    """Measure both frameworks on both networks."""
    rows = []
    for model, batch_size, images in CASES:
        path = harness.archive(images)
        for framework, threads in itertools.product(("keras", "torch"), THREADS):
            arm = {"framework": framework, "model": model, "batch_size": batch_size, "inputs": "symmetric"}

            def ours(arm: dict[str, object] = arm, path: object = path, threads: int = threads) -> float:
                done = harness.tandem(
                    {
                        "data": {"source": "npz", "path": str(path), "validation": 0},
                        "arms": {"arm": arm | {"optimizer": "adam", "epochs": 4, "seeds": [0]}},
                        "scale": {"cpus_per_worker": threads},
                    }
                )
                return harness.steady(harness.speeds(done.runs[0]))

            def bare(
                framework: str = framework,
                arguments: tuple[object, ...] = (path, model, batch_size),
                threads: int = threads,
            ) -> float:
                measured = harness.script(f"bare_{framework}.py", *arguments, 4, threads, threads=threads)
                return harness.steady(measured["images_per_second"])

            what = f"{framework} {model}, threads: {threads}"
            print(what)
            measured = harness.alternate({"tandem": ours, "bare": bare}, pairs)
            rows.append(harness.row(what, measured["tandem"], measured["bare"], target=0.98))
    harness.keep(
        "orchestration",
        "Orchestration cost",
        "Images/s of one worker under tandem over the framework's bare loop in one process, as many threads "
        f"on both sides, Adam, batch 128 (resnet9: 64), median of {pairs} alternating pairs, first epoch "
        "left out.",
        HEADER,
        rows,
    )
