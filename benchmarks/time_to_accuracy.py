"""Time of the `fast` recipe to the tutorials' accuracy, over the time of the tutorials' own scripts."""

from __future__ import annotations

import statistics
import time

from benchmarks import harness

TARGETS = {"keras": 0.692, "torch": 0.616}
HEADER = ["framework", "tandem fast (s)", "tutorial (s)", "ratio (lowest to highest pair)", "target"]


def main(*, pairs: int) -> None:
    """Measure both frameworks, training alone and with start-up."""
    path = harness.archive()
    rows, accuracies, commands = [], [], []
    for framework, target in TARGETS.items():
        reached: list[float] = []
        published: list[float] = []
        command: list[float] = []
        training: dict[str, list[float]] = {"tandem": [], "tutorial": []}

        def ours(
            framework: str = framework,
            reached: list[float] = reached,
            command: list[float] = command,
            training: dict[str, list[float]] = training,
        ) -> float:
            arm = {"framework": framework, "recipe": "fast", "epochs": 1, "seeds": [len(reached)]}
            done = harness.tandem(
                {
                    "data": {"source": "npz", "path": str(path), "validation": 0},
                    "arms": {"arm": arm | {"augmentation": {"flip": False, "crop": 0}}},
                    "scale": {"cpus_per_worker": 2},
                }
            )
            (run,) = done.runs
            reached.append(run["result"]["test_accuracy"])
            seconds = [epoch["data_seconds"] + epoch["step_seconds"] for epoch in run["epochs"]]
            training["tandem"].append(sum(seconds))
            command.append(done.seconds)
            trained_at = run["attempts"][0]["started_at"] + run["epochs"][-1]["seconds_since_start"]
            return float(trained_at + run["result"]["test_seconds"] - done.started_at)

        def tutorial(
            framework: str = framework,
            published: list[float] = published,
            training: dict[str, list[float]] = training,
        ) -> float:
            started = time.time()
            measured = harness.script(f"tutorial_{framework}.py", path, 10, 2, threads=2)
            published.append(measured["test_accuracy"])
            training["tutorial"].append(measured["train_seconds"])
            return time.time() - started

        whole = harness.alternate({"tandem": ours, "tutorial": tutorial}, pairs)
        rows.append(
            harness.row(
                f"{framework}, training",
                training["tandem"],
                training["tutorial"],
                target=0.1,
                least=False,
            )
        )
        rows.append(
            harness.row(
                f"{framework}, with start-up", whole["tandem"], whole["tutorial"], target=0.2, least=False
            )
        )
        commands.append(f"{framework} {statistics.median(command):.1f} s")
        accuracies.append(
            f"{framework}: fast {statistics.median(reached):.2%} (lowest {min(reached):.2%}; needed "
            f"{target:.1%}), tutorial {statistics.median(published):.2%}"
        )
    harness.keep(
        "time_to_accuracy",
        "Time to the tutorials' accuracy",
        "The `fast` recipe for one epoch against the tutorials as published, ten epochs, on the whole of "
        f"CIFAR-10 with two threads; {pairs} alternating pairs, another seed each. With start-up, both times "
        "run from the start of the command until the test accuracy is known; the whole of tandem's command, "
        f"robustness and report included: {', '.join(commands)}. Test accuracy: {'; '.join(accuracies)}.",
        HEADER,
        rows,
    )
