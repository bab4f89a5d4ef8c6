"""What a sweep costs beside its trials: trials of one second each, as many at a time as there are CPUs.

The shape of Ray Tune's own published figure, 10,000 one-second trials on 16 CPUs in 715 s, where 625 s
would be the least, at this machine's size.
"""

from __future__ import annotations

from benchmarks import harness

TRIALS = 300
AT_ONCE = 2
MODEL = """
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


def main(*, pairs: int) -> None:
    """Measure once; three hundred trials are their own repetition, so `pairs` is not used."""
    done = harness.tandem_sweep(
        {
            "data": {"source": "digits", "limit": 80, "validation": 0.1},
            "defaults": {"model": "one_second:build", "batch_size": 72, "epochs": 1, "seeds": 1},
            "arms": {"torch": {"framework": "torch"}},
            "scale": {"concurrent_runs": AT_ONCE},
            "sweep": {
                "space": {"optimizer.learning_rate": {"loguniform": [1e-5, 1e-3]}},
                "search": "random",
                "budget": {"trials": TRIALS},
            },
        },
        modules={"one_second.py": MODEL},
    )
    least = TRIALS / AT_ONCE
    rows = []
    for what, seconds in (("with the start of the workers", done.seconds), ("steady", done.steady_seconds)):
        ratio = seconds / least
        print(f"{what}: {seconds:.1f} s, {ratio:.3f} of the least")
        met = "met" if ratio <= 1.2 else "missed"
        rows.append([what, f"{seconds:.1f}", f"{least:.0f}", f"**{ratio:.3f}**", f"≤ 1.2: {met}"])
    harness.keep(
        "sweep_overhead",
        "Overhead of a sweep",
        f"{TRIALS} trials of one second, {AT_ONCE} at a time, trained by warm workers.",
        ["", "seconds", "the least possible", "ratio", "target"],
        rows,
    )
