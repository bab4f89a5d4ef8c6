"""The learning rate of every step, computed once for both frameworks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trainers.recipes import Constant, Cosine, OwnOptimizer, Plateau, Recipe, Schedule


def learning_rates(recipe: Recipe, total_steps: int) -> np.ndarray:
    """The learning rate of every step, float32 of shape [total_steps]; NaN for an optimizer of the user's own.

    That of the schedule `plateau` is the peak; `plateau_factor` gives what an epoch multiplies it by.

    Step t of T is taken at progress (t + 1) / (T + 1), so that neither the first nor the last
    step of a triangle is wasted on a rate of zero.
    """
    schedule = recipe.schedule
    peak = math.nan if isinstance(recipe.optimizer, OwnOptimizer) else recipe.optimizer.learning_rate
    progress = np.arange(1, total_steps + 1) / (total_steps + 1)
    if isinstance(schedule, Constant | Plateau):
        factor = np.ones(total_steps)
    else:
        rising = progress / schedule.warmup if schedule.warmup else np.ones(total_steps)
        remaining = (1 - progress) / (1 - schedule.warmup)
        falling = (
            (1 - np.cos(np.pi * np.minimum(remaining, 1))) / 2 if isinstance(schedule, Cosine) else remaining
        )
        factor = np.where(progress < schedule.warmup, rising, falling)
    return (peak * factor).astype(np.float32)


def plateau_factor(schedule: Schedule, validation_losses: Sequence[float]) -> float:
    """What the next epoch multiplies the learning rate by.

    Args:
        schedule: 1 for all but `plateau`.
        validation_losses: of the epochs so far.
    """
    factor = 1.0
    if not isinstance(schedule, Plateau):
        return factor
    best, waited = math.inf, 0
    for loss in validation_losses:
        waited = 0 if loss < best else waited + 1
        best = min(best, loss)
        if waited == schedule.patience:
            factor, waited = factor * schedule.factor, 0
    return factor
