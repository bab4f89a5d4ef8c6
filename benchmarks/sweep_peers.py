"""Sweeps against peers: the same trials by plain Ray Tune, by Optuna in one process, by Keras Tuner."""

from __future__ import annotations

from typing import Any

from benchmarks import harness

TRIALS = 16
EPOCHS = 2
IMAGES = 4000
RATES = (1e-4, 1e-2)


def main(*, pairs: int) -> None:
    """Measure trials per minute against each peer, and the best accuracy against Optuna's."""
    archive = str(harness.archive(IMAGES))
    best: dict[str, list[float]] = {"tandem": [], "Optuna": []}

    def ours(framework: str, *, seed: int = 0) -> float:
        done = harness.tandem_sweep(_experiment(archive, framework, seed))
        if framework == "torch":
            best["tandem"].append(
                max(trial.value("validation_accuracy") or 0 for trial in done.history.trials)
            )
        return TRIALS / done.steady_seconds * 60

    def theirs(script: str, *arguments: str) -> float:
        measured = harness.script(script, archive, TRIALS, EPOCHS, *RATES, *arguments)
        if "optuna" in arguments:
            best["Optuna"].append(measured["best"])
        return float(TRIALS / measured["seconds"] * 60)

    torch = harness.alternate(
        {
            "tandem": lambda: ours("torch"),
            "Ray Tune with Ray Train inside": lambda: theirs("search_torch.py", "train"),
            "Ray Tune": lambda: theirs("search_torch.py", "tune"),
            "Optuna, 2 jobs in one process": lambda: theirs("search_torch.py", "optuna"),
        },
        pairs,
    )
    keras = harness.alternate(
        {
            "tandem": lambda: ours("keras"),
            "Keras Tuner": lambda: theirs("search_keras.py"),
        },
        pairs,
    )
    targets = {
        "Ray Tune with Ray Train inside": 3.0,
        "Ray Tune": 3.0,
        "Optuna, 2 jobs in one process": 0.95,
        "Keras Tuner": 1.0,
    }
    rows = [
        harness.row(f"{framework}: {peer}", measured["tandem"], measured[peer], target=targets[peer])
        for framework, measured in (("torch", torch), ("keras", keras))
        for peer in measured
        if peer != "tandem"
    ]
    rows.append(
        harness.row(
            "torch: best validation accuracy, percent, Optuna",
            [100 * value for value in best["tandem"]],
            [100 * value for value in best["Optuna"]],
            target=1.0,
        )
    )
    harness.keep(
        "sweep_peers",
        "Sweeps against peers",
        f"Trials per minute of tutorial_cnn on {IMAGES} images of CIFAR-10, {EPOCHS} epochs, learning rate "
        "searched by TPE, two trials at a time with one thread each (Keras Tuner: one with two threads); "
        "from the first trial's start to the last one's end.",
        ["against", "tandem", "peer", "ratio (range)", "target"],
        rows,
    )


def _experiment(archive: str, framework: str, seed: int) -> dict[str, Any]:
    return {
        "data": {"path": archive, "validation": 0.1},
        "defaults": {"batch_size": 128, "epochs": EPOCHS, "seeds": 1, "inputs": "symmetric"},
        "arms": {framework: {"framework": framework}},
        "scale": {"concurrent_runs": 2},
        "sweep": {
            "space": {"optimizer.learning_rate": {"loguniform": list(RATES)}},
            "budget": {"trials": TRIALS},
            "seed": seed,
        },
    }
