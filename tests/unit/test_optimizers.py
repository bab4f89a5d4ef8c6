"""Recipes' optimizers: in PyTorch the very steps that its own classes take, in Keras weights of any precision."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

PYTORCH = """
import sys
import torch
from pydantic import TypeAdapter
from tests.unit.measure_engine import OPTIMIZERS, Side, steps
from trainers.recipes import Optimizer, Sgd
from trainers.torch.optimizers import FusedOptimizer


def model():
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8 * 6 * 6, 5), torch.nn.Linear(5, 5)]
    module = torch.nn.Sequential(*layers).to(memory_format=torch.channels_last)
    module[0].bias.requires_grad_(False)
    return module


def librarys_own(described, weights):
    if isinstance(described, Sgd):
        decay = 0.0 if described.decoupled else described.weight_decay
        moments = {"momentum": described.momentum, "nesterov": described.nesterov}
        return torch.optim.SGD(weights, lr=1, weight_decay=decay, fused=True, **moments)
    moments = {"betas": (described.beta_1, described.beta_2), "eps": described.epsilon}
    if described.name == "adamw":
        return torch.optim.AdamW(weights, lr=1, weight_decay=described.weight_decay, fused=True, **moments)
    return torch.optim.Adam(weights, lr=1, fused=True, **moments)


def same(ours, theirs):
    for place, weight in enumerate(ours.weights):
        other = theirs.param_groups[0]["params"][place]
        remembered = {name: value for name, value in theirs.state[other].items() if value is not None}
        assert torch.equal(weight, other)
        assert ours.slots[place].keys() == remembered.keys()
        assert all(torch.equal(value, remembered[name]) for name, value in ours.slots[place].items())
    return True


side = Side("torch")
engine = side.engine(optimizer="adamw")
engine.train_steps(steps(0.001, last=1))
engine.forward_flops()
print("compiler" if "torch._dynamo" in sys.modules else "no compiler")
for fields in OPTIMIZERS:
    described = TypeAdapter(Optimizer).validate_python(fields)
    first, second = model(), model()
    ours = FusedOptimizer(described, first.parameters())
    theirs = librarys_own(described, second.parameters())
    begun = [weight.clone() for weight in ours.weights]
    for step in range(4):
        rate = fields["learning_rate"] / (step + 1)
        pixels = torch.rand(4, 3, 8, 8)
        for module in (first, second):
            module.zero_grad()
            # The last layer has no gradient in the first step, which the library's fused SGD cannot do.
            depth = 3 if step == 0 and not isinstance(described, Sgd) else 4
            module[:depth](pixels).square().sum().backward()
        ours.step(rate)
        if isinstance(described, Sgd) and described.decoupled:
            with torch.no_grad():
                for weight in second.parameters():
                    if weight.grad is not None:
                        weight.mul_(1 - rate * described.weight_decay)
        theirs.param_groups[0]["lr"] = rate
        theirs.step()
    assert same(ours, theirs)
    late = torch.nn.Parameter(torch.ones(5))
    ours.weights.append(late)
    ours.slots.append({})
    late.grad = torch.ones(5)
    ours.step(0.01)
    assert (late < 1).all()
    print([bool((weight != before).any()) for weight, before in zip(ours.weights, begun, strict=False)])
"""

KERAS = """
import keras
import numpy as np
import tensorflow as tf
from trainers.keras.optimizers import build_optimizer
from trainers.recipes import AdamW

for dtype in ("bfloat16", "float32", "float64"):
    weight = keras.Variable([0.0, 0.0, 0.0], dtype=dtype)
    optimizer = build_optimizer(AdamW(learning_rate=0.1, weight_decay=0.0))
    optimizer.build([weight])
    for _ in range(3):
        optimizer.apply([tf.constant([2.0, -0.5, 0.01], dtype)], [weight])
    print(*np.array(weight).astype(float))
"""


def test_adam_in_keras_goes_the_learning_rate_along_a_steady_gradient() -> None:
    done = subprocess.run([sys.executable, "-c", KERAS], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    moved = [[float(weight) for weight in line.split()] for line in done.stdout.splitlines()]
    assert moved == [pytest.approx([-0.3, 0.3, -0.3], rel=0.02)] * 3


def test_steps_are_those_of_the_library_without_its_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", PYTORCH], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    imported, *moved = done.stdout.splitlines()
    assert imported == "no compiler"
    assert moved == ["[True, False, True, True, True, True]"] * 7
