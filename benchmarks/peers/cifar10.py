"""CIFAR-10 from its Parquet files, as Hugging Face publishes it."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image


def read(directory: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The images of a split, uint8 [n, 32, 32, 3], and their labels, int64 [n].

    Args:
        directory: with train.parquet and test.parquet.
        split: train or test.
    """
    table = pq.read_table(Path(directory) / f"{split}.parquet", columns=["img", "label"])
    encoded = table["img"].combine_chunks().field("bytes").to_pylist()
    images = np.stack([np.asarray(Image.open(io.BytesIO(image)).convert("RGB")) for image in encoded])
    return images, table["label"].to_numpy()
