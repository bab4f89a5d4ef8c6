"""CIFAR-100 as published for Python, with fine or coarse labels: `train`, `test` and `meta`."""

from __future__ import annotations

from pathlib import Path

from trainers.data import cifar
from trainers.data.labelled import Labelled, named_column
from trainers.data.source import Source
from trainers.data.spec import DataSpec

_DIRECTORY = "cifar-100-python"
_DATASET = "CIFAR-100"
_LABELS = ["fine_label", "coarse_label"]
"""As the columns of the Parquet files on Hugging Face are called."""


def _inside(path: Path) -> Path:
    return path / _DIRECTORY if (path / _DIRECTORY).is_dir() else path


def _recognizes(path: Path) -> bool:
    return all((_inside(path) / name).is_file() for name in ("train", "test", "meta"))


def _read(path: Path | None, spec: DataSpec) -> Labelled:
    assert path is not None
    directory = _inside(path)
    label = named_column(directory / "train", _LABELS, spec.label_column, field="label_column") or _LABELS[0]
    names = cifar.load(directory / "meta", f"{label}_names".encode(), dataset=_DATASET)
    train, test = (
        cifar.batch(directory / split, f"{label}s", dataset=_DATASET) for split in ("train", "test")
    )
    return Labelled(train, [name.decode() for name in names[f"{label}_names".encode()]], test=test)


SOURCE = Source(
    read=_read,
    recognizes=_recognizes,
    precedence=2,
    fields=frozenset({"label_column"}),
)
