"""Batch normalisation over two workers is that of the whole batch, derivatives included."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.cluster.kube.nodes import free_port
from tests.conftest import ROOT
from tests.unit.normalize_shares import EPSILON, IMAGES, MOMENTUM, OFFSET, SCALE, WEIGHTS

AXES = (0, 1, 2)
Share = dict[str, np.ndarray]


@pytest.fixture(scope="module", params=["keras", "torch"])
def framework(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def measured(framework: str, tmp_path_factory: pytest.TempPathFactory) -> list[Share]:
    """What each of a framework's two workers measured, by precision and name."""
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    files = [tmp_path_factory.mktemp(framework) / f"{rank}.npz" for rank in range(2)]
    command = [sys.executable, "-m", "tests.unit.normalize_shares", framework]
    workers = [
        subprocess.Popen(
            [*command, str(rank), *addresses, str(file)],
            cwd=ROOT,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        )
        for rank, file in enumerate(files)
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    return [{**np.load(file)} for file in files]


@pytest.mark.parametrize(("precision", "rounding"), [("float32", 1e-4), ("bfloat16", 2e-2)])
def test_two_uneven_shares_are_normalised_as_one_batch(
    framework: str, measured: list[Share], precision: str, rounding: float
) -> None:
    first, second = (
        {name.removeprefix(f"{precision}/"): values for name, values in share.items()} for share in measured
    )

    x, weights = IMAGES.astype(float), WEIGHTS.astype(float)
    mean, variance = x.mean(AXES), x.var(AXES)
    normalised = (x - mean) / np.sqrt(variance + EPSILON)
    of_scale, of_offset = (weights * normalised).sum(AXES), weights.sum(AXES)
    count = x.size / x.shape[-1]
    of_images = (
        SCALE / np.sqrt(variance + EPSILON) * (weights - of_offset / count - normalised * of_scale / count)
    )

    def whole(name: str) -> np.ndarray:
        return np.concatenate([first[name], second[name]])

    assert whole("outputs") == pytest.approx(normalised * SCALE + OFFSET, abs=rounding)
    assert whole("of_images") == pytest.approx(of_images, abs=rounding)
    assert first["of_scale"] + second["of_scale"] == pytest.approx(of_scale, abs=1e-3)
    assert first["of_offset"] + second["of_offset"] == pytest.approx(of_offset, abs=1e-3)
    own_outputs = (x - x.mean(0)) / np.sqrt(x.var(0) + EPSILON)
    assert whole("own_outputs") == pytest.approx(own_outputs, abs=rounding)
    own_variance = x.var(0, ddof=1 if framework == "torch" else 0)  # as each framework's own layers keep it
    for worker in (first, second):
        assert worker["own_variance"] == pytest.approx(own_variance, rel=1e-4)
        assert worker["mean"] == pytest.approx((1 - MOMENTUM) * mean, abs=1e-4)
        assert worker["variance"] == pytest.approx(MOMENTUM + (1 - MOMENTUM) * variance, abs=1e-4)
