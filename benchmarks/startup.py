"""From `tandem run` to the first training step, beside the least that Ray Train can do."""

from __future__ import annotations

import statistics

from benchmarks import harness

HEADER = ["framework", "tandem", "hello world", "ratio (lowest to highest pair)", "target"]
PARTS = ("driver", "workers", "import", "data", "build")


def main(*, pairs: int) -> None:
    """Measure cold starts in pairs; the further runs of each tandem session are the warm ones."""
    rows, parts_rows = [], []
    for framework in ("keras", "torch"):
        parts: dict[str, list[float]] = {part: [] for part in PARTS}
        warm: list[float] = []

        def ours(
            framework: str = framework, parts: dict[str, list[float]] = parts, warm: list[float] = warm
        ) -> float:
            done = harness.tandem(
                {
                    "data": {"source": "digits"},
                    "arms": {"arm": {"framework": framework, "epochs": 1, "seeds": 4}},
                    "scale": {"cpus_per_worker": 2},
                }
            )
            first, *others = (run["attempts"][0] for run in done.runs)
            startup = first["startup"]
            total = first["started_at"] + startup["build_seconds"] - done.started_at
            for part in PARTS[1:]:
                parts[part].append(startup[f"{part}_seconds"])
            parts["driver"].append(total - sum(startup.values()))
            warm.extend(other["startup"]["build_seconds"] for other in others)
            return total

        def hello(framework: str = framework) -> float:
            return float(harness.script("ray_train_hello.py", framework, 2, threads=2)["seconds"])

        measured = harness.alternate({"tandem": ours, "hello": hello}, pairs)
        rows.append(harness.row(framework, measured["tandem"], measured["hello"], target=1.3, least=False))
        medians = [f"{statistics.median(parts[part]):.1f}" for part in PARTS]
        parts_rows.append([framework, *medians, f"{statistics.median(warm):.2f} (highest {max(warm):.2f})"])
    harness.keep(
        "startup",
        "Start-up",
        "Seconds from the start of the command to the first training step, beside a bare Ray Train script "
        f"of the same framework that takes one step; median of {pairs} alternating pairs.",
        HEADER,
        rows,
    )
    harness.keep(
        "startup_parts",
        "Start-up, part by part",
        "Median seconds: tandem's driver with Ray's start, the start of Ray Train's workers, imports in "
        "the worker, data, building the model; and a further run on warm workers (target: under 3 s).",
        ["framework", *PARTS, "warm run"],
        parts_rows,
    )
