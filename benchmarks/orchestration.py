"""What tandem costs: images/s of its runs over those of the same training code without tandem.

One pair is one `tandem run` of an experiment with a Keras and a PyTorch arm, beside the two bare loops, a process
each: `peers/bare_keras.py` (the loop of Keras' guide to custom training, whose step tandem's workers take, too) and
`peers/bare_torch.py`. Network, batches, optimizer, threads and environment variables are the same.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.results import Measured, Ratio, Results, table

TITLE = "Orchestration"
FRAMEWORKS = ("keras", "torch")
CASES = {
    "tutorial_cnn": {"batch_size": 128, "images_per_thread": 12_800},
    "resnet9": {"batch_size": 64, "images_per_thread": 384},
}
"""Sizes of an epoch that take some five seconds on a core of 2020."""


def settings(options: harness.Options) -> dict[str, Any]:
    """Sizes of everything."""
    cases = {model: case | {"images_per_thread": case["batch_size"]} for model, case in CASES.items()}
    return {
        "pairs": options.pairs,
        "threads": [1, 2],
        "epochs": 2 if options.smoke else 3,
        "cases": cases if options.smoke else CASES,
    }


def measure(settings: dict[str, Any], results: Results, data: Path) -> None:
    """Measure each pair; every second one starts with the bare loops."""
    for (model, case), threads in itertools.product(settings["cases"].items(), settings["threads"]):
        images = case["images_per_thread"] * threads
        path = harness.archive(data, images)

        def tandem(model=model, case=case, threads=threads, images=images, path=path) -> dict[str, float]:
            experiment = experiment_on(path, model, case["batch_size"], settings["epochs"], threads=threads)
            done = harness.tandem("run", experiment)
            return {
                name: harness.images_per_second(images, done.run_of(name).epoch_ends) for name in FRAMEWORKS
            }

        def bare(model=model, case=case, threads=threads, images=images, path=path) -> dict[str, float]:
            arguments = (path, model, case["batch_size"], settings["epochs"], threads)
            printed = {
                name: harness.script(f"bare_{name}", *arguments, threads=threads) for name in FRAMEWORKS
            }
            return {
                name: harness.images_per_second(images, each["epoch_ends"]) for name, each in printed.items()
            }

        for pair in range(1, settings["pairs"] + 1):
            results.once(
                lambda pair=pair: harness.alternate({"tandem": tandem, "bare": bare}, pair),
                model=model,
                threads=threads,
                pair=pair,
            )


def experiment_on(
    path: Path, model: str, batch_size: int, epochs: int, *, threads: int, workers: int = 1
) -> dict[str, Any]:
    """An experiment of one Keras and one PyTorch arm, one seed each, one after the other."""
    return {
        "data": {"source": "npz", "path": str(path), "validation": 0},
        "defaults": {
            "model": model,
            "batch_size": batch_size,
            "epochs": epochs,
            "optimizer": "adam",
            "inputs": "symmetric",
            "seeds": [0],
        },
        "arms": {name: {"framework": name} for name in FRAMEWORKS},
        "scale": {"workers": workers, "cpus_per_worker": threads, "concurrent_runs": 1},
        "corruption_robustness": False,
    }


def show(measured: Measured) -> str:
    """Tandem over bare for each case, and Keras over PyTorch under both."""
    rows, between = [], []
    for model, threads in itertools.product(measured.settings["cases"], measured.settings["threads"]):
        pairs = measured.values(model=model, threads=threads)
        if not pairs:
            continue
        what = f"`{model}`, {threads} thread{'s' if threads > 1 else ''}"
        for name in FRAMEWORKS:
            tandem, bare = ([pair[side][name] for pair in pairs] for side in ("tandem", "bare"))
            ratio = Ratio.of(tandem, bare)
            verdict = ratio.verdict(at_least=0.95, at_most=1.05)
            rows.append([f"{name}, {what}", *harness.medians(tandem, bare), str(ratio), verdict])
        tandem, bare = (
            [pair[side]["keras"] / pair[side]["torch"] for pair in pairs] for side in ("tandem", "bare")
        )
        ratio = Ratio.of(tandem, bare)
        verdict = ratio.verdict(at_least=0.9, at_most=1.1)
        between.append([what, *harness.medians(tandem, bare, digits=2), str(ratio), verdict])
    sizes = "; ".join(
        f"`{model}`, batch {case['batch_size']}, epochs of {case['images_per_thread']:,} images for each thread"
        for model, case in measured.settings["cases"].items()
    )
    return (
        "Images/s of one worker under `tandem run` over those of the framework's bare loop in one process: "
        "`benchmarks/peers/bare_keras.py`, the loop of Keras' guide to custom training, and "
        "`benchmarks/peers/bare_torch.py`. Both sides take the same steps on the same batches, with as many threads "
        f"and the same environment variables: Adam; {sizes}. Whole epochs without the first; tandem's include "
        f"checkpoints and records. Median of {measured.settings['pairs']} alternating pairs, with the lowest and the "
        "highest.\n\n"
        + table(["arm", "tandem", "bare", "tandem / bare", "0.95 to 1.05"], rows)
        + "\n\nKeras' images/s over PyTorch's, from the same pairs:\n\n"
        + table(["case", "tandem", "bare", "tandem / bare", "0.9 to 1.1"], between)
    )
