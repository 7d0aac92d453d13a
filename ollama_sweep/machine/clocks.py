"""Clocks beside `time.monotonic`."""

from __future__ import annotations

import contextlib
import threading
import time
from datetime import UTC, datetime

from ollama_sweep.machine.crew import start

BEAT_S = 0.25
LONG_S = 1.0
"""A beat that comes so much too late was held up; less is an ordinary busy machine."""


def suspended_s() -> float:
    """Seconds this computer has slept: how far a clock that counts sleep is ahead of one that does not.

    Where the system has one such clock only (not Linux), the time of day stands in for it.
    """
    counts_sleep = time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.time()
    return counts_sleep - time.monotonic()


def time_of_day_ahead_s() -> float:
    """Seconds by which the time of day is ahead of a clock that nobody can set and that counts sleep.

    It changes where somebody sets the time of day. Always 0 where the system has no such clock (not Linux).
    """
    has_one = hasattr(time, "CLOCK_BOOTTIME")
    return datetime.now(UTC).timestamp() - time.clock_gettime(time.CLOCK_BOOTTIME) if has_one else 0.0


class Heartbeat:
    """How long this process stood still (SIGSTOP, Ctrl-Z), told by a thread whose beats then come too late."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._still_s = 0.0
        self._thread = threading.Thread(target=self._go_on, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat; what was before does not count."""
        self._last = time.monotonic()
        with contextlib.suppress(RuntimeError):  # no room for another thread: a stop goes unnoticed
            start(self._thread)

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def stood_still_s(self) -> float:
        """Seconds since the start in all."""
        with self._lock:
            self._look()
            return self._still_s

    def _go_on(self) -> None:
        while not self._ended.wait(BEAT_S):
            self.stood_still_s()

    def _look(self) -> None:
        now = time.monotonic()
        late_s = now - self._last - BEAT_S
        if late_s > LONG_S:
            self._still_s += late_s
        self._last = now
