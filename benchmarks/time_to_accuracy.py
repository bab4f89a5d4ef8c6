"""Time of examples/fast.yaml to the published tutorials' accuracy, beside the tutorials' plain scripts."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.results import Measured, Ratio, Results, table

TITLE = "Time to the tutorials' accuracy"
FRAMEWORKS = ("keras", "torch")


def settings(options: harness.Options) -> dict[str, Any]:
    """Epochs of the scripts; the example has its own."""
    return {"pairs": options.pairs, "epochs": 1 if options.smoke else options.epochs, "threads": 2}


def measure(settings: dict[str, Any], results: Results, data: Path) -> None:
    """Measure each pair with a seed of its own."""
    epochs, threads = settings["epochs"], settings["threads"]
    for name, pair in itertools.product(FRAMEWORKS, range(1, settings["pairs"] + 1)):
        sides = {
            "tandem": lambda name=name, pair=pair: _fast(data, name, threads, seed=pair),
            "script": lambda name=name, pair=pair: _script(data, name, epochs, threads, seed=pair),
        }
        results.once(lambda pair=pair, sides=sides: harness.alternate(sides, pair), framework=name, pair=pair)


def _fast(data: Path, framework: str, threads: int, *, seed: int) -> dict[str, float]:
    experiment = harness.example("fast", data, framework, seed)
    experiment["scale"]["cpus_per_worker"] = threads
    done = harness.tandem("run", experiment)
    (run,) = done.runs
    return {
        "test_accuracy": run.result["test_accuracy"],
        "train_seconds": run.epoch_ends[-1] - run.first_step_at,
        "seconds": done.seconds,
    }


def _script(data: Path, framework: str, epochs: int, threads: int, *, seed: int) -> dict[str, float]:
    started = time.time()
    printed = harness.script(f"tutorial_{framework}", data, epochs, threads, seed, threads=threads)
    return printed | {"seconds": time.time() - started}


def show(measured: Measured) -> str:
    """Seconds of training and of whole commands, and what accuracy they reached."""
    rows = []
    for name in FRAMEWORKS:
        pairs = measured.values(framework=name)
        if not pairs:
            continue
        for field, what in (("train_seconds", "training"), ("seconds", "whole command")):
            tandem, script = ([pair[side][field] for pair in pairs] for side in ("tandem", "script"))
            rows.append([f"{name}, {what}", *harness.medians(tandem, script), str(Ratio.of(tandem, script))])
        lowest = min(pair["tandem"]["test_accuracy"] for pair in pairs)
        highest = max(pair["script"]["test_accuracy"] for pair in pairs)
        rows.append([f"{name}, test accuracy", f"≥ {lowest:.2%}", f"≤ {highest:.2%}", ""])
    return (
        "Seconds of `tandem run examples/fast.yaml` with one framework and one seed, and of the published tutorials' "
        f"plain scripts, {measured.settings['epochs']} epochs. Two threads, "
        f"{measured.settings['pairs']} alternating pairs: median, and lowest to highest ratio; of the accuracies, "
        "tandem's lowest and the scripts' highest.\n\n"
        + table(["", "tandem", "script", "tandem / script"], rows)
    )
