"""Statistics against published results, against hand-made layouts, and against planted truths at their stated rates."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from orchestrator.analysis.statistics import confidence, inference
from orchestrator.analysis.statistics.discordance import clopper_pearson
from orchestrator.analysis.statistics.inference import Estimate, Interval, Scores


def by_seed(values: list[float] | np.ndarray, *, start: int = 0) -> Scores:
    return Scores({seed: float(value) for seed, value in enumerate(values, start)})


def with_items(right: np.ndarray, *, start: int = 0) -> Scores:
    return Scores({seed: float(row.mean()) for seed, row in enumerate(right, start)}, right)


def gap(first: Scores, second: Scores) -> Estimate:
    found = inference.gap(first, second)
    assert found is not None
    return found


def ends(found: Estimate, alpha: float = 0.05) -> tuple[float, float]:
    interval = found.interval(alpha)
    assert interval.low is not None and interval.high is not None
    return interval.low, interval.high


def test_students_sleep_data() -> None:
    """Student (1908): ten patients, two drugs; t = -4.0621, p = 0.002833, interval -2.4599 to -0.7001."""
    one = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    two = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = gap(by_seed(one), by_seed(two))
    assert found.p_value() == pytest.approx(0.002833, abs=1e-6)
    assert ends(found) == pytest.approx((-2.459886, -0.700114), abs=1e-6)
    # Unpaired, t = -1.8608; R's t.test has p = 0.07939 with Welch's 17.8 degrees of freedom. Banerjee's interval has
    # the 9 of either side, and is never narrower.
    apart = gap(by_seed(one), by_seed(two, start=100))
    assert apart.p_value() == pytest.approx(2 * stats.t.sf(1.860813, 9), abs=1e-5)
    half = 1.58 / 1.860813 * stats.t.ppf(0.975, 9)
    assert ends(apart) == pytest.approx((-1.58 - half, -1.58 + half), abs=1e-5)


def test_a_crossed_layout_has_the_variance_of_its_mean_squares() -> None:
    """Two seeds, three images: mean squares by hand, as any two-way analysis of variance without repeats."""
    values = np.array([[1.0, 2.0, 6.0], [3.0, 5.0, 7.0]])
    seeds, images = 2, 3
    by_seed_ = images * ((3 - 4) ** 2 + (5 - 4) ** 2) / 1
    by_image = seeds * ((2 - 4) ** 2 + (3.5 - 4) ** 2 + (6.5 - 4) ** 2) / 2
    rest = (28.0 - by_seed_ - 2 * by_image) / 2
    found = inference.crossed(values)
    assert found.mean == 4
    both = stats.t.ppf(0.975, 1) ** 2 * by_seed_ + stats.t.ppf(0.975, 2) ** 2 * (by_image - rest)
    low, high = ends(found)
    assert (low, high) == pytest.approx((4 - np.sqrt(both / 6), 4 + np.sqrt(both / 6)))
    assert found.budget.seeds == pytest.approx((by_seed_ - rest) / 6)
    assert found.budget.images == pytest.approx((by_image - rest) / 6)
    assert found.budget.residual == pytest.approx(rest / 6)


def test_no_spread_over_seeds_leaves_the_images_uncertain() -> None:
    """Every seed predicts alike: what is left is the sampling of the images, as for a single proportion."""
    right = np.zeros((5, 1000), bool)
    right[:, :600] = True
    interval = inference.score_interval(with_items(right), bounds=(0, 1))
    assert interval is not None and interval.low is not None and interval.high is not None
    expected = stats.binomtest(600, 1000).proportion_ci(method="exact")
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=5e-4)


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_an_interval_of_a_share_stays_a_share(accuracy: float) -> None:
    right = np.full((3, 50), bool(accuracy))
    interval = inference.score_interval(with_items(right), bounds=(0, 1))
    assert interval is not None and interval.low is not None and interval.high is not None
    assert 0 <= interval.low <= interval.high <= 1
    assert interval.high - interval.low == pytest.approx(1 - 0.025 ** (1 / 50)), (
        "exact, and no proof of perfection"
    )
    near = inference.score_interval(by_seed([0.99, 1.0, 0.97]), bounds=(0, 1))
    assert near is not None and near.high == 1.0


def test_identical_values_prove_nothing() -> None:
    for one, two in (([0.7] * 5, [0.6] * 5), ([0.7, 0.8, 0.9], [0.6, 0.7, 0.8])):
        found = gap(by_seed(one), by_seed(two))
        assert not found.is_known
        assert found.interval(0.05) == Interval(found.mean) and found.p_value() is None
        assert found.detectable(0.05) is None
    assert inference.mean_interval([4.0, 4.0]) == Interval(4.0)


def test_one_image_of_359_is_no_proof() -> None:
    """With every seed: the interval holds zero, and is the exact one."""
    for seeds in (2, 3, 20):
        one = np.ones((seeds, 359), bool)
        two = one.copy()
        two[:, 7] = False
        found = gap(with_items(one), with_items(two))
        low, high = ends(found)
        assert low < 0 < high
        p_value = found.p_value()
        assert p_value is not None and p_value > 0.5


def test_few_discordant_images_are_judged_exactly() -> None:
    """As McNemar's exact test, at half of alpha: six images of six are not enough, seven are."""
    for differing, told in ((5, False), (6, False), (7, True), (12, True)):
        one = np.ones((4, 359), bool)
        two = one.copy()
        two[:, :differing] = False
        found = gap(with_items(one), with_items(two))
        low, _ = ends(found)
        assert (low > 0) == told, differing
        p_value = found.p_value()
        assert p_value is not None and (p_value < 0.05) == told
        exact = stats.binomtest(differing, differing).pvalue
        assert p_value == pytest.approx(min(1, 2 * exact))


def test_the_same_predictions_bound_the_gap_by_the_rule_of_three() -> None:
    right = np.random.default_rng(0).random((3, 359)) < 0.9
    found = gap(with_items(right), with_items(right))
    assert ends(found) == pytest.approx((-(1 - 0.025 ** (1 / 359)), 1 - 0.025 ** (1 / 359)))
    assert ends(found, 0.10)[1] == pytest.approx(0.00831, abs=1e-5)
    assert found.p_value() == 1.0


def test_every_discordant_image_is_still_a_sample() -> None:
    found = gap(with_items(np.ones((3, 40), bool)), with_items(np.zeros((3, 40), bool)))
    low, high = ends(found)
    assert 0.7 < low < 1 and high == 1


def test_a_p_value_agrees_with_its_interval_at_every_level() -> None:
    generator = np.random.default_rng(5)
    for _ in range(200):
        seeds, images = int(generator.integers(2, 6)), int(generator.integers(20, 80))
        one = generator.random((seeds, images)) < 0.9
        two = one ^ (generator.random((seeds, images)) < 0.1)
        found = gap(with_items(one), with_items(two))
        p_value = found.p_value()
        assert p_value is not None
        if 1e-6 < p_value < 0.99 and found.mean:
            for alpha, told in ((p_value * 0.99, False), (min(p_value * 1.01, 1), True)):
                low, high = ends(found, alpha)
                assert (low > 0 or high < 0) == told


def test_unpaired_seeds_count_all_of_them() -> None:
    """The mean that is tested is the mean of all seeds, whichever are shared."""
    generator = np.random.default_rng(2)
    one, two = generator.random((5, 400)) < 0.7, generator.random((3, 400)) < 0.6
    found = gap(with_items(one), with_items(two, start=3))
    assert found.mean == pytest.approx(one.mean() - two.mean())
    assert found.budget.images is not None
    alone = gap(by_seed(one.mean(axis=1)), by_seed(two.mean(axis=1), start=3))
    assert alone.mean == pytest.approx(found.mean) and alone.budget.images is None


def test_seeds_are_paired_by_name_not_by_place() -> None:
    right = np.random.default_rng(3).random((3, 200)) < 0.5
    turned = Scores({2: right[2].mean(), 0: right[0].mean(), 1: right[1].mean()}, right[[2, 0, 1]])
    assert gap(with_items(right), turned).mean == 0
    assert gap(with_items(right), turned).p_value() == 1.0


def test_the_smallest_detectable_gap_is_found_with_the_stated_power() -> None:
    """The noncentral t distribution (statsmodels) has a power of 80 % there, nearly."""
    from statsmodels.stats.power import TTestPower

    values = np.array([0.01, -0.01, 0.02, -0.02, 0.0, 0.015, -0.015, 0.005])
    found = gap(by_seed(0.5 + values), by_seed(np.full(8, 0.5)))
    detectable = found.detectable(0.05)
    assert detectable is not None
    power = TTestPower().power(detectable / values.std(ddof=1), nobs=8, alpha=0.05)
    assert power == pytest.approx(0.8, abs=0.03)
    moved = gap(by_seed(0.6 + values), by_seed(np.full(8, 0.5))).detectable(0.05)
    assert moved == pytest.approx(detectable), (
        "it follows from the spread, not from the gap that was observed"
    )


@pytest.mark.parametrize(("count", "number"), [(0, 20), (20, 20), (3, 20), (2.5, 7.25)])
def test_clopper_and_pearsons_interval_is_that_of_statsmodels(count: float, number: float) -> None:
    from statsmodels.stats.proportion import proportion_confint

    expected = proportion_confint(count, number, alpha=0.05, method="beta")
    assert clopper_pearson(count, number, 0.05) == pytest.approx(expected)


def test_calibration_error() -> None:
    right = np.array([True] * 80 + [False] * 20)
    assert confidence.calibration_error(np.full(100, 0.8), right) == pytest.approx(0.0, abs=1e-12)
    assert confidence.calibration_error(np.full(100, 1.0), right) == pytest.approx(0.2)
