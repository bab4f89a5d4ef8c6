"""The same trials by tandem, by plain Ray Tune, by Optuna's threads in one process, and by Keras Tuner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.results import Measured, Ratio, Results, table

TITLE = "Sweeps"
_PEERS = {
    "tune": ("torch", "PyTorch: Ray Tune"),
    "optuna": ("torch", "PyTorch: Optuna, two threads of one process"),
    "keras_tuner": ("keras", "Keras: Keras Tuner"),
}


def settings(options: harness.Options) -> dict[str, Any]:
    """Sizes of everything."""
    return {
        "pairs": options.pairs,
        "trials": 2 if options.smoke else 16,
        "epochs": 1 if options.smoke else 2,
        "images": 400 if options.smoke else 4000,
        "rates": [1e-4, 1e-2],
    }


def measure(settings: dict[str, Any], results: Results, data: Path) -> None:
    """Measure tandem in both frameworks and all peers once for each pair, in trials a minute."""
    path, trials = harness.archive(data, settings["images"]), settings["trials"]
    arguments = (path, trials, settings["epochs"], *settings["rates"])

    def tandem(framework: str) -> float:
        done = harness.tandem("sweep", _experiment(path, framework, settings))
        return 60 * trials / (max(run.epoch_ends[-1] for run in done.runs) - done.runs[0].first_step_at)

    def peer(script: str, *further: str, threads: int) -> float:
        niceness = 0 if "tune" in further else harness.RAY_NICENESS
        printed = harness.script(script, *arguments, *further, threads=threads, niceness=niceness)
        return 60 * trials / printed["seconds"]

    sides = {
        "torch": lambda: tandem("torch"),
        "tune": lambda: peer("search_torch", "tune", threads=1),
        "optuna": lambda: peer("search_torch", "optuna", threads=1),
        "keras": lambda: tandem("keras"),
        "keras_tuner": lambda: peer("search_keras", threads=2),
    }
    for pair in range(1, settings["pairs"] + 1):
        results.once(lambda pair=pair: harness.alternate(sides, pair), pair=pair)


def _experiment(path: Path, framework: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "data": {"source": "npz", "path": str(path), "validation": 0.1},
        "defaults": {
            "batch_size": 128,
            "epochs": settings["epochs"],
            "seeds": 1,
            "inputs": "symmetric",
            "optimizer": "adam",
        },
        "arms": {framework: {"framework": framework}},
        "scale": {"concurrent_runs": 2},
        "sweep": {
            "space": {"optimizer.learning_rate": {"loguniform": settings["rates"]}},
            "budget": {"trials": settings["trials"]},
        },
        "corruption_robustness": False,
    }


def show(measured: Measured) -> str:
    """Tandem over each peer."""
    settings, pairs = measured.settings, measured.values()
    rows = []
    for peer, (framework, title) in _PEERS.items():
        tandem, other = [pair[framework] for pair in pairs], [pair[peer] for pair in pairs]
        rows.append([title, *harness.medians(tandem, other), str(Ratio.of(tandem, other))])
    return (
        f"Trials a minute of `tutorial_cnn` on {settings['images']:,} images of CIFAR-10, {settings['epochs']} epochs, "
        f"{settings['trials']} trials of the learning rate, two at a time with one thread each (Keras Tuner: one at a "
        "time with two). From the first trial's first step to the last trial's end; the peers' clocks start when their "
        f"framework is imported. Median of {settings['pairs']} alternating rounds, with the lowest and the highest.\n\n"
        + table(["peer", "tandem", "peer", "tandem / peer"], rows)
    )
