"""CIFAR-10 as published for Python: `data_batch_1` to `data_batch_5` and `test_batch`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainers.data import cifar
from trainers.data.labelled import Labelled, Split
from trainers.data.source import Source
from trainers.data.spec import DataSpec

_DIRECTORY = "cifar-10-batches-py"
_DATASET = "CIFAR-10"


def _inside(path: Path) -> Path:
    return path / _DIRECTORY if (path / _DIRECTORY).is_dir() else path


def _read(path: Path | None, spec: DataSpec) -> Labelled:
    assert path is not None
    directory = _inside(path)
    meta = cifar.load(directory / "batches.meta", b"label_names", dataset=_DATASET)
    batches = [
        cifar.batch(directory / f"data_batch_{number}", "labels", dataset=_DATASET) for number in range(1, 6)
    ]
    train = Split(
        np.concatenate([batch.images for batch in batches]),
        np.concatenate([batch.labels for batch in batches]),
    )
    test = cifar.batch(directory / "test_batch", "labels", dataset=_DATASET)
    return Labelled(train, [name.decode() for name in meta[b"label_names"]], test=test)


SOURCE = Source(read=_read, recognizes=lambda path: (_inside(path) / "data_batch_1").exists(), precedence=2)
