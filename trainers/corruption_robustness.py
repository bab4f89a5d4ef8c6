"""How a trained model's accuracy holds when its test images are damaged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trainers.contract import Engine, Task
from trainers.data import Dataset
from trainers.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from trainers.loop import evaluate

_MOST_IMAGES = 1000


def corruption_robustness(
    task: Task, dataset: Dataset, engine: Engine, predicted: np.ndarray, heartbeat: Callable[[], None]
) -> dict[str, list[float]]:
    """Accuracy by kind of damage, undamaged first and then by severity.

    Every worker of a run calls this at the same time. The images are an even choice of at most 1,000 of the test
    split, the same for every arm.

    Args:
        task: this worker's part of the run.
        dataset: whose test images are damaged.
        engine: the trained model.
        predicted: int64 [n], its predictions for the whole test split as it is.
        heartbeat: called as it goes.
    """
    chosen = np.unique(np.linspace(0, len(predicted) - 1, _MOST_IMAGES).round().astype(np.int64))
    images, labels = np.asarray(dataset.test_images[chosen]), dataset.test_labels[chosen]
    whole = float(np.mean(predicted[chosen] == labels))
    return {
        kind: [
            whole,
            *(
                evaluate(task, engine, corrupt(images, kind, severity), labels, heartbeat)[0].accuracy
                for severity in SEVERITIES
            ),
        ]
        for kind in CORRUPTIONS
    }
