"""Statistics against known results, and against planted truths at their stated rates."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.analysis import inference
from orchestrator.analysis.inference import weigh

SEEDS = range(5)


def by_seed(values: list[float] | np.ndarray) -> dict[int, float]:
    return {seed: float(value) for seed, value in enumerate(values)}


def test_students_sleep_data() -> None:
    """Student (1908): ten patients, two drugs; t = -4.0621, p = 0.002833, interval -2.4599 to -0.7001."""
    one = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    two = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = weigh(by_seed(one), by_seed(two), margin=0.5)
    assert found is not None and found.p_value == pytest.approx(0.002833, abs=1e-6)
    assert (found.gap.low, found.gap.high) == pytest.approx((-2.459886, -0.700114), abs=1e-6)
    assert found.effect_size == pytest.approx(-4.0621 / np.sqrt(10), abs=1e-4)
    assert (
        found.bootstrap is not None and found.bootstrap.low is not None and found.bootstrap.high is not None
    )
    assert found.bootstrap.low < -1.58 < found.bootstrap.high
    assert found.seeds_needed is None, "it is told already"
    # Welch on the same data, as R's t.test prints it: p = 0.07939
    apart = weigh(by_seed(one), {seed + 100: value for seed, value in enumerate(two)}, margin=0.5)
    assert apart is not None and apart.p_value == pytest.approx(0.07939, abs=1e-5)
    assert apart.paired_seeds == [] and apart.bootstrap is None


def test_the_seeds_that_would_be_needed() -> None:
    # Half a standard deviation, power 0.8, two-sided 0.05: 33.4 pairs (Cohen, 1988)
    values = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    values = values / values.std(ddof=1) + 0.5
    found = weigh(by_seed(values), by_seed(np.zeros(6)), margin=0.1)
    assert found is not None and found.effect_size == pytest.approx(0.5)
    assert found.seeds_needed == 34


def test_equivalence_is_proven_and_not_assumed() -> None:
    close = weigh(by_seed([0.700, 0.702, 0.701, 0.699]), by_seed([0.701, 0.701, 0.702, 0.698]), margin=0.01)
    assert close is not None and close.equivalence_p is not None and close.equivalence_p < 0.001
    noisy = weigh(by_seed([0.70, 0.75, 0.65]), by_seed([0.71, 0.68, 0.72]), margin=0.01)
    assert noisy is not None and noisy.equivalence_p is not None and noisy.equivalence_p > 0.05
    same = weigh(by_seed([0.7, 0.8]), by_seed([0.7, 0.8]), margin=0.01)
    assert same is not None and same.equivalence_p == 0.0


def test_holm_corrects_and_leaves_the_missing() -> None:
    assert inference.holm([0.01, None, 0.04, 0.03]) == [
        pytest.approx(0.03),
        None,
        pytest.approx(0.06),
        pytest.approx(0.06),
    ]
    assert inference.holm([None]) == [None]


def test_mcnemar_counts_what_only_one_answers_right() -> None:
    labels = np.zeros(100, int)
    first, second = np.zeros((3, 100), int), np.zeros((3, 100), int)
    first[:, :5] = 1  # the first is wrong on 5, the second on 15 others
    second[:, 80:95] = 1
    second[0, 50] = 1  # one seed of three is outvoted
    found = inference.mcnemar(first, second, labels)
    assert (found.only_first, found.only_second) == (15, 5)
    assert found.p_value == pytest.approx(0.0414, abs=1e-4)  # exact binomial, 5 of 20


def test_calibration_error() -> None:
    right = np.array([True] * 80 + [False] * 20)
    assert inference.calibration_error(np.full(100, 0.8), right) == pytest.approx(0.0, abs=1e-12)
    assert inference.calibration_error(np.full(100, 1.0), right) == pytest.approx(0.2)


def simulated(gap: float, *, seeds: int, spread: float, experiments: int = 1000) -> list[inference.Evidence]:
    generator = np.random.default_rng(7)
    found = []
    for _ in range(experiments):
        shared = generator.normal(0.7, 0.02, seeds)
        one = shared + gap + generator.normal(0, spread / np.sqrt(2), seeds)
        two = shared + generator.normal(0, spread / np.sqrt(2), seeds)
        weighed = weigh(by_seed(one), by_seed(two), margin=0.01)
        assert weighed is not None
        found.append(weighed)
    return found


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "_RESAMPLES", 50)


def test_false_alarms_stay_at_their_rate() -> None:
    alarms = [
        found.p_value is not None and found.p_value < 0.05 for found in simulated(0.0, seeds=5, spread=0.005)
    ]
    assert 0.03 < np.mean(alarms) < 0.065, "5 % is what is stated; over 1,000 experiments"


def test_a_planted_gap_is_found_with_the_power_that_is_computed() -> None:
    from statsmodels.stats.power import TTestPower

    gap, spread, seeds = 0.005, 0.005, 8
    expected = TTestPower().power(gap / spread, nobs=seeds, alpha=0.05)
    told = [
        found.p_value is not None and found.p_value < 0.05
        for found in simulated(gap, seeds=seeds, spread=spread)
    ]
    assert np.mean(told) == pytest.approx(expected, abs=0.045)


@pytest.mark.slow
def test_equivalence_is_told_at_its_rate() -> None:
    at_the_margin = simulated(0.01, seeds=6, spread=0.004)
    wrong = [found.equivalence_p is not None and found.equivalence_p < 0.05 for found in at_the_margin]
    assert np.mean(wrong) < 0.07, "false claims of sameness at the margin itself: 5 % at most"
    alike = [
        found.equivalence_p is not None and found.equivalence_p < 0.05
        for found in simulated(0.0, seeds=6, spread=0.004)
    ]
    assert np.mean(alike) > 0.9


@pytest.mark.slow
def test_the_verdict_over_three_arms_has_the_same_rate() -> None:
    """Three arms, so three pairs: with the correction, any false alarm at all stays near 5 %."""
    generator = np.random.default_rng(3)
    alarms = 0
    for _ in range(300):
        arms = [by_seed(generator.normal(0.7, 0.01, 5)) for _ in range(3)]
        pairs = [weigh(arms[a], arms[b], margin=0.01) for a, b in [(0, 1), (0, 2), (1, 2)]]
        corrected = inference.holm([pair.p_value if pair else None for pair in pairs])
        alarms += any(value is not None and value < 0.05 for value in corrected)
    assert alarms / 300 < 0.08
