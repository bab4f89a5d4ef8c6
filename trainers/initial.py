"""Initial weights from one numpy generator, so that both frameworks start from the same numbers.

Weights are named `<layer>.<role>` and laid out the same way for either framework: convolution
kernels [height, width, in, out], dense kernels [in, out], everything else [channels]. Each array
has a generator of its own, seeded by (seed, name): adding a layer leaves the others unchanged.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np

Weights = dict[str, np.ndarray]


def initial_weights(shapes: Mapping[str, tuple[int, ...]], *, init: str, seed: int) -> Weights:
    """Draw float32 arrays of the given shapes.

    Args:
        shapes: shape of each weight by name; roles are kernel, bias, scale, offset, mean, variance.
        init: `glorot_uniform` (Glorot and Bengio, 2010), `he_normal` (He et al., 2015), or
            `fan_in_uniform`, U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for kernels and biases alike.
        seed: the run's seed.
    """
    return {name: _draw(name, shape, shapes, init, seed) for name, shape in shapes.items()}


def _draw(
    name: str,
    shape: tuple[int, ...],
    shapes: Mapping[str, tuple[int, ...]],
    init: str,
    seed: int,
) -> np.ndarray:
    layer, _, role = name.rpartition(".")
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    kernel = shapes.get(f"{layer}.kernel", shape)
    fan_in, fan_out = math.prod(kernel[:-1]), math.prod(kernel[:-2]) * kernel[-1]
    if role == "kernel" and init == "he_normal":
        return rng.normal(0.0, math.sqrt(2 / fan_in), shape).astype(np.float32)
    if role == "kernel" and init == "glorot_uniform":
        limit = math.sqrt(6 / (fan_in + fan_out))
        return rng.uniform(-limit, limit, shape).astype(np.float32)
    if role in ("kernel", "bias") and init == "fan_in_uniform":
        limit = 1 / math.sqrt(fan_in)
        return rng.uniform(-limit, limit, shape).astype(np.float32)
    fill = np.ones if role in ("scale", "variance") else np.zeros
    return fill(shape, np.float32)
