"""What the checks train on: synthetic pictures, or CIFAR-10 where it is at hand."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from trainers.data import Dataset

CLASSES = 10


def synthetic(images: int, side: int, *, test_images: int = 64) -> Dataset:
    """Pictures of one colour and a coarse pattern for each class, with noise on them; easy to learn."""
    rng = np.random.default_rng(0)
    cells = min(4, side)
    patterns = rng.integers(64, 192, (CLASSES, cells, cells, 3))
    repeats = -(-side // cells)
    patterns = patterns.repeat(repeats, axis=1).repeat(repeats, axis=2)[:, :side, :side].astype(np.uint8)

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, CLASSES, count)
        noise = rng.integers(0, 64, (count, side, side, 3), dtype=np.uint8)
        return patterns[labels] + noise, labels

    return _dataset(split(images), split(test_images))


def cifar10(directory: Path) -> Dataset:
    """CIFAR-10 from train.parquet and test.parquet, as Hugging Face publishes it; needs Pillow."""
    import pyarrow.parquet as pq
    from PIL import Image

    def split(name: str) -> tuple[np.ndarray, np.ndarray]:
        table = pq.read_table(directory / f"{name}.parquet", columns=["img", "label"])
        encoded = table["img"].combine_chunks().field("bytes").to_pylist()
        images = np.stack([np.asarray(Image.open(io.BytesIO(image)).convert("RGB")) for image in encoded])
        return images, table["label"].to_numpy()

    return _dataset(split("train"), split("test"))


def _dataset(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> Dataset:
    looked_at = train[0][:1000] / 255
    return Dataset(
        train_images=train[0],
        train_labels=train[1],
        validation_images=train[0][:0],
        validation_labels=train[1][:0],
        test_images=test[0],
        test_labels=test[1],
        class_names=[str(label) for label in range(CLASSES)],
        fingerprint="",
        warnings=[],
        channel_mean=looked_at.mean((0, 1, 2), dtype=np.float64).astype(np.float32),
        channel_std=looked_at.std((0, 1, 2), dtype=np.float64).astype(np.float32),
    )
