"""The `data:` block of an experiment file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from trainers.recipes import Block

Source = Literal["digits", "cifar10", "cifar10_batches", "parquet", "folder", "table", "npz"]


class DataSpec(Block):
    """Which images to train on, and how they are split."""

    source: Source | None = Field(
        None, description="Where the images come from; told from the path's contents when left out."
    )
    path: Path | None = Field(None, description="File or directory, on every node that trains.")
    image_size: int | None = Field(
        None, gt=3, description="Resize to this many pixels square; needed when sizes differ."
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
    limit: int | None = Field(None, gt=0, description="Keep only this many training images, for a quick try.")

    @model_validator(mode="after")
    def _path_where_needed(self) -> DataSpec:
        if self.source in ("cifar10_batches", "parquet", "folder", "table", "npz") and self.path is None:
            raise ValueError(f"source {self.source} needs a path, such as path: data/{self.source}")
        if self.source == "digits" and self.path is not None:
            raise ValueError("source digits ships with scikit-learn and takes no path")
        return self
