"""Small pictures, and what is read of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainers.data import Dataset, DataSpec, open_dataset
from trainers.errors import InputError


def opened(path: Path, **spec: object) -> Dataset:
    return open_dataset(DataSpec(path=path, **spec))  # type: ignore[arg-type]


def refused(path: Path, **spec: object) -> str:
    """The sentence that refuses a source; a list of pictures may stand below it."""
    with pytest.raises(InputError) as caught:
        opened(path, **spec)
    sentence = str(caught.value).splitlines()[0]
    assert str(path) in sentence, "says where"
    return sentence


def saved(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def fill(directory: Path, count: int, *, form: str = "png", side: int = 8) -> Path:
    """A folder of so many pictures, no two alike."""
    seed = list(str(directory).encode())
    for number in range(count):
        noise = np.random.default_rng([*seed, number]).integers(0, 256, (side, side, 3))
        saved(directory / f"{number:02}.{form}", noise.astype(np.uint8))
    return directory


def everything(dataset: Dataset) -> np.ndarray:
    """The pictures of all splits."""
    return np.concatenate([dataset.train_images, dataset.validation_images, dataset.test_images])


def labels(dataset: Dataset) -> np.ndarray:
    return np.concatenate([dataset.train_labels, dataset.validation_labels, dataset.test_labels])


def sizes(dataset: Dataset) -> list[int]:
    """How many training, validation and test pictures there are."""
    return [len(dataset.train_labels), len(dataset.validation_labels), len(dataset.test_labels)]


def noted(dataset: Dataset, words: str) -> bool:
    return any(words in note for note in dataset.warnings)
