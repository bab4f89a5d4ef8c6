"""Training images that a device holds, and from which it makes batches itself."""

from __future__ import annotations

import numpy as np
import torch

from trainers.data.batches import Selection, source_pixels

_COPIED_AT_ONCE = 64 << 20
"""Bytes."""


class DeviceImages:
    """Uint8 images on a device; its batches are equal to those of `trainers.data.batches` bit for bit."""

    def __init__(self, images: np.ndarray, device: torch.device) -> None:
        self.source = images
        self._device = device
        self._images = torch.empty(images.shape, dtype=torch.uint8, device=device)
        many = max(1, _COPIED_AT_ONCE // images[0].nbytes)
        for first in range(0, len(images), many):
            self._images[first : first + many] = torch.from_numpy(np.array(images[first : first + many]))

    def block(self, selection: Selection) -> torch.Tensor:
        """The augmented images of a block: uint8 [steps, share, height, width, channels]."""
        height, width = self._images.shape[1:3]
        places = self._moved(selection.places.reshape(-1))
        if selection.augmentation.crop or selection.augmentation.flip:
            rows, columns = map(self._moved, source_pixels(selection, height, width))
            images = self._images[places[:, None, None], rows[:, :, None], columns[:, None, :]]
        else:
            images = self._images[places]
        return images.view(*selection.places.shape, *images.shape[1:])

    def _moved(self, values: np.ndarray) -> torch.Tensor:
        return to_device(values, self._device)


class ImageStore:
    """The training images that the runs of a process share on a device, if its memory has room for them."""

    def __init__(self, device: torch.device, most_bytes: int) -> None:
        self._device = device
        self._most_bytes = most_bytes
        self._held: DeviceImages | None = None

    def held(self, images: np.ndarray) -> DeviceImages | None:
        """These images on the device; None where they are too large for it."""
        if images.nbytes > self._most_bytes:
            return None
        if self._held is None or self._held.source is not images:
            self._held = None  # before the next ones take its place
            self._held = DeviceImages(images, self._device)
        return self._held


def to_device(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """An array on a device, copied through pinned memory without waiting for it on a GPU."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor
