"""The `data:` block of an experiment file."""

from __future__ import annotations

import difflib
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from trainers.data import registry
from trainers.recipes import Block

SMALLEST_SIDE = 4
"""Pixels that an image has at least on each side."""


def _image_size(value: Any) -> Any:
    """Check both forms here, so that an error names the field and not a member of a union."""
    sides = value if isinstance(value, list | tuple) else [value]
    whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
    if value is not None and (not whole or len(sides) > 2 or len(sides) == 0 or min(sides) < SMALLEST_SIDE):
        raise ValueError(
            f"image_size {value!r} is wrong; give a number of pixels from {SMALLEST_SIDE}, such as 64, or "
            "[height, width], such as [48, 64]"
        )
    return sides[0] if value is not None and len(sides) == 1 else value


def _window(value: Any) -> Any:
    """Likewise, so that an error names the field and not one of its two numbers."""
    if value is None:
        return None
    numbers = isinstance(value, list | tuple) and all(
        isinstance(number, int | float) and math.isfinite(number) for number in value
    )
    if not numbers or len(value) != 2 or value[0] >= value[1]:
        raise ValueError(
            f"window {value!r} is wrong; give [low, high] with low below high, such as [-100, 200]"
        )
    return value


_Window = Annotated[
    tuple[float, float] | None, BeforeValidator(_window, json_schema_input_type=tuple[float, float] | None)
]
_Side = Annotated[int, Field(ge=SMALLEST_SIDE)]
_ImageSize = Annotated[
    int | tuple[int, int] | None,
    BeforeValidator(_image_size, json_schema_input_type=_Side | tuple[_Side, _Side] | None),
]


def _source_name(value: Any) -> Any:
    if value is None or value in registry.names() or re.fullmatch(registry.FUNCTION, str(value)):
        return value
    near = difflib.get_close_matches(str(value), registry.names(), n=1)
    hint = f", did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"source {value!r} is not one of {', '.join(registry.names())}, nor a package.module:function{hint}"
    )


_SourceName = Annotated[
    str | None,
    BeforeValidator(_source_name),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": registry.names()},
                {"type": "string", "pattern": f"^{registry.FUNCTION}$"},
                {"type": "null"},
            ]
        }
    ),
]


class PictureSpec(Block):
    """How a picture's stored values become 8-bit pixels of one size; a saved model keeps it for new pictures."""

    resize: Literal["stretch", "crop", "pad"] = Field(
        "stretch",
        description="How pictures of another shape get the image size: stretched, their middle cut out, or "
        "surrounded by `background`.",
    )
    window: _Window = Field(
        None,
        description="Stored values that become black and white, [low, high]; of DICOM files after their rescale "
        "slope and intercept.",
    )
    stretch: Literal["percentiles"] | None = Field(
        None,
        description="percentiles: the 1st and the 99th percentile of each picture's values become black and white.",
    )
    background: str = Field(
        "white", description="Colour below transparent pixels and around padded pictures: a name or #rrggbb."
    )
    max_pixels: int = Field(
        178_956_970,
        gt=0,
        description="Pictures with more pixels count as unreadable: a small file may fill the memory.",
    )

    @field_validator("background")
    @classmethod
    def _is_colour(cls, value: str) -> str:
        from PIL import ImageColor

        try:
            opaque = len(ImageColor.getrgb(value)) == 3
        except ValueError:
            opaque = False
        if not opaque:
            raise ValueError(f"background {value!r} is no colour; give a name such as black, or #rrggbb")
        return value

    @model_validator(mode="after")
    def _one_range(self) -> PictureSpec:
        if self.window is not None and self.stretch is not None:
            raise ValueError("window and stretch exclude each other; keep one of the two")
        return self


class DataSpec(PictureSpec):
    """Which images to train on, and how they are split."""

    source: _SourceName = Field(
        None,
        description="Where the images come from, or a package.module:function of your own; taken from the path's "
        "contents when left out.",
    )
    path: Path | None = Field(None, description="File or directory, on every node that trains.")
    image_size: _ImageSize = Field(
        None,
        description="Resize to this many pixels square, or to [height, width]; needed when sizes differ.",
    )
    image_column: str | None = Field(
        None,
        description="Column of a table, of Parquet or of batches that holds the pictures or names their files; "
        "field of WebDataset's samples.",
    )
    label_column: str | None = Field(
        None,
        description="Column of a table, of Parquet or of batches, or field of WebDataset's samples, that holds the "
        "classes; fine_label or coarse_label of CIFAR-100.",
    )
    extension: str | None = Field(
        None, description="Appended to the names in a table that lack it, such as jpg."
    )
    images: Path | None = Field(
        None, description="Folder that the names in a table are relative to, if it is not the table's own."
    )
    unreadable: Literal["error", "skip"] = Field(
        "error", description="Whether pictures that cannot be read are an error or are left out."
    )
    test: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share held out for testing where the source has no test split.",
    )
    validation: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of the training split held out for the learning curves where the source has no "
        "validation split.",
    )
    group_by: str | None = Field(
        None,
        description="What belongs together, such as a patient's pictures, and is held out together: of a folder "
        "a regular expression whose part in parentheses names it in the pictures' paths, of Parquet and of a table "
        "a column, of .npz an array.",
    )
    split: int = Field(
        0, ge=0, description="Which split is drawn; another number holds out other images, or another fold."
    )
    resplit: bool = Field(
        False,
        description="Draw another split for each seed, so that a verdict does not rest on one test split.",
    )
    folds: int | None = Field(
        None,
        ge=2,
        description="Share the images out over so many test splits, of which each seed has the next one.",
    )
    limit: int | None = Field(None, gt=0, description="Keep only this many training images, for a quick try.")

    @model_validator(mode="after")
    def _path_where_needed(self) -> DataSpec:
        if self.source is None or registry.is_function(self.source) or self.path is not None:
            return self
        if registry.load(self.source).locate is None:
            raise ValueError(f"source {self.source} needs a path, such as path: data/{self.source}")
        return self

    @model_validator(mode="after")
    def _one_way_to_split(self) -> DataSpec:
        if self.resplit and self.folds is not None:
            raise ValueError("resplit and folds exclude each other; keep one of the two")
        if self.folds is not None and self.split >= self.folds:
            raise ValueError(f"split {self.split} is not one of {self.folds} folds, which count from 0")
        return self

    @property
    def has_many_splits(self) -> bool:
        """Whether seeds have splits of their own."""
        return self.resplit or self.folds is not None

    def of_seed(self, seed: int) -> DataSpec:
        """The images that a run with a seed is trained and tested on."""
        if not self.has_many_splits:
            return self
        return self.model_copy(update={"split": seed if self.folds is None else seed % self.folds})

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width that images are resized to; None for their own."""
        if self.image_size is None or isinstance(self.image_size, tuple):
            return self.image_size
        return self.image_size, self.image_size
