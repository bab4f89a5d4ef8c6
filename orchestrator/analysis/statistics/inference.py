"""How well two arms' results are known: one model of uncertainty, seeds by test images.

Both the seeds and the test images are samples: another seed trains another model, and other images would have been
other questions. Arms that classify the same images are a crossed two-way layout of correctness with both factors random
(Searle, Casella and McCulloch, Variance Components, 1992, chapter 4). Without values for each image only the seeds'
part is known.

A mean whose variance has several estimated parts gets the interval of Banerjee (1961): each part counts with Student's
quantile for its own degrees of freedom. One quantile for all, with the degrees of freedom of Satterthwaite (1946), is
narrower, but leaves the truth out too often with three seeds, and many times too often at the small error rates that
several comparisons need. Distributions come from scipy, imported where they are used: commands that only train do not
load it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from orchestrator.analysis.statistics.discordance import Discordance, clopper_pearson

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
POWER = 0.8
LEAST_SEEDS = 3
"""On each side, for a verdict: the spread of two values is known to a factor of 30 only."""
_FEW_DISCORDANT = 25
_NO_SPREAD = 1e-12
_LEAST_P = 1e-12


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with its interval, of 95 % unless it says otherwise; without a spread there is none."""

    mean: float
    low: float | None = None
    high: float | None = None

    def within(self, least: float, most: float) -> Interval:
        """The interval without what the quantity cannot be."""
        if self.low is None or self.high is None:
            return self
        return Interval(self.mean, max(self.low, least), min(self.high, most))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure:
    """One quantity over an arm's seeds."""

    interval: Interval
    """Student's t over seeds."""
    deviation: float | None
    """Standard deviation over seeds; None for one seed."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """One arm's results, by the metric that arms are compared by."""

    by_seed: dict[int, float]
    items: np.ndarray | None = None
    """[seeds, images], rows in the order of `by_seed`: what each image adds to its seed's mean. Bool for right
    predictions. None where the values of single images are not known for every seed."""
    examples: str = ""
    """Names the images; only arms with the same name have answered the same ones."""
    overlap: float = 0.0
    """Where each seed has test images of its own: the test images for each training image. Seeds then share training
    images, so that the variance of their mean is larger by this part of the variance between them (Nadeau and Bengio,
    2003)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """The variance of a mean by its sources; a negative estimate counts as zero (Searle et al., 1992)."""

    seeds: float
    images: float | None
    """None where the values of single images are not known, so that the interval leaves this out."""
    residual: float | None
    """What one seed does to one image; without values of single images it is part of `seeds`."""


@dataclasses.dataclass(frozen=True)
class Part:
    """An estimated part of a mean's variance, with its degrees of freedom."""

    variance: float
    freedom: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with what its variance is made of."""

    mean: float
    variances: tuple[tuple[Part, ...], ...]
    """Sums of parts, each a lower bound on the variance: the largest counts. Empty where nothing varies, which proves
    nothing."""
    budget: Budget
    exact: Discordance | None = None
    """Set where so few images differ that a normal approximation fails: intervals then contain the exact one."""

    @property
    def is_known(self) -> bool:
        """Whether there is anything that an interval can be made of."""
        return bool(self.variances) or self.exact is not None

    def interval(self, alpha: float) -> Interval:
        """The two-sided interval that leaves the truth out with a probability of alpha; no ends where unknown."""
        if not self.is_known:
            return Interval(self.mean)
        half = self._half(alpha)
        low, high = self.mean - half, self.mean + half
        if self.exact is not None:
            least, most = self.exact.interval(alpha)
            low, high = min(low, least), max(high, most)
        return Interval(self.mean, low, high)

    def _half(self, alpha: float) -> float:
        """Half of the interval without the exact bound (Banerjee, 1961)."""
        return math.sqrt(
            max(
                (
                    sum(part.variance * t_quantile(1 - alpha / 2, part.freedom) ** 2 for part in parts)
                    for parts in self.variances
                ),
                default=0.0,
            )
        )

    def p_value(self) -> float | None:
        """The smallest alpha whose interval leaves zero out; None where nothing is known."""
        if not self.is_known:
            return None
        found = 0.0
        if self.variances:
            found = 1.0
            if self.mean:
                from scipy.optimize import brentq

                beyond = abs(self.mean)
                found = _LEAST_P
                if self._half(_LEAST_P) > beyond:
                    found = math.exp(
                        brentq(lambda power: self._half(math.exp(power)) - beyond, math.log(_LEAST_P), 0.0)
                    )
        return found if self.exact is None else max(found, self.exact.p_value())

    def detectable(self, alpha: float) -> float | None:
        """The smallest true difference that an interval at alpha leaves out with a power of 80 % (Bloom, 1995).

        It follows from the variance, not from the mean: power at the observed gap says no more than its p-value.
        """
        if not self.is_known:
            return None
        return sum(self._reach(level) for level in (alpha, 2 * (1 - POWER)))

    def _reach(self, alpha: float) -> float:
        found = self.interval(alpha)
        assert found.low is not None and found.high is not None
        return max(found.high - found.mean, found.mean - found.low)


def gap(first: Scores, second: Scores) -> Estimate | None:
    """The first arm's mean minus the second's, over all of their seeds; None where one has no value.

    Arms with the same seeds are paired by seed. Otherwise every seed of either arm counts, and the seeds of both are
    taken for independent. Images are paired wherever both arms have values for each of them.
    """
    if not first.by_seed or not second.by_seed:
        return None
    one, two = first.items, second.items
    if have_same_items(first, second) and one is not None and two is not None and one.shape[1] > 1:
        if first.by_seed.keys() == second.by_seed.keys():
            order = [list(second.by_seed).index(seed) for seed in first.by_seed]
            return _paired_on_images(one, two[order])
        return _unpaired_on_images(one, two)
    if first.by_seed.keys() == second.by_seed.keys():
        differences = [first.by_seed[seed] - second.by_seed[seed] for seed in first.by_seed]
        overlap = max(first.overlap, second.overlap)
        return _over_seeds(differences, overlap=overlap, scale=_scale(first, second))
    sides = [np.array([*scores.by_seed.values()]) for scores in (first, second)]
    mean = float(sides[0].mean() - sides[1].mean())
    if min(map(len, sides)) < 2:
        return _estimate(mean, [], Budget(seeds=0.0, images=None, residual=None), _scale(first, second))
    parts = tuple(
        Part(float(np.var(side, ddof=1)) * (1 / len(side) + scores.overlap), len(side) - 1)
        for side, scores in zip(sides, (first, second), strict=True)
    )
    budget = Budget(seeds=sum(part.variance for part in parts), images=None, residual=None)
    return _estimate(mean, [parts], budget, _scale(first, second))


def _scale(*sides: Scores) -> float:
    """The largest value, by which rounding errors are told from differences."""
    return max(abs(value) for side in sides for value in side.by_seed.values())


def have_same_items(first: Scores, second: Scores) -> bool:
    """Whether values are known for each of the same images."""
    if first.items is None or second.items is None or first.examples != second.examples:
        return False
    return bool(first.items.shape[1] == second.items.shape[1])


def crossed(values: np.ndarray) -> Estimate:
    """The mean of a crossed two-way layout [seeds, images] with both factors random.

    The unbiased estimate of the mean's variance is (MS_seed + MS_image - MS_rest) / (seeds * images). With few seeds it
    may fall below what one factor alone makes certain, so that MS_seed and MS_image are lower bounds.
    """
    seeds, images = values.shape
    grand, rows, columns = values.mean(), values.mean(axis=1), values.mean(axis=0)
    by_seed = images * float(((rows - grand) ** 2).sum())
    by_image = seeds * float(((columns - grand) ** 2).sum())
    rest = max(float(((values - grand) ** 2).sum()) - by_seed - by_image, 0.0)
    count = seeds * images
    of_images = Part(by_image / (images - 1) / count, images - 1)
    if seeds == 1:
        return _combined(float(grand), [], of_images, 0.0)
    return _combined(
        float(grand),
        [Part(by_seed / (seeds - 1) / count, seeds - 1)],
        of_images,
        rest / ((seeds - 1) * (images - 1)) / count,
    )


def widened(found: Estimate, samples: Sequence[float]) -> Estimate:
    """An estimate that also varies with what was sampled, such as the orders of an attribution.

    Args:
        found: the estimate over everything else.
        samples: the estimate for each sample alone, two or more.
    """
    further = Part(float(np.var(samples, ddof=1)) / len(samples), len(samples) - 1)
    return dataclasses.replace(found, variances=tuple((*parts, further) for parts in found.variances))


def _paired_on_images(one: np.ndarray, two: np.ndarray) -> Estimate:
    differences = one.astype(np.float64) - two
    found = crossed(differences)
    return _with_exact(found, differences.mean(axis=0)) if one.dtype == two.dtype == bool else found


def _unpaired_on_images(one: np.ndarray, two: np.ndarray) -> Estimate:
    """Each arm's seeds by themselves, and the images that both classify."""
    images = one.shape[1]
    differences = one.mean(axis=0) - two.mean(axis=0)
    seeds, residual = [], 0.0
    for side in (one, two):
        count = len(side)
        if count > 1:
            own = side.mean(axis=1)
            seeds.append(Part(float(np.var(own, ddof=1)) / count, count - 1))
            rest = side - own[:, None] - side.mean(axis=0) + side.mean()
            residual += float((rest**2).sum()) / ((count - 1) * (images - 1)) / (count * images)
    of_images = Part(float(np.var(differences, ddof=1)) / images, images - 1)
    found = _combined(float(differences.mean()), seeds, of_images, residual)
    return _with_exact(found, differences) if one.dtype == two.dtype == bool else found


def _combined(mean: float, seeds: list[Part], images: Part, residual: float) -> Estimate:
    """A mean over seeds and images; the residual is in both parts, and counts once."""
    by_seeds, by_images = sum(part.variance for part in seeds), max(images.variance - residual, 0.0)
    return _estimate(
        mean,
        [(*seeds, Part(by_images, images.freedom)), (images,)],
        Budget(seeds=max(by_seeds - residual, 0.0), images=by_images, residual=residual),
    )


def _estimate(
    mean: float, variances: Sequence[tuple[Part, ...]], budget: Budget, scale: float = 1.0
) -> Estimate:
    """A mean of values that are as large as a scale: what is smaller by twelve digits is a rounding error."""
    most = max((sum(part.variance for part in parts) for parts in variances), default=0.0)
    varies = math.sqrt(most) > _NO_SPREAD * max(abs(mean), scale)
    mean = mean if abs(mean) > _NO_SPREAD * scale else 0.0
    return Estimate(mean=mean, variances=tuple(variances) if varies else (), budget=budget)


def _over_seeds(values: Sequence[float], *, overlap: float = 0.0, scale: float = 1.0) -> Estimate:
    mean, count = float(np.mean(values)), len(values)
    variance = float(np.var(values, ddof=1)) * (1 / count + overlap) if count > 1 else 0.0
    budget = Budget(seeds=variance, images=None, residual=None)
    return _estimate(mean, [(Part(variance, count - 1),)], budget, scale)


def _with_exact(found: Estimate, differences: np.ndarray) -> Estimate:
    """With the exact bound where fewer than 25 images differ, or where nothing varies."""
    if np.count_nonzero(differences) >= _FEW_DISCORDANT and found.variances:
        return found
    exact = Discordance(
        first=float(differences.clip(min=0).sum()),
        second=float(-differences.clip(max=0).sum()),
        images=len(differences),
    )
    return dataclasses.replace(found, exact=exact)


def t_quantile(probability: float, freedom: float) -> float:
    """Of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))


def score_interval(scores: Scores, *, bounds: tuple[float, float]) -> Interval | None:
    """An arm's mean with a 95 % interval between bounds, over seeds and images where both are known.

    A share has, with values of single images, the interval of Korn and Graubard (1998): that of Clopper and Pearson
    (1934) for as many independent predictions as would have the same variance, corrected for the variance's degrees of
    freedom. Without values of single images it is Student's t over seeds.
    """
    if not scores.by_seed:
        return None
    mean = float(np.mean([*scores.by_seed.values()]))
    if len(scores.by_seed) == 1:
        return Interval(mean)
    if scores.items is None or scores.items.shape[1] < 2:
        return mean_interval([*scores.by_seed.values()], bounds=bounds, overlap=scores.overlap)
    interval = crossed(scores.items).interval(ALPHA)
    count = float(scores.items.shape[1])
    if interval.high is not None:
        count = mean * (1 - mean) * (t_quantile(1 - ALPHA / 2, math.inf) / (interval.high - mean)) ** 2
    low, high = clopper_pearson(mean * count, count, ALPHA)
    return Interval(mean, min(low, mean), max(high, mean))


def mean_interval(
    values: Sequence[float],
    *,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    overlap: float = 0.0,
) -> Interval | None:
    """Mean and Student's t interval over seeds, cut at the quantity's bounds.

    The mean alone for one value or without any spread; None for no value. `overlap` is as `Scores` has it.
    """
    if not values:
        return None
    scale = max(map(abs, values))
    return _over_seeds(values, overlap=overlap, scale=scale).interval(ALPHA).within(*bounds)


def measure(
    values: Sequence[float], *, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> Measure | None:
    """A quantity over seeds with what can be said of it; None for no value."""
    interval = mean_interval(values, bounds=bounds)
    if interval is None:
        return None
    return Measure(interval=interval, deviation=float(np.std(values, ddof=1)) if len(values) > 1 else None)


def log_ratio(
    first: Sequence[float], second: Sequence[float], *, alpha: float | None = None
) -> Interval | None:
    """Natural logarithm of the ratio of two positive quantities' means.

    The interval is that of `gap`, by the delta method (Oehlert, 1992), for independent values.

    Args:
        first: one positive value for each run; none gives None.
        second: likewise.
        alpha: of the interval; None for no interval.
    """
    if not first or not second:
        return None
    one, two = float(np.mean(first)), float(np.mean(second))
    if min(one, two) <= 0:
        return None
    ratio = math.log(one / two)
    if alpha is None:
        return Interval(ratio)
    relative = [
        Scores({place: value / mean for place, value in enumerate(side, start)})
        for side, mean, start in ((first, one, 0), (second, two, len(first)))
    ]
    around = gap(*relative)
    assert around is not None
    interval = around.interval(alpha)
    if interval.low is None or interval.high is None:
        return Interval(ratio)
    return Interval(ratio, ratio + interval.low, ratio + interval.high)
