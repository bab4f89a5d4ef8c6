"""Time what is called again and again."""

from __future__ import annotations

import time
from collections.abc import Callable


def seconds_of_calls(call: Callable[[], object], *, fewest: int, at_least: float = 0.0) -> list[float]:
    """What each call takes, in seconds, warm: the first is not counted.

    Args:
        call: returns when its work is done.
        fewest: calls to count at least.
        at_least: seconds that they take together at least.
    """
    call()
    seconds: list[float] = []
    while len(seconds) < fewest or sum(seconds) < at_least:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds
