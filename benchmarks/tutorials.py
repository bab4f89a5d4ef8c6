"""The two published CIFAR-10 tutorials as plain scripts, and examples/blog.yaml: the same accuracy?"""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.results import Measured, Results, table

TITLE = "Tutorials"
_SCRIPTS = {"keras": "TensorFlow's CNN tutorial", "torch": "PyTorch's classifier tutorial"}


def settings(options: harness.Options) -> dict[str, Any]:
    """Epochs on both sides, and seeds; smoke trains one epoch."""
    return {
        "epochs": 1 if options.smoke else options.epochs,
        "seeds": [0, 1] if options.smoke else [0, 1, 2],
        "threads": 2,
    }


def measure(settings: dict[str, Any], results: Results, data: Path) -> None:
    """Train each script and the example with each seed; the example's runs resume where they were interrupted."""
    epochs, threads = settings["epochs"], settings["threads"]
    for seed in settings["seeds"]:
        results.once(lambda seed=seed: _example(data, epochs, threads, seed), side="tandem", seed=seed)
        for name in _SCRIPTS:
            results.once(
                lambda name=name, seed=seed: harness.script(
                    f"tutorial_{name}", data, epochs, threads, seed, threads=threads
                ),
                side=name,
                seed=seed,
            )


def _example(data: Path, epochs: int, threads: int, seed: int) -> dict[str, float]:
    overrides = [f"data.path={data}", f"scale.cpus_per_worker={threads}"]
    overrides += [f"{arm}.{field}" for arm in _SCRIPTS for field in (f"epochs={epochs}", f"seeds=[{seed}]")]
    done = harness.tandem(
        "run",
        harness.ROOT / "examples" / "blog.yaml",
        *overrides,
        keep=harness.SCRATCH / f"tutorials-{epochs}-{seed}",
    )
    return {name: done.run_of(name).result["test_accuracy"] for name in _SCRIPTS}


def show(measured: Measured) -> str:
    """Mean accuracies, and whether they differ by more than the seeds explain."""
    rows = []
    for name, title in _SCRIPTS.items():
        script = [value["test_accuracy"] for value in measured.values(side=name)]
        tandem = [value[name] for value in measured.values(side="tandem")]
        if min(len(script), len(tandem)) < 2:
            continue
        difference = statistics.mean(tandem) - statistics.mean(script)
        pooled = math.sqrt((statistics.variance(script) + statistics.variance(tandem)) / 2)
        rows.append(
            [
                title,
                *(_accuracies(side) for side in (script, tandem)),
                f"{100 * difference:+.2f} points",
                f"≤ {200 * pooled:.2f} points: {'met' if abs(difference) <= 2 * pooled else 'missed'}",
            ]
        )
    return (
        "Test accuracy of the published tutorials as plain scripts (`benchmarks/peers/tutorial_keras.py` with "
        "`compile` and `fit`, `benchmarks/peers/tutorial_torch.py`) and of `tandem run examples/blog.yaml`, "
        f"{measured.settings['epochs']} epochs on both sides, seeds {', '.join(map(str, measured.settings['seeds']))}, "
        f"{measured.settings['threads']} threads. The means may differ by twice the pooled standard deviation of the "
        "seeds.\n\n"
        + table(["tutorial", "script: mean (seeds)", "tandem: mean (seeds)", "difference", "bound"], rows)
    )


def _accuracies(values: list[float]) -> str:
    return f"{statistics.mean(values):.2%} ({', '.join(f'{value:.2%}' for value in values)})"
