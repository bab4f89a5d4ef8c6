"""Scikit-learn's handwritten digits, which ship with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainers.data.labelled import Labelled, Split
from trainers.data.source import Source
from trainers.data.spec import DataSpec
from trainers.errors import InputError


def _read(path: Path | None, spec: DataSpec) -> Labelled:
    from sklearn.datasets import load_digits

    if path is not None:
        raise InputError(
            f"data.path {str(path)!r}: source digits ships with scikit-learn and takes no path; leave it out"
        )
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    names = [str(name) for name in digits.target_names]
    return Labelled(Split(images, digits.target.astype(np.int64)), names)


SOURCE = Source(read=_read, locate=lambda: None)
