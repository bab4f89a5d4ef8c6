"""From pixels to what the model sees: scaling, and optionally whitened patches. Pure numpy.

The numbers come from the training images alone and are computed once for both frameworks; each
engine applies them with its own convolution.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from trainers.data import Dataset
from trainers.recipes import Recipe, Whitening

_PATCH_IMAGES = 5000
_PATCH_SIDE = 32
_EPSILON = 1e-2
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of its channels in 0..1, as torchvision's pretrained models expect them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputTransform:
    """x = pixel * scale + offset, then relu(convolution(x, kernel)) where there is a kernel."""

    scale: np.ndarray
    """Float32 [channels]."""
    offset: np.ndarray
    """Float32 [channels]."""
    kernel: np.ndarray | None = None
    """Float32 [patch, patch, channels, features]."""
    stride: int = 1
    """Of the convolution, which pads nothing."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Itself, to be kept."""
        kept = {"scale": self.scale, "offset": self.offset, "stride": np.array(self.stride)}
        return kept if self.kernel is None else kept | {"kernel": self.kernel}

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray]) -> InputTransform:
        """What `arrays` gave."""
        return cls(**arrays | {"stride": int(arrays["stride"])})


def input_transform(dataset: Dataset, recipe: Recipe) -> InputTransform:
    """The transform that a recipe asks for on a data set."""
    channels = dataset.image_shape[2]
    imagenet = [
        np.array(values) if channels == 3 else np.full(channels, np.mean(values)) for values in _IMAGENET
    ]
    mean, std = {
        "raw": (np.zeros(channels), np.full(channels, 1 / 255)),
        "unit": (np.zeros(channels), np.ones(channels)),
        "symmetric": (np.full(channels, 0.5), np.full(channels, 0.5)),
        "standardized": (dataset.channel_mean, np.maximum(dataset.channel_std, 1e-3)),
        "imagenet": imagenet,
    }[recipe.inputs]
    scale, offset = (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)
    if recipe.whitening is None:
        return InputTransform(scale=scale, offset=offset)
    kernel = whitening_kernel(dataset.train_images[:_PATCH_IMAGES], scale, offset, recipe.whitening)
    return InputTransform(scale=scale, offset=offset, kernel=kernel, stride=recipe.whitening.stride)


def whitening_kernel(
    images: np.ndarray, scale: np.ndarray, offset: np.ndarray, whitening: Whitening
) -> np.ndarray:
    """Kernels that decorrelate patches and give them unit variance, and the negatives of each.

    Of large images not all patches are looked at, but as many as an image of 32 pixels has.

    Args:
        images: uint8 [n, height, width, channels].
        scale: float32 [channels], of the pixels.
        offset: float32 [channels], of the scaled pixels.
        whitening: side and stride of the patches.

    Returns:
        Float32 [patch, patch, channels, 2 * patch² * channels].
    """
    patch, (height, width, channels) = whitening.patch, images.shape[1:]
    windows = np.lib.stride_tricks.sliding_window_view(images, (patch, patch), axis=(1, 2))
    apart = patch * max(1, round(math.sqrt(height * width) / _PATCH_SIDE))
    patches = windows[:, ::apart, ::apart].transpose(0, 1, 2, 4, 5, 3) * scale + offset
    patches = patches.reshape(-1, patch**2 * channels)
    covariance = np.atleast_2d(np.cov(patches, rowvar=False, dtype=np.float64))
    variances, directions = np.linalg.eigh(covariance)
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, np.arange(len(largest))])
    kernel = directions / np.sqrt(np.maximum(variances, 0) + _EPSILON)
    both = np.concatenate([kernel, -kernel], axis=1)
    return both.reshape(patch, patch, channels, -1).astype(np.float32)
