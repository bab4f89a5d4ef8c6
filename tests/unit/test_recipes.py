from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from trainers.data import Dataset
from trainers.initial import initial_weights
from trainers.inputs import input_transform, whitening_kernel
from trainers.named_recipes import NAMED_RECIPES
from trainers.recipes import (
    Adam,
    Constant,
    Cosine,
    CrossEntropy,
    OneCycle,
    Plateau,
    Recipe,
    Whitening,
    class_weights,
)
from trainers.schedules import learning_rates, plateau_factor


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


def test_plateau_lowers_the_rate_after_so_many_epochs_without_a_lower_loss() -> None:
    schedule = Plateau(factor=0.5, patience=2)
    losses = [3.0, 2.0, 2.5, 2.0, 1.9, 2.0, 2.0, 2.0, 2.0]
    factors = [plateau_factor(schedule, losses[:epoch]) for epoch in range(len(losses) + 1)]
    assert factors == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]
    assert plateau_factor(Constant(), losses) == 1
    assert np.all(
        learning_rates(Recipe(optimizer=Adam(learning_rate=0.5), schedule=schedule), 7) == np.float32(0.5)
    )


@pytest.mark.parametrize(
    ("inputs", "channels", "black", "white"),
    [
        ("raw", 3, [0, 0, 0], [255, 255, 255]),
        (
            "imagenet",
            3,
            [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225],
            [0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225],
        ),
        ("imagenet", 1, [-0.449 / 0.226], [0.551 / 0.226]),
        ("unit", 1, [0], [1]),
    ],
)
def test_inputs_scale_pixels(inputs: Any, channels: int, black: list[float], white: list[float]) -> None:
    images, labels = np.zeros((4, 2, 2, channels), np.uint8), np.zeros(4, np.int64)
    dataset = Dataset(
        images, labels, images, labels, images, labels, ["a"], "", [], np.zeros(channels), np.ones(channels)
    )  # fmt: skip
    transform = input_transform(dataset, Recipe(inputs=inputs))
    assert transform.offset == pytest.approx(np.array(black), abs=1e-6)
    assert 255 * transform.scale + transform.offset == pytest.approx(np.array(white), rel=1e-5)


def test_balanced_weights_give_every_class_the_same_part_of_the_loss() -> None:
    labels = np.repeat([0, 1, 3], [90, 9, 1])
    weights = class_weights(CrossEntropy(class_weights="balanced"), labels, 4)
    assert weights is not None
    assert [weights[labels[labels == label]].sum() for label in (0, 1, 3)] == pytest.approx([25, 25, 25])
    assert np.isfinite(weights).all(), "class 2 has no image"
    assert class_weights(CrossEntropy(), labels, 4) is None


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


@pytest.mark.parametrize("framework", ["keras", "torch"])
@pytest.mark.parametrize("name", NAMED_RECIPES)
def test_named_recipes_are_valid(name: str, framework: str) -> None:
    Recipe.model_validate(NAMED_RECIPES[name][framework])


def test_the_fast_recipe_is_one_description_for_both() -> None:
    assert NAMED_RECIPES["fast"]["keras"] == NAMED_RECIPES["fast"]["torch"]
    assert NAMED_RECIPES["tutorial"]["keras"] != NAMED_RECIPES["tutorial"]["torch"]


def test_precision_is_resolved_by_the_processors_only_where_the_recipe_leaves_it_to_them() -> None:
    fast = Recipe.model_validate(NAMED_RECIPES["fast"]["torch"])
    assert [fast.resolved(bfloat16=has).precision for has in (True, False)] == ["bfloat16", "float32"]
    named = Recipe(precision="bfloat16")
    assert named.resolved(bfloat16=False) == named


def test_whitened_patches_are_uncorrelated_with_unit_variance_and_come_with_their_negatives() -> None:
    rng = np.random.default_rng(0)
    smooth = rng.normal(size=(400, 6, 6, 2)).cumsum(axis=1).cumsum(axis=2).astype(np.float32)
    kernel = whitening_kernel(smooth, np.float32([1, 1]), np.float32([0, 0]), Whitening(patch=3, stride=2))
    assert kernel.shape == (3, 3, 2, 36)
    assert np.array_equal(kernel[..., :18], -kernel[..., 18:])
    patches = np.concatenate([smooth[:, i : i + 3, j : j + 3] for i in (0, 3) for j in (0, 3)])
    features = patches.reshape(-1, 18) @ kernel[..., :18].reshape(18, 18)
    covariance = np.cov(features, rowvar=False)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 0.01
    assert np.diag(covariance)[-5:] == pytest.approx(np.ones(5), abs=0.05)


def test_a_patch_may_be_a_single_value() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1)).astype(np.uint8)
    kernel = whitening_kernel(grey, np.float32([1]), np.float32([0]), Whitening(patch=1, stride=1))
    assert kernel.shape == (1, 1, 1, 2)
    assert np.std(grey) * kernel.ravel() == pytest.approx([1, -1], abs=0.01)


def test_whitening_large_images_takes_no_more_memory_than_small_ones() -> None:
    small = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3)).astype(np.uint8)
    large = small.repeat(7, axis=1).repeat(7, axis=2)
    peaks = []
    for images in (small, large):
        tracemalloc.start()
        kernel = whitening_kernel(
            images, np.full(3, 1 / 255, np.float32), np.zeros(3, np.float32), Whitening()
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert np.isfinite(kernel).all()
    assert peaks[1] < 1.5 * peaks[0]


def test_a_whitened_image_has_the_shape_that_the_convolution_gives() -> None:
    recipe = Recipe(whitening=Whitening(patch=3, stride=2))
    assert recipe.model_shape((32, 32, 3)) == (15, 15, 54)
    assert Recipe().model_shape((32, 30, 3)) == (32, 30, 3)
