"""How a driver is stopped: by SIGTERM, which is treated as Ctrl-C, and at its deadline."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from trainers.errors import TandemError


class DeadlineError(TandemError):
    """The job has reached its deadline."""


@contextlib.contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C while the block lasts."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextlib.contextmanager
def stopped_at(deadline: float | None) -> Iterator[None]:
    """Interrupt the block at a deadline, in seconds since the epoch. SIGTERM must interrupt the main thread.

    Raises:
        DeadlineError: the deadline has passed, perhaps before the block began.
    """
    if deadline is None:
        yield
        return
    passed = threading.Event()

    def stop() -> None:
        passed.set()
        os.kill(os.getpid(), signal.SIGTERM)

    at = datetime.fromtimestamp(deadline, UTC).isoformat(" ", "seconds")
    sentence = (
        f"the deadline has passed ({at}); raise kubernetes.deadline_seconds and submit again: "
        "the experiment resumes from its last checkpoint"
    )
    left = deadline - time.time()
    if left <= 0:
        raise DeadlineError(sentence)
    timer = threading.Timer(left, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    except KeyboardInterrupt:
        if passed.is_set():
            raise DeadlineError(sentence) from None
        raise
    finally:
        timer.cancel()
