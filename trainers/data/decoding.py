"""Turn the images of a source into pixels of one shape, a few at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from trainers.data.labelled import Encoded, Split
from trainers.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

_STRETCH = 64
"""Images that one thread works on at a time."""
_DEEP_GREY = ("I;16", "I;16B", "I;16L", "I;16N")
_GREY = ("1", "L", "LA", "La", *_DEEP_GREY)
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_ORIENTATION = 0x0112
_ON_ITS_SIDE = (5, 6, 7, 8)
"""Values of Exif's tag that swap height and width."""

Found = TypeVar("Found")


def shape_of(splits: Sequence[Split], size: int | None) -> tuple[int, int, int]:
    """Height, width and channels that all images are decoded to: one channel if none has colour.

    Args:
        splits: all of the data.
        size: both sides in pixels, or None for those of the images.

    Raises:
        InputError: images that cannot be decoded (listed by name), or sizes that differ where none was chosen.
    """
    found = {form for split in splits for form in _forms(split, size)}
    forms = {form for form in found if not isinstance(form, str)}
    if len(forms) < len(found):  # tell of those broken behind their headers too
        broken: list[str] = []
        for split in splits:
            deque(decode(split.images, (1, 1, 1), broken), maxlen=0)
        refuse(broken, of=sum(len(split.images) for split in splits))
    sizes = sorted({(height, width) for height, width, _ in forms})
    if len(sizes) > 1:
        raise InputError(
            f"the images have {len(sizes)} different sizes, from {sizes[0][1]}x{sizes[0][0]} "
            f"to {sizes[-1][1]}x{sizes[-1][0]} pixels; set data.image_size, such as image_size: 64"
        )
    return *sizes[0], max(channels for _, _, channels in forms)


def decode(
    images: np.ndarray | Sequence[Encoded], shape: tuple[int, int, int], broken: list[str]
) -> Iterator[np.ndarray]:
    """Yield all images in order, uint8 [some, *shape], converted and resized.

    16 bits of grey become 8 by their upper half, and pictures are turned as their Exif data says.

    Args:
        images: uint8 [n, height, width, channels] or encoded.
        shape: height, width and channels.
        broken: gets each image that cannot be decoded, and why; from the first one on nothing is yielded.
    """
    if isinstance(images, np.ndarray):
        for start in range(0, len(images), _STRETCH):
            some = images[start : start + _STRETCH]
            yield (
                some if some.shape[1:] == shape else np.stack([_fitted(_picture(one), shape) for one in some])
            )
        return
    for found in _each(images, lambda image: _pixels(image, shape)):
        broken += [problem for problem in found if isinstance(problem, str)]
        if not broken:
            yield np.stack([pixels for pixels in found if not isinstance(pixels, str)])


def refuse(broken: list[str], *, of: int) -> None:
    """Raise what `decode` found broken, if anything.

    Raises:
        InputError: with the first ten by name.
    """
    if broken:
        more = f" and {len(broken) - 10} more" if len(broken) > 10 else ""
        raise InputError(
            f"{len(broken)} of {of} images cannot be decoded; mend or remove {', '.join(broken[:10])}{more}"
        )


def _forms(split: Split, size: int | None) -> set[tuple[int, int, int] | str]:
    """Every height, width and number of channels to be had of the images, and what is wrong with those without."""
    if isinstance(split.images, np.ndarray):
        _, height, width, channels = split.images.shape
        return {(size or height, size or width, channels)}
    return {form for found in _each(split.images, lambda image: _form(image, size)) for form in found}


def _picture(pixels: np.ndarray) -> Image:
    from PIL import Image

    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _each(images: Sequence[Encoded], function: Callable[[Image], Found]) -> Iterator[list[Found | str]]:
    """What the function makes of each opened image, or what is wrong with it; a stretch at a time, in order."""
    from PIL import Image

    def one(encoded: Encoded) -> Found | str:
        try:
            with encoded.open() as file, Image.open(file) as image:
                return function(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            return f"{encoded.name} ({error})"

    workers = os.cpu_count() or 1
    stretches = [images[start : start + _STRETCH] for start in range(0, len(images), _STRETCH)]
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(stretches), workers):
            yield from pool.map(lambda stretch: [*map(one, stretch)], stretches[start : start + workers])


def _form(image: Image, size: int | None) -> tuple[int, int, int]:
    _check_mode(image)
    channels = 1 if image.mode in _GREY else 3
    if size is not None:
        return size, size, channels
    width, height = image.size
    if image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE:
        width, height = height, width
    return height, width, channels


def _check_mode(image: Image) -> None:
    if image.mode not in _GREY + _COLOUR:
        raise ValueError(f"pixels of the kind {image.mode}; 8 bits a channel, or 16 of grey, are needed")


def _pixels(image: Image, shape: tuple[int, int, int]) -> np.ndarray:
    from PIL import Image, ImageOps

    _check_mode(image)
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in _DEEP_GREY:
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return _fitted(image, shape)


def _fitted(image: Image, shape: tuple[int, int, int]) -> np.ndarray:
    from PIL.Image import Resampling

    height, width, channels = shape
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Resampling.BILINEAR)
    return np.asarray(image).reshape(shape)
