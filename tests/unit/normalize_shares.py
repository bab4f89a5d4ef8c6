"""One of two workers that normalise their shares of a batch over both.

Usage: python -m tests.unit.normalize_shares FRAMEWORK RANK ADDRESS OTHER_ADDRESS OUTPUT
The .npz OUTPUT holds, for each precision, what the layer gave and its derivatives, for images and for their
sum's weights, and what a user's own model gave, whose layer normalises each pixel and has neither scale nor
offset.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

MODULE = "tests.unit.normalize_shares"
PRECISIONS = ("float32", "bfloat16")
SHARES = (slice(0, 5), slice(5, 8))
EPSILON, MOMENTUM = 1e-5, 0.9
Measure = Callable[[str], dict[str, np.ndarray]]
"""What a worker measures in a precision, by name."""
random = np.random.default_rng(0)


def draw(mean: float, deviation: float) -> np.ndarray:
    """Values for images that bfloat16 holds exactly."""
    return (random.normal(mean, deviation, (8, 6, 6, 4)) * 16).round().astype(np.float32) / 16


IMAGES = draw(3.0, 2.0)
WEIGHTS = draw(0.0, 1.0)
"""The loss is the sum of the layer's output times these."""
SCALE, OFFSET = (random.normal(size=4).astype(np.float32) for _ in range(2))


def own_torch_model(image_shape: tuple[int, int, int], _: int) -> Any:
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(math.prod(image_shape), affine=False, momentum=1.0))


def own_keras_model(image_shape: tuple[int, int, int], _: int) -> Any:
    from keras import Input, Sequential, layers

    norm = layers.BatchNormalization(center=False, scale=False, momentum=0.0, epsilon=EPSILON)
    return Sequential([Input(image_shape), layers.Flatten(), Sequential([norm])])


@contextmanager
def in_torch(rank: int, addresses: list[str]) -> Iterator[Measure]:
    import torch
    import torch.distributed as dist
    from trainers.torch.batch_norm import BatchNorm, synchronize

    from trainers.torch.models import build_model

    def measure(precision: str) -> dict[str, np.ndarray]:
        module = BatchNorm(4, eps=EPSILON, momentum=1 - MOMENTUM)
        synchronize(module, use_gpu=False)
        module.load_state_dict(
            module.state_dict() | {"weight": torch.tensor(SCALE), "bias": torch.tensor(OFFSET)}
        )
        dtype = getattr(torch, precision)
        images = torch.tensor(IMAGES[SHARES[rank]], dtype=dtype).permute(0, 3, 1, 2).requires_grad_()
        outputs = module(images)
        (outputs * torch.tensor(WEIGHTS[SHARES[rank]]).permute(0, 3, 1, 2)).sum().backward()
        own = synchronize(build_model(f"{MODULE}:own_torch_model", IMAGES.shape[1:], 144), use_gpu=False)
        own_outputs = own(torch.tensor(IMAGES[SHARES[rank]], dtype=dtype).permute(0, 3, 1, 2))
        return {
            "outputs": outputs.detach().float().permute(0, 2, 3, 1).numpy(),
            "of_images": images.grad.float().permute(0, 2, 3, 1).numpy(),
            "of_scale": module.weight.grad.numpy(),
            "of_offset": module.bias.grad.numpy(),
            "mean": module.running_mean.numpy(),
            "variance": module.running_var.numpy(),
            "own_outputs": own_outputs.float().unflatten(1, (4, 6, 6)).permute(0, 2, 3, 1).numpy(),
            "own_variance": own[1].running_var.unflatten(0, (4, 6, 6)).permute(1, 2, 0).numpy(),
        }

    dist.init_process_group("gloo", init_method=f"tcp://{addresses[0]}", rank=rank, world_size=2)
    yield measure
    dist.barrier()
    dist.destroy_process_group()


@contextmanager
def in_keras(rank: int, addresses: list[str]) -> Iterator[Measure]:
    os.environ["TF_CONFIG"] = json.dumps(
        {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
    )
    import tensorflow as tf
    from trainers.keras.batch_norm import BatchNorm

    from trainers.keras.models import build_model

    strategy = tf.distribute.MultiWorkerMirroredStrategy()

    def measure(precision: str) -> dict[str, np.ndarray]:
        with strategy.scope():
            policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
            layer = BatchNorm(momentum=MOMENTUM, epsilon=EPSILON, synchronized=True, dtype=policy)
            layer.build(IMAGES.shape)
            layer.set_weights([SCALE, OFFSET, np.zeros(4), np.ones(4)])
            own = build_model(f"{MODULE}:own_keras_model", IMAGES.shape[1:], 144, synchronized=True)
        images = tf.cast(IMAGES[SHARES[rank]], precision)
        weights = tf.constant(WEIGHTS[SHARES[rank]])

        @tf.function
        def step(images, weights):
            def replica(images, weights):
                with tf.GradientTape() as tape:
                    tape.watch(images)
                    outputs = layer(images, training=True)
                    loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * weights)
                own_outputs = own(images, training=True)
                derivatives = tape.gradient(loss, [images, layer.gamma.value, layer.beta.value])
                return outputs, own_outputs, derivatives

            return strategy.run(replica, args=(images, weights))

        outputs, own_outputs, (of_images, of_scale, of_offset) = step(images, weights)
        mean, variance = layer.get_weights()[2:]
        outputs, of_images = tf.cast(outputs, tf.float32), tf.cast(of_images, tf.float32)
        values = (outputs, of_images, of_scale, of_offset, mean, variance)
        names = ("outputs", "of_images", "of_scale", "of_offset", "mean", "variance")
        return {name: np.asarray(value) for name, value in zip(names, values, strict=True)} | {
            "own_outputs": np.asarray(tf.reshape(own_outputs, images.shape)),
            "own_variance": own.get_weights()[1].reshape(IMAGES.shape[1:]),
        }

    yield measure


if __name__ == "__main__":
    framework, rank, *addresses, output = sys.argv[1:]
    joined = in_keras if framework == "keras" else in_torch
    with joined(int(rank), addresses) as measure:
        measured = {
            f"{precision}/{name}": value
            for precision in PRECISIONS
            for name, value in measure(precision).items()
        }
    np.savez(Path(output), **measured)
