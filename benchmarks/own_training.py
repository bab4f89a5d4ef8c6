"""What an arm of the user's own costs: a training function under `tandem run` over the same function in a script."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.results import Measured, Ratio, Results, table

TITLE = "Own training functions"
_THREADS = 1


def settings(options: harness.Options) -> dict[str, Any]:
    """Sizes of everything."""
    return {
        "pairs": options.pairs,
        "epochs": 2 if options.smoke else 4,
        "images": 256 if options.smoke else 12_800,
        "batch_size": 128,
    }


def measure(settings: dict[str, Any], results: Results, data: Path) -> None:
    """Measure each pair; every second one starts with the script."""
    images, epochs, batch_size = settings["images"], settings["epochs"], settings["batch_size"]
    archive = harness.archive(data, images)

    def timed(times: Path, started_at: float) -> dict[str, float]:
        reports = [float(line) for line in times.read_text().split()]
        return {
            "images_per_second": harness.images_per_second(images, reports),
            "first_report_seconds": reports[0] - started_at,
        }

    def tandem() -> dict[str, float]:
        with tempfile.TemporaryDirectory() as directory:
            times = Path(directory) / "times"
            config = {
                "archive": str(archive),
                "batch_size": batch_size,
                "epochs": epochs,
                "threads": _THREADS,
                "times": str(times),
            }
            arm = {
                "train_loop": "benchmarks.peers.own_training:train_loop",
                "trainer": "torch",
                "config": config,
                "seeds": [0],
            }
            experiment = {
                "metric": {"name": "train_loss", "goal": "minimize"},
                "arms": {"own": arm},
                "scale": {"workers": 1, "cpus_per_worker": _THREADS},
            }
            started_at = time.time()
            harness.run_in(Path(directory), "run", experiment)
            return timed(times, started_at)

    def script() -> dict[str, float]:
        with tempfile.TemporaryDirectory() as directory:
            times = Path(directory) / "times"
            started_at = time.time()
            harness.script(
                "own_training", archive, batch_size, epochs, _THREADS, times, threads=_THREADS, niceness=0
            )
            return timed(times, started_at)

    for pair in range(1, settings["pairs"] + 1):
        results.once(
            lambda pair=pair: harness.alternate({"tandem": tandem, "script": script}, pair),
            pair=pair,
        )


def show(measured: Measured) -> str:
    """Tandem over the script."""
    pairs = measured.values()
    rows = []
    for name, what, bounds, band in (
        ("images_per_second", "images/s", {"at_least": 0.95, "at_most": 1.05}, "0.95 to 1.05"),
        (
            "first_report_seconds",
            "seconds from the command to the first report",
            {"at_most": 1.2},
            "at most 1.2",
        ),
    ):
        tandem, script = ([pair[side][name] for pair in pairs] for side in ("tandem", "script"))
        ratio = Ratio.of(tandem, script)
        rows.append([what, *harness.medians(tandem, script), str(ratio), band, ratio.verdict(**bounds)])
    return (
        "One training function of PyTorch, `benchmarks/peers/own_training.py`, as an arm under `tandem run` and in a "
        "script that calls `TorchTrainer(...).fit()`: one worker, "
        f"{measured.settings['epochs']} epochs of {measured.settings['images']:,} images in batches of "
        f"{measured.settings['batch_size']}, a checkpoint each. Median of {measured.settings['pairs']} alternating "
        "pairs, with the lowest and the highest.\n\n"
        + table(["", "tandem", "script", "tandem / script", "band", ""], rows)
    )
