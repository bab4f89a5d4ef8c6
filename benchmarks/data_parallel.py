"""Two workers of one thread each: tandem beside torchrun, Accelerate, Lightning and MultiWorkerMirroredStrategy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.orchestration import experiment_on
from benchmarks.results import Measured, Ratio, Results, table

TITLE = "Data-parallel training"
_PEERS = {
    "torchrun": ("torch", "PyTorch: DDP under torchrun"),
    "accelerate": ("torch", "PyTorch: Accelerate"),
    "lightning": ("torch", "PyTorch: Lightning"),
    "mirrored": ("keras", "Keras: MultiWorkerMirroredStrategy"),
}


def settings(options: harness.Options) -> dict[str, Any]:
    """Sizes of everything."""
    return {
        "pairs": options.pairs,
        "model": "tutorial_cnn",
        "batch_size": 128,
        "images": 256 if options.smoke else 25_600,
        "epochs": 2 if options.smoke else 3,
    }


def measure(settings: dict[str, Any], results: Results, data: Path) -> None:
    """Measure tandem and all peers once for each pair."""
    images, batch_size, epochs = settings["images"], settings["batch_size"], settings["epochs"]
    path = harness.archive(data, images)
    arguments = (path, settings["model"], batch_size, epochs, 1)

    def tandem() -> dict[str, float]:
        done = harness.tandem("run", experiment_on(*arguments[:4], threads=1, workers=2))
        return {run.arm: harness.images_per_second(images, run.epoch_ends) for run in done.runs}

    def torchrun(script: str) -> float:
        printed = harness.script(script, *arguments, threads=1, processes=2)
        return harness.images_per_second(images, printed["epoch_ends"])

    def mirrored() -> float:
        printed = harness.script_pair("bare_keras", *arguments, threads=1)
        return harness.images_per_second(images, printed["epoch_ends"])

    sides = {
        "tandem": tandem,
        "torchrun": lambda: torchrun("bare_torch"),
        "accelerate": lambda: torchrun("accelerate_torch"),
        "lightning": lambda: torchrun("lightning_torch"),
        "mirrored": mirrored,
    }
    for pair in range(1, settings["pairs"] + 1):
        results.once(lambda pair=pair: harness.alternate(sides, pair), pair=pair)


def show(measured: Measured) -> str:
    """Tandem over each peer."""
    settings, pairs = measured.settings, measured.values()
    rows = []
    for peer, (framework, title) in _PEERS.items():
        tandem, other = [pair["tandem"][framework] for pair in pairs], [pair[peer] for pair in pairs]
        rows.append([title, *harness.medians(tandem, other), str(Ratio.of(tandem, other))])
    return (
        f"Images/s of two workers with one thread each, `{settings['model']}`, Adam, global batch "
        f"{settings['batch_size']}, whole epochs of {settings['images']:,} images without the first. Median of "
        f"{settings['pairs']} alternating rounds, with the lowest and the highest. Accelerate and Lightning load "
        "batches with PyTorch's `DataLoader`, as their guides do.\n\n"
        + table(["peer", "tandem", "peer", "tandem / peer"], rows)
    )
