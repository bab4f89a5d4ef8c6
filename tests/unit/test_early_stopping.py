from __future__ import annotations

import pytest

from trainers.early_stopping import Patience


@pytest.mark.parametrize(
    ("scores", "best", "over"),
    [
        ([(0.5, 1.0)], 1, False),
        ([(0.5, 1.0), (0.6, 2.0)], 2, False),
        ([(0.5, 1.0), (0.4, 0.5)], 1, False),
        ([(0.5, 1.0), (0.4, 0.5), (0.4, 0.4)], 1, True),
        ([(0.5, 1.0), (0.4, 0.5), (0.5, 0.9)], 3, False),
        ([(0.5, 1.0), (0.5, 1.0), (0.5, 1.0)], 1, True),
    ],
)
def test_the_best_is_waited_for_so_many_epochs(
    scores: list[tuple[float, float]], best: int, over: bool
) -> None:
    patience = Patience(2)
    assert not patience.is_over
    for epoch, (accuracy, loss) in enumerate(scores, start=1):
        seen = patience.see(epoch, accuracy, loss)
    assert (seen, patience.best, patience.last, patience.is_over) == (best, best, len(scores), over)


def test_without_patience_the_last_epoch_counts() -> None:
    patience = Patience(None)
    for epoch in range(1, 9):
        assert patience.see(epoch, None, None) == epoch
    assert not patience.is_over
