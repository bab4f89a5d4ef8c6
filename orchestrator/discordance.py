"""Two proportions of the same few images, without a normal approximation."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Discordance:
    """Test images that two arms answer differently; an image counts by the share of seeds that differ."""

    first: float
    """Images that only the first arm answers right."""
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
        from statsmodels.stats.proportion import proportion_confint

        differing = self.first + self.second
        if differing == 0:
            _, most = proportion_confint(0, self.images, alpha=alpha, method="beta")
            return -float(most), float(most)
        least, most = proportion_confint(differing, self.images, alpha=alpha / 2, method="beta")
        low, high = proportion_confint(self.first, differing, alpha=alpha / 2, method="beta")
        lead, most_lead = 2 * float(low) - 1, 2 * float(high) - 1
        return (
            lead * float(least if lead > 0 else most),
            most_lead * float(most if most_lead > 0 else least),
        )

    def p_value(self) -> float:
        """The smallest alpha at which `interval` leaves zero out."""
        from scipy.special import betainc

        more, fewer = max(self.first, self.second), min(self.first, self.second)
        return 1.0 if more == fewer else min(1.0, 4 * float(betainc(more, fewer + 1, 0.5)))
