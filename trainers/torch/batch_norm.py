"""Batch normalisation as Keras and the papers have it, and over the global batch.

PyTorch keeps the unbiased variance of each batch for evaluation but normalises with the biased
one; here, as in Keras, both are the biased one (Ioffe and Szegedy, 2015, train with it).
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


class BatchNorm(nn.BatchNorm2d):
    """`BatchNorm2d` that keeps the biased variance, and takes a single value of a channel, as Keras does."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        before = self.running_var * (1 - self.momentum)
        y = torch.batch_norm(
            x, self.weight, self.bias, self.running_mean, self.running_var, True, self.momentum, self.eps,
            torch.backends.cudnn.enabled,
        )  # fmt: skip
        self.num_batches_tracked += 1
        count = x.numel() // x.shape[1]
        kept = self.running_var.data  # the backward pass keeps it but does not read it
        if count > 1:
            kept.lerp_(before, 1 / count)
        else:
            kept.copy_(before)  # of a single value the unbiased variance is no number
        return y


class GlobalBatchNorm(_BatchNorm):
    """Batch normalisation whose statistics are those of all workers' shares together, on CPU.

    PyTorch's own `SyncBatchNorm` needs a GPU.
    """

    unbiased: bool
    """Whether the variance kept for evaluation is the unbiased one, as PyTorch's own layers keep it."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        scale = torch.ones_like(self.running_mean) if self.weight is None else self.weight
        offset = torch.zeros_like(self.running_mean) if self.bias is None else self.bias
        y, mean, variance, count = _Normalize.apply(x, scale, offset, self.eps)
        if self.unbiased:
            variance = variance * count / (count - 1).clamp(min=1)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)
            self.num_batches_tracked += 1
        return y


class _Normalize(torch.autograd.Function):
    """Values [n, channels, …] normalised over all workers, their mean and variance [channels] and count.

    The kernels are those that PyTorch has for one worker; what is summed over the images is exchanged
    in between. The derivative is that of Ioffe and Szegedy (2015), section 3.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        unused = torch.zeros_like(weight)  # of float32, so that the statistics are, whatever the images are
        mean, variance = torch.batch_norm_update_stats(x, unused, unused, 0.0)
        count = torch.full_like(mean[:1], x.numel() / x.shape[1])
        shares = torch.cat([mean * count, (variance + mean.square()) * count, count])
        dist.all_reduce(shares)
        count = shares[-1]
        mean, squares = (shares[:-1] / count).chunk(2)
        variance = squares - mean.square()
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps), count)
        ctx.mark_non_differentiable(mean, variance, count)
        y = F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)
        return y, mean, variance, count

    @staticmethod
    def backward(ctx, gradient, *_):
        x, weight, mean, inverse, count = ctx.saved_tensors
        _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, None, None, mean, inverse, True, 0.0, [False, True, True]
        )
        sums = torch.cat([of_weight, of_bias])
        dist.all_reduce(sums)
        along_x, constant = (sums / count).chunk(2)
        scale = weight * inverse
        slope = -scale * inverse * along_x
        shape = (-1, *[1] * (x.ndim - 2))
        rest = -slope * mean - scale * constant
        of_x = torch.addcmul(rest.view(shape), x, slope.view(shape)).addcmul_(gradient, scale.view(shape))
        return of_x.to(gradient.dtype), of_weight, of_bias, None


def synchronize(module: nn.Module, *, use_gpu: bool) -> nn.Module:
    """Make every batch normalisation of a module that keeps a moving average see the global batch."""
    if use_gpu:
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for child in module.modules():
        if isinstance(child, _BatchNorm) and child.track_running_stats and child.momentum is not None:
            child.unbiased = not isinstance(child, BatchNorm)
            child.__class__ = GlobalBatchNorm
    return module
