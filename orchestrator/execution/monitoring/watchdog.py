"""Ends a worker that does nothing any more, so that it is replaced instead of waited for."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable

from orchestrator.store.storage import Record


class Watchdog:
    """A thread that ends the process when `heartbeat` was not called for too long.

    When one worker hangs, the others wait for it in the exchange of gradients and end likewise. A
    process that is stopped altogether is noticed by Ray Train, which asks each worker for its state.
    """

    def __init__(self, seconds: float, *, rank: int, last_words: Callable[[Record], None]) -> None:
        """Start watching.

        Args:
            seconds: between two heartbeats at most.
            rank: of this worker.
            last_words: given a record of rank, seconds and stack before the process ends.
        """
        self._seconds = seconds
        self._rank = rank
        self._last_words = last_words
        self._last = time.monotonic()
        self._stopped = threading.Event()
        self._watched = threading.get_ident()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def heartbeat(self) -> None:
        """Something was done."""
        self._last = time.monotonic()

    def stop(self) -> None:
        """Watch no longer."""
        self._stopped.set()

    def _watch(self) -> None:
        while (idle := time.monotonic() - self._last) < self._seconds:
            if self._stopped.wait(self._seconds - idle):
                return
        frame = sys._current_frames().get(self._watched)
        stack = "".join(traceback.format_stack(frame)) if frame else ""
        try:
            self._last_words({"rank": self._rank, "seconds": self._seconds, "stack": stack})
        finally:
            os._exit(1)
