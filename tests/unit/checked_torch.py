"""Models and a loss of the kinds that people bring to PyTorch, right and wrong, for the check before training."""

from __future__ import annotations

import os
from collections import namedtuple
from typing import Any

import torch
from torch import nn

Shape = tuple[int, int, int]
Outputs = namedtuple("Outputs", ["logits", "aux_logits2", "aux_logits1"])
"""As `torchvision.models.GoogLeNetOutputs`."""


def body(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Two(nn.Module):
    """A body with a head and an auxiliary one, whose outputs a subclass chooses."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.body = body(shape[2])
        self.head = nn.Linear(8, classes)
        self.auxiliary = nn.Linear(8, classes)


class Auxiliary(Two):
    def forward(self, x: Any) -> Any:
        features = self.body(x)
        if not self.training:
            return self.head(features)
        return Outputs(self.head(features), None, self.auxiliary(features))


class Mapped(Two):
    def forward(self, x: Any) -> Any:
        features = self.body(x)
        return {"logits": self.head(features), "hidden": self.auxiliary(features)}


class Unnamed(Two):
    def forward(self, x: Any) -> Any:
        return {"out": self.head(self.body(x)), "aux": self.auxiliary(self.body(x))}


class Pair(Two):
    def forward(self, x: Any) -> Any:
        return self.head(self.body(x)), self.auxiliary(self.body(x))


class Features(Two):
    def forward(self, x: Any) -> Any:
        features = self.body(x)
        return (self.head(features), features) if self.training else self.head(features)


class Unused(Two):
    def forward(self, x: Any) -> Any:
        return self.head(self.body(x))


class Branching(Unused):
    def forward(self, x: Any) -> Any:
        if float(x.sum()) > 0:
            return super().forward(x)
        return self.auxiliary(self.body(x))


class Raising(Unused):
    def forward(self, x: Any) -> Any:
        if self.training:
            raise RuntimeError("no such thing")  # line of the sentence
        return super().forward(x)


class Hungry(Unused):
    def forward(self, x: Any) -> Any:
        if self.training:
            raise MemoryError
        return super().forward(x)


class Infinite(Unused):
    def forward(self, x: Any) -> Any:
        return super().forward(x) / 0


class Labels(Unused):
    def forward(self, x: Any) -> Any:
        return super().forward(x).long()


def softmax(shape: Shape, classes: int) -> nn.Module:
    return nn.Sequential(body(shape[2]), nn.Linear(8, classes), nn.Softmax(dim=1))


def log_softmax(shape: Shape, classes: int) -> nn.Module:
    return nn.Sequential(body(shape[2]), nn.Linear(8, classes), nn.LogSoftmax(dim=1))


def norm(shape: Shape, classes: int) -> nn.Module:
    return nn.Sequential(body(shape[2]), nn.BatchNorm1d(8), nn.Linear(8, classes))


def frozen(shape: Shape, classes: int) -> nn.Module:
    return nn.Sequential(body(shape[2]).requires_grad_(False), nn.Linear(8, classes))


def all_frozen(shape: Shape, classes: int) -> nn.Module:
    return frozen(shape, classes).requires_grad_(False)


def lazy(shape: Shape, classes: int) -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(8, 3), nn.Flatten(), nn.LazyLinear(classes))


def thousand(shape: Shape, classes: int) -> nn.Module:
    return nn.Sequential(body(shape[2]), nn.Linear(8, 1000))


def of_28_pixels(shape: Shape, classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28 * shape[2], classes))


def gone(shape: Shape, classes: int) -> nn.Module:
    os._exit(3)


def nothing(shape: Shape, classes: int) -> None:
    return None


def three_arguments(shape: Shape, classes: int, width: int) -> nn.Module:
    return nn.Sequential(body(shape[2]), nn.Linear(width, classes))


def missing_package(shape: Shape, classes: int) -> Any:
    import no_such_package  # type: ignore[import-not-found]

    return no_such_package.model()


def nan_loss(logits: Any, labels: Any) -> Any:
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none") * float("nan")
