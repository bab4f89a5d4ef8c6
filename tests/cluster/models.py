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

from trainers.machine import preset


def build(image_shape, num_classes):
    for name in ("MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_"):
        assert os.environ[name] == preset.ENVIRONMENT[name], "workers of a cluster have the same environment"
    return nn.Sequential(nn.Flatten(), nn.Linear(image_shape[0] * image_shape[1] * image_shape[2], num_classes))
"""
