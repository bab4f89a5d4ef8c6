"""The test images that a run classified wrongly, or that arms classify differently, as a CSV file."""

from __future__ import annotations

import csv
import io

import numpy as np

from orchestrator.analysis.compare import Comparison
from orchestrator.store.records import ExperimentRecords


def write(comparison: Comparison, records: ExperimentRecords) -> bytes | None:
    """A row for each image, with the predictions of every arm; None where predictions or labels are not known.

    Columns: `image`, its place among the test images; `file`, relative to `data.path`; `class`; `disputed`, whether
    most seeds of one arm predict another class than those of another; and of each arm `NAME_predicted`, what most of
    its seeds predict, and `NAME_wrong`, how many of its seeds are wrong.
    """
    known = {name: found for name, found in comparison.predictions.items() if found.labels is not None}
    if not known:
        return None
    reference = next(iter(known.values()))
    arms = {name: found for name, found in known.items() if found.examples == reference.examples}
    labels = np.asarray(reference.labels)
    count = 1 + max(int(labels.max()), *(int(found.predicted.max()) for found in arms.values()))
    classes = [str(label) for label in range(count)]
    if comparison.document["data"] is not None:
        named = comparison.document["data"]["class_names"]
        classes[: len(named)] = named
    names = records.test_names()
    usual = {name: _most_frequent(found.predicted, len(classes)) for name, found in arms.items()}
    wrong = {name: (found.predicted != labels).sum(axis=0) for name, found in arms.items()}
    first = next(iter(usual.values()))
    disputed = np.any([each != first for each in usual.values()], axis=0)
    shown = np.flatnonzero(disputed | np.any([*wrong.values()], axis=0))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        [
            "image",
            "file",
            "class",
            "disputed",
            *(f"{name}_{what}" for name in arms for what in ("predicted", "wrong")),
        ]
    )
    for place in shown.tolist():
        of_arms = [entry for name in arms for entry in (classes[usual[name][place]], int(wrong[name][place]))]
        file = names[place] if len(names) == len(labels) else ""
        table.writerow([place, file, classes[labels[place]], "yes" if disputed[place] else "no", *of_arms])
    return text.getvalue().encode()


def _most_frequent(predicted: np.ndarray, classes: int) -> np.ndarray:
    """The class that most seeds predict for each image, int [n]; the first of equally frequent ones.

    Args:
        predicted: int [seeds, n].
        classes: how many there are.
    """
    counts = np.zeros((classes, predicted.shape[1]), np.int32)
    for of_seed in predicted:
        counts[of_seed, np.arange(len(of_seed))] += 1
    usual: np.ndarray = counts.argmax(axis=0)
    return usual
