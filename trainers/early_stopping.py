"""When a run that no longer gets better on the validation split ends, and which of its epochs counts."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class Patience:
    """The epochs of one run so far. The same numbers, and so the same decisions, on every worker."""

    epochs: int | None
    """So many are waited for one better than the best; None to train to the end, where the last one counts."""
    _scores: dict[int, tuple[float, float]] = dataclasses.field(default_factory=dict)

    def see(self, epoch: int, accuracy: float | None, loss: float | None) -> int:
        """Take in an epoch's validation accuracy and loss, if it has them; returns the epoch that counts so far."""
        self._scores[epoch] = accuracy or 0.0, -(loss or 0.0)
        return self.best

    @property
    def last(self) -> int:
        """The last epoch, from 1."""
        return max(self._scores)

    @property
    def best(self) -> int:
        """The epoch of the highest accuracy; among equals of the lowest loss, then the earliest."""
        if self.epochs is None:
            return self.last
        return max(self._scores, key=lambda epoch: (*self._scores[epoch], -epoch))

    @property
    def is_over(self) -> bool:
        """Whether so many epochs came after the best."""
        return self.epochs is not None and bool(self._scores) and self.last - self.best >= self.epochs
