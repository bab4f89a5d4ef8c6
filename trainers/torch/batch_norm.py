"""Batch normalisation as Keras and the papers have it, and over the global batch.

PyTorch keeps the unbiased variance of each batch for evaluation but normalises with the biased
one; here, as in Keras, both are the biased one (Ioffe and Szegedy, 2015, train with it).
"""

from __future__ import annotations

import torch
import torch.distributed.nn.functional as distributed
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm2d):
    """`BatchNorm2d` that keeps the biased variance."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        before = self.running_var * (1 - self.momentum)
        y = super().forward(x)
        count = x.numel() // x.shape[1]
        self.running_var.data.lerp_(before, 1 / count)  # the backward pass keeps it but does not read it
        return y


class GlobalBatchNorm(BatchNorm):
    """Batch normalisation whose statistics are those of all workers' shares together, on CPU.

    PyTorch's own `SyncBatchNorm` needs a GPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes = (0, 2, 3)
        values = x.float()
        local = torch.stack([values.sum(axes), values.square().sum(axes)])
        count = torch.full_like(local[:1], x.numel() / x.shape[1])
        total, squares, count = distributed.all_reduce(torch.cat([local, count]))
        mean = total / count
        variance = squares / count - mean.square()
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(variance + self.eps)
        offset = self.bias - mean * scale
        return torch.addcmul(offset[:, None, None], values, scale[:, None, None]).to(x.dtype)


def synchronize(module: nn.Module, *, use_gpu: bool) -> nn.Module:
    """Make every batch normalisation of a module see the global batch."""
    if use_gpu:
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for child in module.modules():
        if type(child) in (nn.BatchNorm2d, BatchNorm):
            child.__class__ = GlobalBatchNorm
    return module
