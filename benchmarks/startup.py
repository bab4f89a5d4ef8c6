"""Seconds from the command to the first training step, beside a bare Ray Train script; and to each further run."""

from __future__ import annotations

import itertools
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.results import Measured, Ratio, Results, table

TITLE = "Start-up"
FRAMEWORKS = ("keras", "torch")
PARTS = ("workers", "import", "data", "build")
_RUNS = 4


def settings(options: harness.Options) -> dict[str, Any]:
    """Pairs, and the CPUs of the worker on both sides."""
    return {"pairs": options.pairs, "threads": 2}


def measure(settings: dict[str, Any], results: Results, data: Path) -> None:
    """Measure each pair; the further runs of each `tandem run` have warm workers."""
    threads = settings["threads"]
    for name, pair in itertools.product(FRAMEWORKS, range(1, settings["pairs"] + 1)):
        sides = {
            "tandem": lambda name=name: _tandem(name, threads),
            "ray_train": lambda name=name: _ray_train(name, threads),
        }
        results.once(lambda pair=pair, sides=sides: harness.alternate(sides, pair), framework=name, pair=pair)


def _tandem(framework: str, threads: int) -> dict[str, Any]:
    done = harness.tandem(
        "run",
        {
            "data": {"source": "digits"},
            "arms": {framework: {"framework": framework, "epochs": 1, "seeds": _RUNS}},
            "scale": {"cpus_per_worker": threads, "concurrent_runs": 1},
            "corruption_robustness": False,
        },
    )
    first = done.runs[0]
    return {
        "seconds": first.first_step_at - done.started_at,
        "parts": {part: first.attempt["startup"][f"{part}_seconds"] for part in PARTS},
        "further": [
            later.first_step_at - earlier.result["finished_at"]
            for earlier, later in itertools.pairwise(done.runs)
        ],
    }


def _ray_train(framework: str, threads: int) -> dict[str, float]:
    started = time.time()
    printed = harness.script("ray_train_hello", framework, threads, threads=threads, niceness=0)
    return {"seconds": printed["first_step_at"] - started}


def show(measured: Measured) -> str:
    """Cold starts over the script's, their parts, and further runs."""
    rows, parts = [], []
    for name in FRAMEWORKS:
        pairs = measured.values(framework=name)
        if not pairs:
            continue
        tandem, script = ([pair[side]["seconds"] for pair in pairs] for side in ("tandem", "ray_train"))
        ratio = Ratio.of(tandem, script)
        rows.append([name, *harness.medians(tandem, script), str(ratio), ratio.verdict(at_most=1.2)])
        of_parts = [[pair["tandem"]["parts"][part] for pair in pairs] for part in PARTS]
        others = [total - sum(values) for total, *values in zip(tandem, *of_parts, strict=True)]
        further = [seconds for pair in pairs for seconds in pair["tandem"]["further"]]
        parts.append(
            [
                name,
                *harness.medians(others, *of_parts),
                f"{statistics.median(further):.2f} (highest {max(further):.2f})",
                "met" if max(further) < 3 else "missed",
            ]
        )
    return (
        "Seconds from the start of the command to the first training step: `tandem run` with one arm on the digits, "
        "and `benchmarks/peers/ray_train_hello.py`, a bare script with Ray Train's own trainer and one dense layer. "
        f"Median of {measured.settings['pairs']} alternating pairs, with the lowest and the highest.\n\n"
        + table(["framework", "tandem", "Ray Train", "tandem / Ray Train", "≤ 1.2"], rows)
        + "\n\nMedian seconds of tandem's parts: the driver with Ray's start, the start of Ray Train's workers, the "
        "import of the framework, the data, the model; and from the end of a run to the first step of the next on the "
        "same workers:\n\n" + table(["framework", "driver", *PARTS, "further run", "< 3 s"], parts)
    )
