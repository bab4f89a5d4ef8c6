"""DICOM files, which pydicom reads: grey values with the window that the file proposes, or colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from trainers.data.spec import PictureSpec
from trainers.data.values import Values
from trainers.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

SUFFIXES = (".dcm", ".dicom")
_MAGIC = slice(128, 132)


def is_dicom(file: BinaryIO, name: str) -> bool:
    """Whether a file is DICOM by its contents or its name; leaves it at its beginning."""
    start = file.read(_MAGIC.stop)
    file.seek(0)
    return start[_MAGIC] == b"DICM" or (bool(start) and name.lower().endswith(SUFFIXES))


def shape_of(file: BinaryIO, name: str) -> tuple[int, int, int]:
    """Height, width and channels by the header.

    Raises:
        InputError: pydicom is missing.
    """
    header = _pydicom(name).dcmread(file, stop_before_pixels=True)
    _check_frames(header)
    colours = header.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2")
    return int(header.Rows), int(header.Columns), 3 if colours else 1


def read(file: BinaryIO, name: str, spec: PictureSpec) -> Values | np.ndarray:
    """Grey values after the rescale slope and intercept, or colours uint8 [height, width, 3].

    The file's own window is looked for only where `spec` sets none.

    Raises:
        InputError: pydicom is missing.
        ValueError: it holds what is not read here; says what.
    """
    dataset = _pydicom(name).dcmread(file)
    from pydicom.pixels import apply_color_lut, apply_modality_lut

    _check_frames(dataset)
    kind = dataset.PhotometricInterpretation
    pixels = dataset.pixel_array
    if kind == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
    if pixels.ndim == 3:
        return (pixels >> 8).astype(np.uint8) if pixels.dtype.itemsize > 1 else pixels
    window = None
    if spec.window is None and spec.stretch is None:
        window = _proposed(dataset) or _whole_range(dataset, apply_modality_lut)
    return Values(
        np.asarray(apply_modality_lut(pixels, dataset)),
        window=window,
        is_inverted=kind == "MONOCHROME1",
    )


def _pydicom(name: str) -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise InputError(
            f"{name} is a DICOM file, which needs pydicom; pip install 'tandem-compare[dicom]'"
        ) from error
    return pydicom


def _check_frames(dataset: Dataset) -> None:
    if (frames := int(dataset.get("NumberOfFrames") or 1)) > 1:
        raise ValueError(f"it holds {frames} frames; save each as a picture of its own")


def _proposed(dataset: Dataset) -> tuple[float, float] | None:
    """The first window of the file's tags (DICOM PS3.3 C.11.2.1.2)."""
    tags = [dataset.get(tag) for tag in ("WindowCenter", "WindowWidth")]
    if any(tag is None or tag == "" for tag in tags):
        return None
    center, width = (float(np.atleast_1d(tag)[0]) for tag in tags)
    function = dataset.get("VOILUTFunction", "LINEAR")
    if function == "LINEAR" and width >= 1:
        return center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    if function == "LINEAR_EXACT" and width > 0:
        return center - width / 2, center + width / 2
    raise ValueError(f"its window of width {width:g} by {function} is not known here; set data.window")


def _whole_range(dataset: Dataset, apply_modality_lut: Any) -> tuple[float, float]:
    """What the stored bits can hold."""
    bits = int(dataset.BitsStored)
    lowest, highest = (
        (-(1 << bits - 1), (1 << bits - 1) - 1) if dataset.PixelRepresentation else (0, (1 << bits) - 1)
    )
    ends = np.asarray(apply_modality_lut(np.array([lowest, highest], np.int64), dataset), np.float64)
    return float(ends.min()), float(ends.max())
