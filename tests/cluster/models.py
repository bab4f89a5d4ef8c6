"""Models of a user's own, for experiments that have to last."""

SLOW_MODEL = """
import time

from torch import nn


class Slow(nn.Module):
    def __init__(self, pixels, num_classes):
        super().__init__()
        self.dense = nn.Linear(pixels, num_classes)

    def forward(self, x):
        if self.training:
            time.sleep(0.05)
        return self.dense(x.flatten(1))


def build(image_shape, num_classes):
    return Slow(image_shape[0] * image_shape[1] * image_shape[2], num_classes)
"""

REMEMBERING_MODEL = """
import os

from torch import nn


def build(image_shape, num_classes):
    assert os.environ["MALLOC_ARENA_MAX"] == "1", "the worker gives its memory back at every step"
    assert int(os.environ["GOMP_SPINCOUNT"]) < 300_000, "the worker's threads wait on cores that others need"
    return nn.Sequential(nn.Flatten(), nn.Linear(image_shape[0] * image_shape[1] * image_shape[2], num_classes))
"""
