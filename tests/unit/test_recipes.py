from __future__ import annotations

import numpy as np
import pytest

from trainers.initial import initial_weights
from trainers.recipes import Adam, Cosine, OneCycle, Recipe, learning_rates


def test_constant_rate() -> None:
    assert np.all(learning_rates(Recipe(optimizer=Adam(learning_rate=0.5)), 7) == np.float32(0.5))


def test_one_cycle_peaks_where_it_should_and_ends_near_zero() -> None:
    recipe = Recipe(optimizer=Adam(learning_rate=1.0), schedule=OneCycle(warmup=0.25))
    rates = learning_rates(recipe, 999)
    assert rates.argmax() == pytest.approx(249, abs=1)
    assert rates.max() == pytest.approx(1.0, abs=0.01)
    assert 0 < rates[0] < 0.01
    assert 0 < rates[-1] < 0.01


def test_cosine_halves_half_way_and_never_rises_without_warmup() -> None:
    rates = learning_rates(Recipe(optimizer=Adam(learning_rate=1.0), schedule=Cosine()), 99)
    assert rates[49] == pytest.approx(0.5, abs=1e-6)
    assert np.all(np.diff(rates) < 0)


SHAPES = {
    "conv1.kernel": (3, 3, 16, 32),
    "conv1.bias": (32,),
    "norm.scale": (32,),
    "norm.offset": (32,),
    "norm.mean": (32,),
    "norm.variance": (32,),
}


@pytest.mark.parametrize(
    ("init", "deviation"),
    [
        ("glorot_uniform", np.sqrt(2 / (144 + 288))),
        ("he_normal", np.sqrt(2 / 144)),
        ("fan_in_uniform", 1 / np.sqrt(3 * 144)),
    ],
)
def test_kernels_have_the_distribution_their_name_says(init: str, deviation: float) -> None:
    weights = initial_weights(SHAPES, init=init, seed=3)
    assert weights["conv1.kernel"].std() == pytest.approx(deviation, rel=0.05)
    assert abs(weights["conv1.kernel"].mean()) < 0.1 * deviation
    assert bool(weights["conv1.bias"].any()) == (init == "fan_in_uniform")
    assert np.all(weights["norm.scale"] == 1)
    assert np.all(weights["norm.variance"] == 1)
    assert not weights["norm.offset"].any()
    assert not weights["norm.mean"].any()


def test_weights_depend_on_seed_and_name_alone() -> None:
    alone = initial_weights({"conv1.kernel": (3, 3, 16, 32)}, init="he_normal", seed=3)
    among = initial_weights(SHAPES, init="he_normal", seed=3)
    other = initial_weights(SHAPES, init="he_normal", seed=4)
    assert np.array_equal(alone["conv1.kernel"], among["conv1.kernel"])
    assert not np.array_equal(among["conv1.kernel"], other["conv1.kernel"])
