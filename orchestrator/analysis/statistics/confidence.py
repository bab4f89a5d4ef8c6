"""How well confidence equals accuracy."""

from __future__ import annotations

import numpy as np


def calibration_error(confidences: np.ndarray, right: np.ndarray, *, bins: int = 15) -> float:
    """Expected calibration error (Guo et al., 2017): confidence minus accuracy, over bins of confidence.

    Args:
        confidences: float [n], of the prediction.
        right: bool [n].
        bins: of equal width.
    """
    place = np.minimum((confidences * bins).astype(int), bins - 1)
    error = 0.0
    for number in range(bins):
        inside = place == number
        if inside.any():
            error += inside.mean() * abs(confidences[inside].mean() - right[inside].mean())
    return float(error)
