"""Populations of test images and seeds whose accuracies are known exactly, to simulate experiments from."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.special import ndtr, ndtri


@dataclasses.dataclass(frozen=True)
class Population:
    """Kinds of images by how often an arm's seeds classify them correctly."""

    shares: tuple[float, ...]
    """Of each kind among the images."""
    rights: tuple[float, ...]
    """How often its images are classified correctly."""
    own: float
    """By how much an arm finds an image easier or harder than another arm."""
    seeds: float
    """Standard deviation over seeds, on the probit scale."""

    @property
    def accuracy(self) -> float:
        """Over all images and seeds."""
        return float(np.dot(self.shares, self.rights))

    def draw(
        self, generator: np.random.Generator, seeds: list[int], images: int, gaps: list[float]
    ) -> list[np.ndarray]:
        """For each arm bool [seeds, images], the images that each of its seeds classifies correctly.

        An image that an arm classifies correctly with probability p over all seeds has the threshold z with
        P(normal < z) = p after the seeds' spread, so that each arm's accuracy is exact.

        Args:
            generator: of everything.
            seeds: of each arm, all different.
            images: test images, which all arms classify.
            gaps: by how much each arm's accuracy is below the population's.
        """
        kinds = np.asarray(self.rights)[generator.choice(len(self.shares), images, p=self.shares)]
        drawn = []
        for count, gap in zip(seeds, gaps, strict=True):
            own = generator.choice([-1.0, 1.0], images) * np.minimum(self.own, np.minimum(kinds, 1 - kinds))
            chance = ((kinds + own) * (1 - gap / self.accuracy)).clip(1e-12, 1 - 1e-12)
            effects = generator.normal(0, self.seeds, (count, 1))
            thresholds = ndtri(chance) * np.sqrt(1 + self.seeds**2) + effects
            drawn.append(generator.random((count, images), np.float32) < ndtr(thresholds.astype(np.float32)))
        return drawn


POPULATIONS = {
    "digits": Population((0.95, 0.05), (0.9995, 0.6), own=0.3, seeds=0.02),
    "clothes": Population((0.88, 0.12), (0.995, 0.80), own=0.15, seeds=0.1),
    "pictures": Population((0.5, 0.3, 0.2), (0.95, 0.7, 0.2), own=0.1, seeds=0.08),
    "restless": Population((0.6, 0.4), (0.8, 0.4), own=0.05, seeds=0.3),
}
"""97 % right with hardly any spread over seeds, 97 % with some, 71 % with some, 64 % with seeds that differ most."""
