"""Damage to test images: what the literature prescribes, the same every time, and worse by severity."""

from __future__ import annotations

import numpy as np
import pytest

from trainers.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt

RNG = np.random.default_rng(0)
COARSE = np.kron(RNG.integers(60, 196, (6, 8, 8, 3)), np.ones((1, 4, 4, 1))).astype(np.uint8)


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_damage_grows_with_severity_and_is_the_same_every_time(kind: str, channels: int) -> None:
    images = np.concatenate([COARSE, COARSE[..., :1]], axis=-1)[..., :channels]
    errors = []
    for severity in SEVERITIES:
        damaged = corrupt(images, kind, severity)
        assert damaged.dtype == np.uint8 and damaged.shape == images.shape
        assert np.array_equal(damaged, corrupt(images, kind, severity))
        errors.append(float(np.sqrt(np.mean((damaged.astype(float) - images) ** 2))))
    assert 0.5 < errors[0] < errors[1] < errors[2]


def test_noise_has_the_published_deviation() -> None:
    grey = np.full((4, 32, 32, 3), 128, np.uint8)
    assert corrupt(grey, "noise", 3).std() / 255 == pytest.approx(0.08, rel=0.03)
    large = np.full((1, 224, 224, 3), 128, np.uint8)
    assert corrupt(large, "noise", 1).std() / 255 == pytest.approx(0.08, rel=0.03)


def test_blur_keeps_the_brightness_and_spreads_a_point() -> None:
    point = np.zeros((1, 33, 33, 1), np.uint8)
    point[0, 16, 16] = 255
    blurred = corrupt(point, "blur", 5)[0, ..., 0].astype(float)
    assert blurred.sum() == pytest.approx(255, rel=0.1)
    assert blurred[16, 16] == pytest.approx(255 / (2 * np.pi), rel=0.03)  # a Gaussian of one pixel
