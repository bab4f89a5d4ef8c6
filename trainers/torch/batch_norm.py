"""Batch normalisation over the global batch, on CPU, where PyTorch's own needs a GPU."""

from __future__ import annotations

import torch
import torch.distributed.nn.functional as distributed
from torch import Tensor, nn


class GlobalBatchNorm(nn.BatchNorm2d):
    """`BatchNorm2d` whose statistics are those of all workers' shares together."""

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
            unbiased = variance * count / (count - 1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(variance + self.eps)
        offset = self.bias - mean * scale
        return torch.addcmul(offset[:, None, None], values, scale[:, None, None]).to(x.dtype)


def synchronize(module: nn.Module, *, use_gpu: bool) -> nn.Module:
    """Make every batch normalisation of a module see the global batch."""
    if use_gpu:
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = GlobalBatchNorm
    return module
