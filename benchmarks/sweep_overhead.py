"""What a sweep costs beside its trials: trials of one second each, as many at a time as there are workers.

The shape of Ray Tune's published figure: 10,000 trials of one second on 16 CPUs took 715 s, of which 625 s are trials.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.results import Measured, Results, table

TITLE = "Overhead of a sweep"
_MODEL = """
import time

from torch import nn


class OneSecond(nn.Module):
    def __init__(self, pixels, num_classes):
        super().__init__()
        self.dense = nn.Linear(pixels, num_classes)

    def forward(self, x):
        if self.training:
            time.sleep(1)
        return self.dense(x.flatten(1))


def build(image_shape, num_classes):
    return OneSecond(image_shape[0] * image_shape[1] * image_shape[2], num_classes)
"""


def settings(options: harness.Options) -> dict[str, Any]:
    """How many trials, and how many at a time."""
    return {"trials": 6 if options.smoke else 300, "at_once": 2}


def measure(settings: dict[str, Any], results: Results, data: Path) -> None:
    """Measure once; the trials are their own repetition."""

    def sweep() -> dict[str, float]:
        done = harness.tandem("sweep", _experiment(**settings), modules={"one_second.py": _MODEL})
        return {
            "command": done.seconds,
            "first step to last trial's end": max(run.epoch_ends[-1] for run in done.runs)
            - done.runs[0].first_step_at,
        }

    results.once(sweep)


def _experiment(trials: int, at_once: int) -> dict[str, Any]:
    return {
        "data": {"source": "digits", "limit": 80, "validation": 0.1},
        "defaults": {"model": "one_second:build", "batch_size": 72, "epochs": 1, "seeds": 1},
        "arms": {"torch": {"framework": "torch"}},
        "scale": {"concurrent_runs": at_once},
        "sweep": {
            "space": {"optimizer.learning_rate": {"loguniform": [1e-5, 1e-3]}},
            "search": "random",
            "budget": {"trials": trials},
        },
    }


def show(measured: Measured) -> str:
    """Seconds over those of the trials alone."""
    trials, at_once = measured.settings["trials"], measured.settings["at_once"]
    least = trials / at_once
    (value,) = measured.values()
    rows = [
        [what, f"{seconds:.1f}", f"{least:.0f}", f"**{seconds / least:.3f}**"]
        for what, seconds in value.items()
    ]
    return f"{trials} trials of one second, {at_once} at a time, on warm workers.\n\n" + table(
        ["", "seconds", "trials alone", "ratio"], rows
    )
