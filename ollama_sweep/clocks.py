"""Clocks beside `time.monotonic`."""

from __future__ import annotations

import time


def suspended_s() -> float:
    """Seconds this computer has slept: how far a clock that counts sleep is ahead of one that does not.

    Where the system has one such clock only (not Linux), the time of day stands in for it.
    """
    counts_sleep = time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.time()
    return counts_sleep - time.monotonic()
