"""A trained PyTorch model for use elsewhere: with its preprocessing, in PyTorch's own format, and ONNX where it can be.

Twin of `trainers/keras/exported_model.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainers.contract import logits_of
from trainers.test_time_augmentation import AugmentedCopy

FILE = "model.pt2"


class ExportedModel(nn.Module):
    """From uint8 pixels [n, height, width, channels] to probabilities, float32 [n, num_classes]."""

    def __init__(
        self,
        module: nn.Module,
        copies: list[AugmentedCopy],
        scale: Tensor,
        offset: Tensor,
        kernel: Tensor | None,
        stride: int,
    ) -> None:
        super().__init__()
        self.module = module
        self.copies = copies
        self.register_buffer("scale", scale)
        self.register_buffer("offset", offset)
        self.register_buffer("kernel", kernel)
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        x = torch.addcmul(self.offset, images.permute(0, 3, 1, 2).float(), self.scale)
        logits = sum(copy.weight * self._logits(_augmented(x, copy)) for copy in self.copies)
        return F.softmax(logits, dim=1)

    def _logits(self, x: Tensor) -> Tensor:
        if self.kernel is not None:
            x = F.relu(F.conv2d(x, self.kernel, stride=self.stride))
        return logits_of(self.module(x)).float()


def _augmented(x: Tensor, copy: AugmentedCopy) -> Tensor:
    """As `trainers.test_time_augmentation.augmented`, of images [n, channels, height, width]."""
    height, width = x.shape[2:]
    if copy.padding:
        padded = F.pad(x, (copy.padding,) * 4, mode="reflect")
        x = padded[:, :, copy.first : copy.first + height, copy.first : copy.first + width]
    return x.flip(3) if copy.mirrored else x


def save(
    model: ExportedModel, directory: Path, image_shape: tuple[int, int, int], *, as_onnx: bool = True
) -> list[str]:
    """Write a model as `torch.export` has it; returns the names of the files.

    Args:
        model: from an engine.
        directory: where to.
        image_shape: height, width, channels.
        as_onnx: whether to write ONNX as well, where it can be.
    """
    example = torch.zeros((2, *image_shape), dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (example,), dynamic_shapes={"images": {0: batch}})
    torch.export.save(program, directory / FILE)
    written = [FILE]
    if as_onnx and find_spec("onnxscript") is not None:
        torch.onnx.export(
            model, (example,), directory / "model.onnx", dynamic_shapes={"images": {0: batch}}, dynamo=True
        )
        written.append("model.onnx")
    return written


def load(directory: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A saved model as a function from uint8 images to probabilities."""
    module = torch.export.load(directory / FILE).module()

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(images)))

    return predict
