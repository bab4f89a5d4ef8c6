"""Sweeps against peers: the same trials by plain Ray Tune, by Optuna in one process, by Keras Tuner."""

from __future__ import annotations

from typing import Any

from benchmarks import harness

TRIALS = 16
EPOCHS = 2
IMAGES = 4000
RATES = (1e-4, 1e-2)
HEADER = ["against", "tandem", "peer", "ratio (range)", "target"]


def main(*, pairs: int) -> None:
    """Measure trials per minute against each peer, and the best accuracy against Optuna's."""
    archive = str(harness.archive(IMAGES))
    searches: list[harness.TandemSweep] = []
    best: dict[str, list[float]] = {"tandem": [], "Optuna": []}

    def ours(framework: str) -> float:
        done = harness.tandem_sweep(_experiment(archive, framework, seed=len(searches)))
        if framework == "torch":
            searches.append(done)
        return _per_minute(done.steady_seconds)

    def theirs(script: str, *arguments: object) -> float:
        return _per_minute(_peer(script, archive, *arguments)["seconds"])

    def optuna() -> float:
        seed = len(searches) - 1
        measured = _peer("search_torch.py", archive, "optuna", seed)
        seconds = min(searches[-1].steady_seconds, measured["seconds"])
        best["tandem"].append(100 * searches[-1].best_within(seconds))
        best["Optuna"].append(100 * max(value for ended, value in measured["trials"] if ended <= seconds))
        return _per_minute(measured["seconds"])

    torch = harness.alternate(
        {
            "tandem": lambda: ours("torch"),
            "Ray Tune with Ray Train inside": lambda: theirs("search_torch.py", "train"),
            "Ray Tune": lambda: theirs("search_torch.py", "tune"),
            "Optuna, 2 jobs in one process": optuna,
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
            "torch: best validation accuracy at equal wall time, percent, Optuna",
            best["tandem"],
            best["Optuna"],
            target=1.0,
        )
    )
    harness.keep(
        "sweep_peers",
        "Sweeps against peers",
        f"Trials per minute of tutorial_cnn on {IMAGES} images of CIFAR-10, {EPOCHS} epochs, learning rate "
        "searched by TPE, two trials at a time with one thread each (Keras Tuner: one with two threads); "
        "from the first trial's first step to the last one's end; the peers imported their framework, and "
        "Optuna trained once, before their clocks started.",
        HEADER,
        rows,
    )
    short(pairs=pairs)


def short(*, pairs: int) -> None:
    """Measure trials of half the length against plain Ray Tune, whose start-up weighs more there."""
    archive = str(harness.archive(IMAGES // 2))

    def ours() -> float:
        return _per_minute(harness.tandem_sweep(_experiment(archive, "torch", seed=0)).steady_seconds)

    def theirs() -> float:
        return _per_minute(_peer("search_torch.py", archive, "tune")["seconds"])

    measured = harness.alternate({"tandem": ours, "Ray Tune": theirs}, pairs)
    harness.keep(
        "sweep_peers_short",
        "Sweeps of shorter trials against Ray Tune",
        f"As above, on {IMAGES // 2} images.",
        HEADER,
        [harness.row("torch: Ray Tune", measured["tandem"], measured["Ray Tune"], target=3.0)],
    )


def _peer(script: str, archive: str, *arguments: object) -> dict[str, Any]:
    return harness.script(script, archive, TRIALS, EPOCHS, *RATES, *arguments)


def _per_minute(seconds: float) -> float:
    return TRIALS / seconds * 60


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
