"""Simple damage to test images: noise, blur, JPEG, each in three strengths.

Kinds and constants are those of Hendrycks and Dietterich, 2019, severities 1, 3 and 5: of CIFAR-10-C for images below
64 pixels, of ImageNet-C for larger ones.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

SEVERITIES = (1, 3, 5)
_LARGE = 64


def _noise(image: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    return _pixels(image + rng.standard_normal(image.shape, np.float32) * (deviation * 255))


def _blur(image: np.ndarray, radius: float, _: np.random.Generator) -> np.ndarray:
    from scipy import ndimage

    return _pixels(ndimage.gaussian_filter(image.astype(np.float32), (radius, radius, 0), mode="nearest"))


def _jpeg(image: np.ndarray, quality: float, _: np.random.Generator) -> np.ndarray:
    def through(pixels: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "jpeg", quality=int(quality))
        return np.asarray(Image.open(buffer))

    if image.shape[-1] == 3:
        return through(image)
    return np.stack([through(plane) for plane in np.moveaxis(image, -1, 0)], axis=-1)


def _pixels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


_Damage = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]

CORRUPTIONS: dict[str, tuple[_Damage, list[float], list[float]]] = {
    "noise": (_noise, [0.04, 0.08, 0.10], [0.08, 0.18, 0.38]),
    "blur": (_blur, [0.4, 0.7, 1.0], [1, 3, 6]),
    "jpeg": (_jpeg, [80, 58, 40], [25, 15, 7]),
}
"""Of each kind, what does it to one image and its strength at each severity, for small images and for large ones."""


def corrupt(images: np.ndarray, kind: str, severity: int) -> np.ndarray:
    """Damage images, the same way every time.

    Args:
        images: uint8 [n, height, width, channels].
        kind: one of `CORRUPTIONS`.
        severity: one of `SEVERITIES`.

    Returns:
        Uint8, the images' shape.
    """
    damage, small, large = CORRUPTIONS[kind]
    strengths = large if min(images.shape[1:3]) >= _LARGE else small
    rng, strength = np.random.default_rng(0), strengths[SEVERITIES.index(severity)]
    return np.stack([damage(image, strength, rng) for image in images])
