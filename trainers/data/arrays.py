"""Arrays of images and labels as files and functions give them."""

from __future__ import annotations

import numpy as np

from trainers.data.labelled import check_task
from trainers.data.spec import DataSpec
from trainers.errors import InputError


def as_pixels(images: np.ndarray, where: str, spec: DataSpec) -> np.ndarray:
    """Images as [n, height, width, channels]: uint8, or of any numbers where a window or a stretch gives them a range.

    Args:
        images: [n, height, width] or [n, height, width, 1 or 3]; 0 to 255, or 0.0 to 1.0.
        where: the split, for errors.
        spec: has the window or the stretch.

    Raises:
        InputError: the array has another shape or range.
    """
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise InputError(
            f"the {where} images have the shape {list(images.shape)}; "
            "[n, height, width] or [n, height, width, 1 or 3] is needed"
        )
    if 0 in images.shape[1:] or images.dtype.kind not in "biuf":
        raise InputError(
            f"the {where} images are {images.dtype} {list(images.shape)}; numbers for pixels are needed"
        )
    if images.dtype == np.uint8 or not len(images):
        return images.astype(np.uint8, copy=False)
    if spec.window is not None or spec.stretch is not None:
        return images
    low, high = float(images.min()), float(images.max())
    if np.issubdtype(images.dtype, np.floating) and low >= 0 and high <= 1:
        return np.rint(images * 255).astype(np.uint8)
    if np.isfinite([low, high]).all() and low >= 0 and high <= 255:
        return np.rint(images).astype(np.uint8)
    raise InputError(
        f"the {where} images are {images.dtype} from {low:g} to {high:g}; 0 to 255, or 0.0 to 1.0, is needed, or "
        "data.window or data.stretch, which give them a range"
    )


def as_labels(labels: np.ndarray, where: str) -> np.ndarray:
    """Labels as [n].

    Args:
        labels: [n] or [n, 1].
        where: the split, for errors.

    Raises:
        InputError: there are several numbers for an image.
    """
    if labels.ndim == 1 or labels.size == len(labels):
        return labels.reshape(-1)
    shape = f"the {where} labels have the shape {[*labels.shape]}"
    if labels.ndim == 2 and labels.dtype.kind in "biuf" and not (np.count_nonzero(labels, axis=1) == 1).all():
        check_task(["|".join(map(str, np.flatnonzero(row))) for row in labels], shape)
        raise InputError(
            f"{shape}, and {int((~labels.any(axis=1)).sum())} images have no label; each needs one"
        )
    raise InputError(
        f"{shape}; one number for each image is needed: of labels with a single 1 in each row, its place in the row"
    )
