"""Proportions of few images, without a normal approximation."""

from __future__ import annotations

import dataclasses


def clopper_pearson(count: float, number: float, alpha: float) -> tuple[float, float]:
    """The interval of a proportion (Clopper and Pearson, 1934), from scipy's beta distribution.

    Args:
        count: of successes; may be a fraction.
        number: of trials.
        alpha: the probability that the interval leaves the truth out, at most.
    """
    from scipy.special import betaincinv

    low = float(betaincinv(count, number - count + 1, alpha / 2)) if count > 0 else 0.0
    high = float(betaincinv(count + 1, number - count, 1 - alpha / 2)) if count < number else 1.0
    return low, high


@dataclasses.dataclass(frozen=True)
class Discordance:
    """Test images that two arms classify differently; an image counts by the share of seeds that differ."""

    first: float
    """Images that only the first arm classifies correctly."""
    second: float
    images: int
    """Of the test split."""

    def interval(self, alpha: float) -> tuple[float, float]:
        """Bounds on the difference of two proportions of the same images.

        The share of discordant images and, among those, the share that the first arm wins each have the interval of
        Clopper and Pearson (1934) at half of alpha. An image that differs for a part of the seeds counts as that part.
        Of all variables between 0 and 1 with one mean, one that is 0 or 1 varies most, so that this can only widen the
        interval.
        """
        differing = self.first + self.second
        if differing == 0:
            _, most = clopper_pearson(0, self.images, alpha)
            return -most, most
        least, most = clopper_pearson(differing, self.images, alpha / 2)
        low, high = clopper_pearson(self.first, differing, alpha / 2)
        lead, most_lead = 2 * low - 1, 2 * high - 1
        return lead * (least if lead > 0 else most), most_lead * (most if most_lead > 0 else least)

    def p_value(self) -> float:
        """The smallest alpha at which `interval` leaves zero out."""
        from scipy.special import betainc

        more, fewer = max(self.first, self.second), min(self.first, self.second)
        return 1.0 if more == fewer else min(1.0, 4 * float(betainc(more, fewer + 1, 0.5)))
