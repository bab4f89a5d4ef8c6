"""Stored values of a picture, such as 16 bits of grey or Hounsfield units, and the 8 bits that are kept of them."""

from __future__ import annotations

import dataclasses

import numpy as np

from trainers.data.spec import PictureSpec

_PERCENTILES = (1, 99)


@dataclasses.dataclass(frozen=True)
class Values:
    """A picture as it is stored."""

    stored: np.ndarray
    """Numbers of any kind."""
    window: tuple[float, float] | None = None
    """What becomes black and white where the experiment does not say; None for the upper 8 of 16 bits."""
    is_inverted: bool = False
    """Whether the lowest value is white."""
    transparent: np.ndarray | None = None
    """Bool [height, width]; None where nothing is."""

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest value."""
        return float(np.nanmin(self.stored)), float(np.nanmax(self.stored))

    def as_bytes(self, spec: PictureSpec) -> np.ndarray:
        """Uint8 of the same shape, by the experiment's window or stretch, or else by the picture's own window.

        Raises:
            ValueError: no value is a number.
        """
        window = spec.window or self.window
        if spec.stretch == "percentiles":
            known = self.stored[np.isfinite(self.stored)]
            if not known.size:
                raise ValueError("no pixel is a number")
            low, high = np.percentile(known, _PERCENTILES).tolist()
            window = low, high
        if window is None:
            return (self.stored >> 8).astype(np.uint8)
        low, high = window
        shares = (self.stored.astype(np.float64) - low) / max(high - low, np.finfo(np.float64).tiny)
        grey = np.rint(np.clip(np.nan_to_num(shares), 0, 1) * 255).astype(np.uint8)
        return 255 - grey if self.is_inverted else grey
