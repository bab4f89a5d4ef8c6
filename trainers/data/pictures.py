"""One picture: from an open file to 8-bit pixels of a given size."""

from __future__ import annotations

import dataclasses
import functools
import struct
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from trainers.data import dicom
from trainers.data.spec import PictureSpec
from trainers.data.values import Values
from trainers.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

Shape = tuple[int, int, int]
"""Height, width and channels."""

_DEEP_GREY = ("I;16", "I;16B", "I;16L", "I;16N")
_WITHOUT_RANGE = ("I", "F")
"""32 bits of grey, whose black and white are not known."""
_GREY = ("1", "L", "LA", *_DEEP_GREY, *_WITHOUT_RANGE)
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_ORIENTATION = 0x0112
_ON_ITS_SIDE = (5, 6, 7, 8)
"""Values of Exif's tag that swap height and width."""
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A picture's pixels, and what they were made of."""

    pixels: np.ndarray
    """Uint8 [height, width, channels]."""
    levels: np.ndarray | None
    """Int64 [256]: how many pixels have each value before resizing, if the picture is stored in more than 8 bits."""
    stored: tuple[float, float] | None
    """Lowest and highest stored value, if a window is set."""


def shape_of(file: BinaryIO, name: str, spec: PictureSpec, size: tuple[int, int] | None) -> Shape:
    """Height, width and channels that a picture has by its header; those of `size` where it is given.

    Raises:
        InputError: a library is missing.
        Exception: whatever a damaged file makes its reader raise.
    """
    if dicom.is_dicom(file, name):
        height, width, channels = dicom.shape_of(file, name)
        _check_size(width, height, spec)
    else:
        image = _open(file, name, spec)
        _check_mode(image, spec)
        grey = image.mode in _GREY and not (image.has_transparency_data and _has_colour(spec.background))
        width, height, channels = *image.size, 1 if grey else 3
        # Pillow turns TIFF by itself, and gives its size turned.
        if image.format != "TIFF" and _orientation(image) in _ON_ITS_SIDE:
            width, height = height, width
    height, width = size or (height, width)
    return height, width, channels


def decode_file(file: BinaryIO, name: str, shape: Shape, spec: PictureSpec) -> Decoded:
    """Read a picture as 8-bit pixels, upright, over the background where it is transparent, and of the given shape.

    Raises:
        InputError: a library is missing.
        Exception: whatever a damaged file makes its reader raise.
    """
    if dicom.is_dicom(file, name):
        read = dicom.read(file, name, spec)
        return decode_values(read, shape, spec) if isinstance(read, Values) else _of_colour(read, shape, spec)
    image = _open(file, name, spec)
    _check_mode(image, spec)
    is_deep = any(";16" in str(tile[3]) for tile in image.tile)
    image.load()
    image = _upright(image)
    if image.mode in _DEEP_GREY + _WITHOUT_RANGE:
        stored = np.asarray(image)
        transparent = image.info.get("transparency")
        values = Values(stored, transparent=None if transparent is None else stored == transparent)
        return decode_values(values, shape, spec)
    if is_deep and spec.window is not None:
        raise ValueError(
            "16 bits a channel with colour or transparency, of which the upper 8 are read; data.window needs grey alone"
        )
    return _of_image(image, shape, spec, is_deep=is_deep)


def decode_values(values: Values, shape: Shape, spec: PictureSpec) -> Decoded:
    """A grey picture of more than 8 bits as 8-bit pixels of the given shape."""
    from PIL import Image

    grey = values.as_bytes(spec)
    levels = np.bincount(grey.ravel(), minlength=256)
    image = Image.fromarray(grey)
    if values.transparent is not None:
        image = _over_background(image, Image.fromarray(~values.transparent), spec)
    return Decoded(_fitted(image, shape, spec), levels, values.range if spec.window else None)


def decode_array(pixels: np.ndarray, shape: Shape, spec: PictureSpec) -> Decoded:
    """The same of an image in memory, [height, width, channels] of any numbers."""
    if pixels.dtype == np.uint8:
        return _of_colour(pixels, shape, spec)
    values = Values(pixels)
    grey = values.as_bytes(spec)
    levels = np.bincount(grey.ravel(), minlength=256)
    return Decoded(_fitted(_image_of(grey), shape, spec), levels, values.range if spec.window else None)


def _of_colour(pixels: np.ndarray, shape: Shape, spec: PictureSpec) -> Decoded:
    return _of_image(_image_of(pixels), shape, spec, is_deep=False)


def _of_image(image: Image, shape: Shape, spec: PictureSpec, *, is_deep: bool) -> Decoded:
    """An 8-bit picture, to whose values a window or a stretch applies as to those of more bits."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = _over_background(rgba.convert("RGB"), rgba.getchannel("A"), spec)
    image = image.convert("L" if shape[2] == 1 else "RGB")
    stored = None
    if spec.window is not None or spec.stretch is not None:
        values = Values(np.asarray(image))
        stored = values.range if spec.window else None
        image = _image_of(values.as_bytes(spec))
    levels = np.bincount(np.asarray(image).ravel(), minlength=256) if is_deep else None
    return Decoded(_fitted(image, shape, spec), levels, stored)


def _image_of(pixels: np.ndarray) -> Image:
    from PIL import Image

    return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels)


def _open(file: BinaryIO, name: str, spec: PictureSpec) -> Image:
    """Identify a picture as Image.open does, which would refuse large ones by a limit of its own."""
    from PIL import Image, UnidentifiedImageError

    prefix = file.read(16)
    file.seek(0)
    if not prefix:
        raise ValueError("the file is empty")
    if prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIF_BRANDS:
        try:
            _register_heif()
        except ImportError as error:
            raise InputError(
                f"{name} is a HEIC picture, which needs pillow-heif; pip install 'tandem-compare[heic]'"
            ) from error
    Image.init()
    reason = "no picture of a known kind"
    for identifier in Image.ID:
        factory, accept = Image.OPEN[identifier]
        try:
            accepted = accept is None or accept(prefix)
            if isinstance(accepted, str):  # what Pillow was built without
                reason = accepted
            elif accepted:
                file.seek(0)
                image = factory(file, "")
                _check_size(*image.size, spec)
                return image
        except (SyntaxError, IndexError, TypeError, struct.error):  # it is of another kind
            continue
    raise UnidentifiedImageError(reason)


@functools.cache
def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()


def _check_size(width: int, height: int, spec: PictureSpec) -> None:
    if width * height > spec.max_pixels:
        raise ValueError(
            f"{width}x{height} are {width * height:,} pixels; data.max_pixels allows {spec.max_pixels:,}"
        )


def _check_mode(image: Image, spec: PictureSpec) -> None:
    has_range = (
        image.mode not in _WITHOUT_RANGE or image.format == "PPM"
    )  # whose greys Pillow scales to 16 bits
    if not has_range and spec.window is None and spec.stretch is None:
        raise ValueError(
            f"pixels of the kind {image.mode}; 8 bits a channel, or 16 of grey, are needed, or data.window or "
            "data.stretch, which give them a range"
        )
    if image.mode not in _GREY + _COLOUR:
        raise ValueError(f"pixels of the kind {image.mode}; 8 bits a channel, or 16 of grey, are needed")


def _orientation(image: Image) -> int | None:
    """What the camera noted; None where nothing can be read of it."""
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:  # damaged Exif data raise anything, and the pixels may be whole
        return None


def _upright(image: Image) -> Image:
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    turn = turns.get(_orientation(image) or 1)
    return image if turn is None else image.transpose(turn)


def _has_colour(background: str) -> bool:
    from PIL import ImageColor

    return len({*ImageColor.getrgb(background)}) > 1


def _over_background(image: Image, opacity: Image, spec: PictureSpec) -> Image:
    """A picture laid over the background, where its opacity is below 255."""
    from PIL import Image

    mode = "RGB" if _has_colour(spec.background) else image.mode
    ground = Image.new(mode, image.size, spec.background)
    ground.paste(image.convert(mode), mask=opacity.convert("L"))
    return ground


def _fitted(image: Image, shape: Shape, spec: PictureSpec) -> np.ndarray:
    from PIL import ImageColor, ImageOps
    from PIL.Image import Resampling

    height, width, channels = shape
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        method = Resampling.BILINEAR
        if spec.resize == "stretch":
            image = image.resize((width, height), method)
        elif spec.resize == "crop":
            image = ImageOps.fit(image, (width, height), method)
        else:
            colour = ImageColor.getcolor(spec.background, image.mode)
            image = ImageOps.pad(image, (width, height), method, color=colour)
    return np.asarray(image).reshape(shape)
