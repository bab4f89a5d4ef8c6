"""The built-in networks in PyTorch. Layer names, shapes and order are those of `trainers/keras/models.py`.

Modules take images [n, channels, height, width] and return logits [n, num_classes]. What a
convolution leaves is flattened in the order height, width, channels, as Keras does, so that a
dense kernel means the same in both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainers.contract import own_model, padding_of
from trainers.initial import Weights
from trainers.recipes import BatchNorm

Norm = Callable[[int], nn.Module]
"""Makes a batch normalization of so many channels."""


def build_model(
    name: str,
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    batch_norm: BatchNorm | None = None,
) -> nn.Module:
    """Build a network by name, or by calling the user's `package.module:function`.

    Args:
        name: of a built-in network, or `package.module:function`.
        image_shape: height, width, channels.
        num_classes: number of logits.
        batch_norm: constants of a built-in network's batch normalization; the recipe's defaults when left out.
    """
    if ":" in name:
        return _own_model(name, image_shape, num_classes)
    if name == "tutorial_cnn":
        return TutorialCnn(image_shape, num_classes)
    if name == "lenet5":
        return LeNet5(image_shape, num_classes)
    constants = batch_norm or BatchNorm()
    # Rounded, since 1 - 0.9 is not quite PyTorch's usual 0.1.
    momentum = round(1 - constants.momentum, 12)
    norm = functools.partial(nn.BatchNorm2d, eps=constants.epsilon, momentum=momentum)
    builders = {"resnet9": ResNet9, "resnet18": ResNet18, "speednet": SpeedNet}
    return builders[name](image_shape, num_classes, norm)


@torch.no_grad()
def _own_model(name: str, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """A user's model, called once: a lazy one has no weights before."""

    def predict(model: nn.Module, shape: tuple[int, int, int]):
        height, width, channels = shape
        return model.eval()(torch.zeros(1, channels, height, width))

    return own_model(name, nn.Module, image_shape, num_classes, predict).train()


def _flatten(features: Tensor) -> Tensor:
    return features.permute(0, 2, 3, 1).flatten(1)


class TutorialCnn(nn.Module):
    """The Keras tutorial's network: three convolutions, two poolings, two dense layers."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        padding = padding_of("tutorial_cnn", image_shape)
        height, width, channels = image_shape
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=padding)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=padding)
        self.conv3 = nn.Conv2d(64, 64, 3, padding=padding)
        flat = self._features(torch.zeros(1, channels, height, width)).shape[1]
        self.dense1 = nn.Linear(flat, 64)
        self.dense2 = nn.Linear(64, num_classes)

    def _features(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return _flatten(F.relu(self.conv3(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.dense2(F.relu(self.dense1(self._features(x))))


class LeNet5(nn.Module):
    """The PyTorch tutorial's network, after LeCun et al. (1998), with ReLU and max pooling."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        padding = padding_of("lenet5", image_shape)
        height, width, channels = image_shape
        self.conv1 = nn.Conv2d(channels, 6, 5, padding=padding)
        self.conv2 = nn.Conv2d(6, 16, 5, padding=padding)
        flat = self._features(torch.zeros(1, channels, height, width)).shape[1]
        self.dense1 = nn.Linear(flat, 120)
        self.dense2 = nn.Linear(120, 84)
        self.dense3 = nn.Linear(84, num_classes)

    def _features(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        return _flatten(F.max_pool2d(F.relu(self.conv2(x)), 2))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.dense1(self._features(x)))
        return self.dense3(F.relu(self.dense2(x)))


class ConvNorm(nn.Module):
    """A 3x3 convolution without bias and a batch normalization."""

    def __init__(self, inputs: int, outputs: int, norm: Norm, *, size: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
        self.norm = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class ResNet9(nn.Module):
    """Page's DAWNBench network (2018): two residual pairs, logits scaled by 1/8."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, norm: Norm) -> None:
        super().__init__()
        self.prep = ConvNorm(image_shape[2], 64, norm)
        self.layer1 = ConvNorm(64, 128, norm)
        self.residual1a = ConvNorm(128, 128, norm)
        self.residual1b = ConvNorm(128, 128, norm)
        self.layer2 = ConvNorm(128, 256, norm)
        self.layer3 = ConvNorm(256, 512, norm)
        self.residual3a = ConvNorm(512, 512, norm)
        self.residual3b = ConvNorm(512, 512, norm)
        self.dense = nn.Linear(512, num_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.prep(x))
        x = F.max_pool2d(F.relu(self.layer1(x)), 2)
        x = x + F.relu(self.residual1b(F.relu(self.residual1a(x))))
        x = F.max_pool2d(F.relu(self.layer2(x)), 2)
        x = F.max_pool2d(F.relu(self.layer3(x)), 2)
        x = x + F.relu(self.residual3b(F.relu(self.residual3a(x))))
        return self.dense(x.amax((2, 3))) * 0.125


class SpeedNet(nn.Module):
    """Jordan's airbench network (2024) at half width, with one convolution in each of its groups."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, norm: Norm) -> None:
        super().__init__()
        channels = image_shape[2]
        self.group1 = ConvNorm(channels, 64, norm)
        self.group2 = ConvNorm(64, 128, norm)
        self.group3 = ConvNorm(128, 256, norm)
        self.dense = nn.Linear(256, num_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for group in (self.group1, self.group2, self.group3):
            x = group.conv(x)
            if min(x.shape[2:]) > 1:
                x = F.max_pool2d(x, 2)
            x = F.relu(group.norm(x))
        return self.dense(x.amax((2, 3))) * 0.2


class ResNet18(nn.Module):
    """He et al. (2016) with the small-image stem: one 3x3 convolution, no pooling before stage 1."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, norm: Norm) -> None:
        super().__init__()
        self.stem = ConvNorm(image_shape[2], 64, norm)
        width = 64
        for stage, outputs in enumerate((64, 128, 256, 512), start=1):
            for block in (1, 2):
                stride = 2 if stage > 1 and block == 1 else 1
                self.add_module(f"block{stage}{block}", _BasicBlock(width, outputs, stride, norm))
                width = outputs
        self.dense = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for name, module in self.named_children():
            if name.startswith("block"):
                x = module(x)
        return self.dense(x.mean((2, 3)))


class _BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.a = ConvNorm(inputs, outputs, norm, stride=stride)
        self.b = ConvNorm(outputs, outputs, norm)
        if stride != 1 or inputs != outputs:
            self.shortcut = ConvNorm(inputs, outputs, norm, size=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        straight = self.shortcut(x) if hasattr(self, "shortcut") else x
        return F.relu(self.b(F.relu(self.a(x))) + straight)


_ROLES = {"running_mean": "mean", "running_var": "variance"}


def named_tensors(model: nn.Module) -> dict[str, tuple[str, Tensor]]:
    """Every weight under its neutral name, with its key in the `state_dict`."""
    tensors = {}
    for path, module in model.named_modules():
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        is_scaling = getattr(getattr(module, "weight", None), "ndim", 0) == 1
        kernel = "embeddings" if isinstance(module, nn.Embedding) else "kernel"
        roles = _ROLES | ({"weight": "scale", "bias": "offset"} if is_scaling else {"weight": kernel})
        for attribute, tensor in own:
            if tensor.is_floating_point():
                prefix = f"{path}." if path else ""
                tensors[f"{prefix}{roles.get(attribute, attribute)}"] = (f"{prefix}{attribute}", tensor)
    return tensors


def _to_neutral(name: str, tensor: Tensor) -> Tensor:
    """A tensor as Keras lays it out: kernels as height, width, inputs, outputs."""
    if not name.endswith(".kernel") or tensor.ndim < 2:
        return tensor
    return tensor.permute(*range(2, tensor.ndim), 1, 0)


def _array(tensor: Tensor) -> np.ndarray:
    """A copy in C order, which later arithmetic is several times as fast in."""
    return tensor.detach().clone(memory_format=torch.contiguous_format).cpu().numpy()


def get_weights(model: nn.Module) -> Weights:
    """The weights of a network under their neutral names, in the layouts of `trainers.initial`."""
    return {name: _array(_to_neutral(name, tensor)) for name, (_, tensor) in named_tensors(model).items()}


def get_gradients(model: nn.Module) -> Weights:
    """The gradients of the trainable weights, likewise."""
    return {
        name: _array(_to_neutral(name, tensor.grad))
        for name, (_, tensor) in named_tensors(model).items()
        if tensor.grad is not None
    }


@torch.no_grad()
def set_weights(model: nn.Module, weights: Weights) -> None:
    """The reverse of `get_weights`."""
    for name, (_, tensor) in named_tensors(model).items():
        _to_neutral(name, tensor).copy_(torch.from_numpy(weights[name]))


def get_optimizer_state(model: nn.Module, state: Mapping[nn.Parameter, Tensor], ending: str) -> Weights:
    """What an optimizer keeps of each weight, as `<weight>#<ending>`, in the neutral layout.

    Args:
        model: a network.
        state: by weight, in PyTorch's layout.
        ending: of the names.
    """
    return {
        f"{name}#{ending}": _array(_to_neutral(name, state[tensor]))
        for name, (_, tensor) in named_tensors(model).items()
        if tensor in state
    }


def set_optimizer_state(model: nn.Module, state: Weights, ending: str) -> dict[nn.Parameter, Tensor]:
    """The reverse of `get_optimizer_state`; the tensors lie in memory as the weights do, as fused kernels need."""
    turned = {}
    for name, (_, tensor) in named_tensors(model).items():
        if isinstance(tensor, nn.Parameter) and (key := f"{name}#{ending}") in state:
            turned[tensor] = torch.empty_like(tensor)
            _to_neutral(name, turned[tensor]).copy_(torch.from_numpy(state[key]))
    return turned
