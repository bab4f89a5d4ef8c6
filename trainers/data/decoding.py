"""Turn the images of a source into pixels of one shape, a few at a time."""

from __future__ import annotations

import dataclasses
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np

from trainers.data import pictures
from trainers.data.labelled import Encoded, Split
from trainers.data.pictures import Decoded, Shape
from trainers.data.spec import DataSpec, PictureSpec
from trainers.errors import InputError

_STRETCH = 64
"""Images that one thread works on at a time."""

Found = TypeVar("Found")


@dataclasses.dataclass(frozen=True)
class Broken:
    """An image that cannot be read."""

    place: int
    """Among the images of its split."""
    name: str
    reason: str


class UnreadableError(InputError):
    """Images cannot be read: a sentence, and below it the name of each, one a line."""

    @classmethod
    def of(cls, broken: Sequence[Broken], *, images: int, remedy: str) -> UnreadableError:
        """For what was found broken among so many images; the remedy ends the sentence."""
        first = min(image.name for image in broken)
        return cls(
            f"{len(broken)} of {images} images cannot be decoded, such as {first}{remedy}:\n{listing(broken)}"
        )

    @property
    def listing(self) -> str:
        """The part below the sentence."""
        return str(self).partition("\n")[2]


def refuse(broken: Sequence[Broken], spec: DataSpec, *, images: int) -> None:
    """Raise what `decode` found broken of a data set, unless the rest can be trained on without it.

    Raises:
        UnreadableError: names every image.
    """
    if broken and spec.unreadable == "error":
        remedy = f", in {spec.path}; mend or remove them, or train without them by data.unreadable: skip"
        raise UnreadableError.of(broken, images=images, remedy=remedy)
    if len(broken) == images:
        raise UnreadableError.of(broken, images=images, remedy=f", in {spec.path}; mend some of them")


def listing(broken: Sequence[Broken]) -> str:
    """The names one a line, below each reason."""
    reasons: dict[str, list[str]] = {}
    for image in broken:
        reasons.setdefault(image.reason, []).append(image.name)
    return "\n".join(
        line
        for reason, names in reasons.items()
        for line in (f"{reason}:", *(f"  {name}" for name in sorted(names)))
    )


@dataclasses.dataclass
class Account:
    """What decoding found."""

    levels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    """How many pixels of the images stored in more than 8 bits have each 8-bit value."""
    stored: list[tuple[str, float, float]] = dataclasses.field(default_factory=list)
    """Name, lowest and highest stored value of each image, where a window is set."""

    def add(self, name: str, image: Decoded) -> np.ndarray:
        """Count an image in; returns its pixels."""
        if image.levels is not None:
            self.levels += image.levels
        if image.stored is not None:
            self.stored.append((name, *image.stored))
        return image.pixels


def shape_of(splits: Sequence[Split], spec: DataSpec) -> Shape:
    """Height, width and channels that all images are decoded to: one channel if none has colour.

    Raises:
        InputError: images that cannot be decoded, unless they are skipped; or sizes that differ where none was chosen.
    """
    found = {form for split in splits for form in _forms(split, spec)}
    forms = {form for form in found if not isinstance(form, Broken)}
    if len(forms) < len(found) and (spec.unreadable == "error" or not forms):
        broken: list[Broken] = []
        for split in splits:  # to name those that are broken behind their headers too
            deque(decode(split.images, (1, 1, 1), spec, broken), maxlen=0)
        refuse(broken, spec, images=sum(len(split.images) for split in splits))
    sizes = sorted({(height, width) for height, width, _ in forms})
    if len(sizes) > 1:
        raise InputError(
            f"the images of {spec.path} have {len(sizes)} different sizes, from {sizes[0][1]}x{sizes[0][0]} "
            f"to {sizes[-1][1]}x{sizes[-1][0]} pixels; set data.image_size, such as image_size: 64"
        )
    return *sizes[0], max(channels for _, _, channels in forms)


def shapes(split: Split, spec: DataSpec) -> set[Shape]:
    """Every height, width and number of channels of the images that can be read."""
    return {form for form in _forms(split, spec) if not isinstance(form, Broken)}


def decode(
    images: np.ndarray | Sequence[Encoded],
    shape: Shape,
    spec: PictureSpec,
    broken: list[Broken],
    account: Account | None = None,
) -> Iterator[np.ndarray]:
    """Yield all images that can be read, in order, uint8 [some, *shape].

    Args:
        images: [n, height, width, channels] or encoded.
        shape: height, width and channels.
        spec: how pictures become pixels.
        broken: gets each image that cannot be read.
        account: gets what the images hold.
    """
    account = account or Account()
    if isinstance(images, np.ndarray):
        as_they_are = images.dtype == np.uint8 and spec.window is None and spec.stretch is None
        for start in range(0, len(images), _STRETCH):
            some = images[start : start + _STRETCH]
            yield (
                some
                if as_they_are and some.shape[1:] == shape
                else np.stack(
                    [
                        account.add(f"image {place}", pictures.decode_array(image, shape, spec))
                        for place, image in enumerate(some, start)
                    ]
                )
            )
        return

    def one(file: BinaryIO, name: str) -> Decoded:
        return pictures.decode_file(file, name, shape, spec)

    for found in _each(images, one):
        broken += [problem for _, problem in found if isinstance(problem, Broken)]
        whole = [account.add(name, image) for name, image in found if not isinstance(image, Broken)]
        if whole:
            yield np.stack(whole)


def write(
    path: Path,
    images: np.ndarray | Sequence[Encoded],
    shape: Shape,
    spec: PictureSpec,
    broken: list[Broken],
    account: Account | None = None,
) -> None:
    """Decode images into an .npy file, a few at a time; arguments as `decode` has them."""

    def write_header(count: int) -> None:  # which has room for the number of images, known at the end
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
        )

    with open(path, "wb") as file:
        write_header(len(images))
        for pixels in decode(images, shape, spec, broken, account):
            file.write(np.ascontiguousarray(pixels))
        file.seek(0)
        write_header(len(images) - len(broken))


def _forms(split: Split, spec: DataSpec) -> set[Shape | Broken]:
    """Every height, width and number of channels of the images, and those images that have none."""
    if isinstance(split.images, np.ndarray):
        _, height, width, channels = split.images.shape
        return {(*(spec.size or (height, width)), channels)}

    def form(file: BinaryIO, name: str) -> Shape:
        return pictures.shape_of(file, name, spec, spec.size)

    return {form for found in _each(split.images, form) for _, form in found}


def _each(
    images: Sequence[Encoded], function: Callable[[BinaryIO, str], Found]
) -> Iterator[list[tuple[str, Found | Broken]]]:
    """Each image's name with what the function makes of it, or with what is wrong; a stretch at a time, in order."""

    def one(place: int) -> tuple[str, Found | Broken]:
        name = images[place].name
        try:
            with images[place].open() as file:
                return name, function(file, name)
        except InputError:
            raise
        except Exception as error:  # reading what is damaged raises anything
            return name, Broken(place, name, _reason(error))

    workers = os.cpu_count() or 1
    stretches = [
        range(start, min(start + _STRETCH, len(images))) for start in range(0, len(images), _STRETCH)
    ]
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(stretches), workers):
            yield from pool.map(lambda stretch: [*map(one, stretch)], stretches[start : start + workers])


def _reason(error: Exception) -> str:
    """What is wrong with a picture, without its name, so that pictures with the same fault are listed together."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
    return said or type(error).__name__
