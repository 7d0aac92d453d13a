"""The clock of a run: the real one, or one that goes as fast as it can. Also what notices sleep and standing still.

Whoever asks for the time, or lets time pass, within a run asks its clock. What waits for another process (a database, a
server, a pause that was asked for) waits by the real one.
"""

from __future__ import annotations

import contextlib
import threading
import time
from datetime import UTC, datetime
from typing import Protocol

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


class Clock(Protocol):
    """The time of a run, in seconds."""

    is_real: bool

    def now_s(self) -> float:
        """Seconds since 1970 in UTC: the time of day."""
        ...

    def monotonic_s(self) -> float:
        """Seconds of a clock that nobody sets."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let so much time pass; none where it is below 0."""
        ...

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Let so much time pass, or less where the event comes before; whether it came."""
        ...

    def at_least(self, moment_s: float) -> None:
        """A clock of its own goes on from this time of day where it is earlier; it never goes back."""
        ...

    def suspended_s(self) -> float:
        """Seconds in which nothing could be measured because the computer slept; only differences say something."""
        ...

    def day_ahead_s(self) -> float:
        """How far the time of day is ahead of a clock that nobody sets; it changes where the time of day is set."""
        ...


class RealClock:
    """The time of this computer."""

    is_real = True
    now_s = staticmethod(time.time)
    monotonic_s = staticmethod(time.monotonic)

    def sleep(self, seconds: float) -> None:
        time.sleep(max(0.0, seconds))

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)

    def at_least(self, moment_s: float) -> None:
        """It is what it is."""

    def suspended_s(self) -> float:
        return suspended_s()

    def day_ahead_s(self) -> float:
        return time_of_day_ahead_s()


class FastClock:
    """A clock on which waiting is over at once, for any thread: only what lets time pass makes it go on.

    It knows no sleep of the computer and is never set.
    """

    is_real = False

    def __init__(self, now_s: float = 0.0) -> None:
        self._lock = threading.Lock()
        self._now_s = now_s

    def now_s(self) -> float:
        with self._lock:
            return self._now_s

    def monotonic_s(self) -> float:
        return self.now_s()

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._now_s += max(0.0, seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if not event.is_set():
            self.sleep(seconds)
        return event.is_set()

    def at_least(self, moment_s: float) -> None:
        with self._lock:
            self._now_s = max(self._now_s, moment_s)

    def suspended_s(self) -> float:
        return 0.0

    def day_ahead_s(self) -> float:
        return 0.0


REAL: Clock = RealClock()


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
