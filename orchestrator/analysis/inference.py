"""What two arms' accuracies over seeds prove, and what they do not: all from scipy and statsmodels.

Paired where the arms share seeds, else Welch's. An arm's seeds are the sample; the test images are the same for all.
Both libraries are imported where they are used: commands that only train do not wait for them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
POWER = 0.8
_MOST_SEEDS = 1_000
_RESAMPLES = 2_000


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; without a spread there is none."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """The gap between two arms: the mean of the first minus that of the second."""

    gap: Interval
    """Student's t, or Welch's."""
    bootstrap: Interval | None
    """Bias-corrected and accelerated bootstrap over seeds; None below three seeds."""
    paired_seeds: list[int]
    p_value: float | None
    """That there is no gap; two-sided."""
    effect_size: float | None
    """Cohen's d: the gap in standard deviations, of the paired differences or pooled."""
    equivalence_p: float | None
    """That the gap is at least the margin, by two one-sided tests."""
    seeds_needed: int | None
    """On each side, to tell a gap of this size and spread with a power of 80 %; None where it is told already, or
    no number would do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure:
    """One quantity over an arm's seeds."""

    interval: Interval
    """Student's t."""
    bootstrap: Interval | None
    """Bias-corrected and accelerated, over seeds; None below three seeds or without spread."""
    deviation: float | None
    """Standard deviation; None for one seed."""


@dataclasses.dataclass(frozen=True)
class McNemar:
    """Test images that only one of two arms answers right, by the majority of each arm's seeds."""

    only_first: int
    only_second: int
    p_value: float


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Mean and Student's t interval; the mean alone for one value, None for none."""
    if not values:
        return None
    mean = float(np.mean(values))
    if len(values) == 1:
        return Interval(mean)
    from scipy import stats

    half = float(stats.sem(values)) * float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return Interval(mean, mean - half, mean + half)


def measure(values: Sequence[float]) -> Measure | None:
    """A quantity over seeds with what can be said of it; None for no value."""
    interval = mean_interval(values)
    if interval is None:
        return None
    return Measure(
        interval=interval,
        bootstrap=_bootstrap(values) if np.ptp(values) > 0 else None,
        deviation=float(np.std(values, ddof=1)) if len(values) > 1 else None,
    )


def weigh(first: dict[int, float], second: dict[int, float], *, margin: float) -> Evidence | None:
    """The gap between two arms; None where one of them has no value.

    Args:
        first: a value for each seed.
        second: likewise.
        margin: a smaller gap counts as none, for the test of equivalence.
    """
    if not first or not second:
        return None
    shared = sorted(set(first) & set(second))
    if len(shared) >= 2:
        return _paired([first[seed] - second[seed] for seed in shared], shared, margin)
    one, two = list(first.values()), list(second.values())
    if len(one) >= 2 and len(two) >= 2:
        return _unpaired(one, two, margin)
    return Evidence(
        gap=Interval(float(np.mean(one) - np.mean(two))),
        bootstrap=None,
        paired_seeds=[],
        p_value=None,
        effect_size=None,
        equivalence_p=None,
        seeds_needed=None,
    )


def log_ratio(first: Sequence[float], second: Sequence[float]) -> Interval | None:
    """Natural logarithm of the ratio of two quantities' means, with Welch's interval by the delta method.

    Args:
        first: one positive value for each run; none gives None, and one on either side no interval.
        second: likewise.
    """
    if not first or not second:
        return None
    one, two = float(np.mean(first)), float(np.mean(second))
    ratio = math.log(one / two)
    if min(len(first), len(second)) == 1:
        return Interval(ratio)
    around, _ = _welch([value / one for value in first], [value / two for value in second])
    assert around.low is not None and around.high is not None
    return Interval(ratio, ratio + around.low, ratio + around.high)


def _paired(differences: list[float], seeds: list[int], margin: float) -> Evidence:
    from scipy import stats
    from statsmodels.stats.power import TTestPower
    from statsmodels.stats.weightstats import DescrStatsW

    gap = mean_interval(differences)
    assert gap is not None
    spread = float(np.std(differences, ddof=1))
    varies = float(np.ptp(differences)) > 0
    p_value = float(stats.ttest_1samp(differences, 0).pvalue) if varies else None
    effect = gap.mean / spread if varies else None
    return Evidence(
        gap=gap,
        bootstrap=_bootstrap(differences) if varies else None,
        paired_seeds=seeds,
        p_value=p_value,
        effect_size=effect,
        equivalence_p=float(DescrStatsW(differences).ttost_mean(-margin, margin)[0])
        if varies
        else float(abs(gap.mean) >= margin),
        seeds_needed=_seeds_needed(TTestPower().power, effect, p_value, len(seeds)),
    )


def _welch(one: list[float], two: list[float]) -> tuple[Interval, float | None]:
    """The difference of two means with its p-value; the mean thrice and no p-value where nothing varies."""
    from scipy import stats

    mean = float(np.mean(one) - np.mean(two))
    if max(np.ptp(one), np.ptp(two)) == 0:
        return Interval(mean, mean, mean), None
    test = stats.ttest_ind(one, two, equal_var=False)
    interval = test.confidence_interval(CONFIDENCE)
    return Interval(mean, float(interval.low), float(interval.high)), float(test.pvalue)


def _unpaired(one: list[float], two: list[float], margin: float) -> Evidence:
    from statsmodels.stats.power import TTestIndPower
    from statsmodels.stats.weightstats import ttost_ind

    gap, p_value = _welch(one, two)
    if p_value is None:
        effect, equivalence = None, float(abs(gap.mean) >= margin)
    else:
        effect = gap.mean / math.sqrt((np.var(one, ddof=1) + np.var(two, ddof=1)) / 2)
        equivalence = float(ttost_ind(one, two, -margin, margin, usevar="unequal")[0])
    return Evidence(
        gap=gap,
        bootstrap=None,
        paired_seeds=[],
        p_value=p_value,
        effect_size=effect,
        equivalence_p=equivalence,
        seeds_needed=_seeds_needed(TTestIndPower().power, effect, p_value, min(len(one), len(two))),
    )


def _bootstrap(values: Sequence[float]) -> Interval | None:
    if len(values) < 3:
        return None
    from scipy import stats

    result = stats.bootstrap(
        (values,), np.mean, confidence_level=CONFIDENCE, n_resamples=_RESAMPLES, rng=np.random.default_rng(0)
    )
    low, high = (float(end) for end in result.confidence_interval)
    return None if math.isnan(low) else Interval(float(np.mean(values)), low, high)


def _seeds_needed(
    power: Callable[[float, float, float], float], effect: float | None, p_value: float | None, seeds: int
) -> int | None:
    """Where a test's power, given effect, seeds and alpha, reaches 80 %."""
    if effect is None or p_value is None or p_value < ALPHA:
        return None
    from scipy import optimize

    def missing(number: float) -> float:
        reached = power(abs(effect), number, ALPHA)
        return POWER - (1.0 if math.isnan(reached) else reached)  # no number is given where it is nearly 1

    if missing(_MOST_SEEDS) > 0:
        return None
    least = seeds + 1
    return (
        least if missing(least) <= 0 else math.ceil(optimize.brentq(missing, least, _MOST_SEEDS, xtol=1e-3))
    )


def holm(p_values: list[float | None]) -> list[float | None]:
    """P-values corrected for being several (Holm); those that are missing stay so."""
    known = [value for value in p_values if value is not None]
    if not known:
        return list(p_values)
    from statsmodels.stats.multitest import multipletests

    corrected = iter(multipletests(known, alpha=ALPHA, method="holm")[1])
    return [None if value is None else float(next(corrected)) for value in p_values]


def mcnemar(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> McNemar:
    """Whether two arms are right on different test images.

    Args:
        first: int [seeds, n] answers.
        second: likewise.
        labels: int [n] true classes.
    """
    from scipy import stats
    from statsmodels.stats.contingency_tables import mcnemar as test

    right = [stats.mode(answers, axis=0).mode == labels for answers in (first, second)]
    table = [[int(np.sum((right[0] == a) & (right[1] == b))) for b in (True, False)] for a in (True, False)]
    return McNemar(table[0][1], table[1][0], float(test(table, exact=True).pvalue))


def calibration_error(confidences: np.ndarray, right: np.ndarray, *, bins: int = 15) -> float:
    """Expected calibration error (Guo et al., 2017): confidence minus accuracy, over bins of confidence.

    Args:
        confidences: float [n], of the answer that was given.
        right: bool [n].
        bins: of equal width.
    """
    place = np.minimum((confidences * bins).astype(int), bins - 1)
    error = 0.0
    for number in range(bins):
        inside = place == number
        if inside.any():
            error += inside.mean() * abs(confidences[inside].mean() - right[inside].mean())
    return float(error)
