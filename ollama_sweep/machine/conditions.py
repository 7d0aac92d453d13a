"""When a sweep may run: quiet hours, mains power, an idle GPU. Decisions are pure; clocks and probes are given in.

Before each cell it is asked once more. A cell that has begun is finished; nothing is ever cut short by a condition.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

DAY_MINUTES = 24 * 60
WEEK_MINUTES = 7 * DAY_MINUTES
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
AGAIN_S = 20.0
BUSY_SHARE = 0.1
"""A GPU that computes for less than this share of the time counts as idle."""
BETWEEN_SAMPLES_S = 0.7
"""Long enough for what the sweep itself has just done to fade from the driver's figure."""
DRM_FOLDER = Path("/sys/class/drm")
_WINDOW = re.compile(r"(?:([a-z]{3})(?:[-–]([a-z]{3}))? )?(\d\d?:\d\d) ?[-–] ?(\d\d?:\d\d)")


@dataclass(frozen=True)
class Wait:
    """Nothing may start now: why, until when (local time; None is unknown), and when to ask again.

    `is_for_others`: it ends by what somebody else does, so the time that has to pass is real.
    """

    reason: str
    until: datetime | None = None
    again_s: float = AGAIN_S
    is_for_others: bool = False


@dataclass(frozen=True)
class QuietHours:
    """Times of the week in which nothing starts: (begin, end) in minutes after Monday 00:00, sorted and apart."""

    spans: tuple[tuple[int, int], ...] = ()
    text: str = ""

    def until(self, now: datetime) -> datetime | None:
        """When the quiet time that holds now ends; None where none does."""
        minute = now.weekday() * DAY_MINUTES + now.hour * 60 + now.minute
        for begin, end in self.spans:
            if begin <= minute < end:
                wraps = end == WEEK_MINUTES and self.spans[0][0] == 0
                left = end - minute + (self.spans[0][1] if wraps else 0)
                return now.replace(second=0, microsecond=0) + timedelta(minutes=left)
        return None


@dataclass(frozen=True)
class Conditions:
    """What a sweep waits for before each cell."""

    quiet: QuietHours = QuietHours()
    only_on_ac: bool = False
    wait_for_idle_gpu: bool = False


def parse_quiet_hours(text: str) -> QuietHours:
    """`09:00-18:00`, over midnight `22:00-07:00`, on days `mon-fri 09:00-18:00`; several with commas.

    Raises ValueError with a message for the person.
    """
    minutes: set[int] = set()
    for part in text.lower().split(","):
        minutes |= _minutes(" ".join(part.split()))
    if len(minutes) == WEEK_MINUTES:
        raise ValueError(f'"{text}" covers the whole week, so nothing would ever run')
    edges = sorted(minute for minute in minutes if minute - 1 not in minutes)
    spans = tuple((begin, _end(minutes, begin)) for begin in edges)
    return QuietHours(spans, " ".join(text.split()))


def _end(minutes: set[int], begin: int) -> int:
    while begin in minutes:
        begin += 1
    return begin


def _minutes(part: str) -> set[int]:
    """The minutes of the week in one window; a window over midnight belongs to the day on which it begins."""
    found = _WINDOW.fullmatch(part)
    if not found:
        raise ValueError(f'"{part}" is not a time like 09:00-18:00, 22:00-07:00 or mon-fri 09:00-18:00')
    first, last, begin, end = found.groups()
    begins, ends = _minute(begin), _minute(end)
    if begins % DAY_MINUTES == ends % DAY_MINUTES and ends != DAY_MINUTES:
        raise ValueError(f'"{part}" begins and ends at the same time; for all day write 00:00-24:00')
    length = (ends - begins) % DAY_MINUTES or DAY_MINUTES
    return {
        (day * DAY_MINUTES + begins + minute) % WEEK_MINUTES for day in _days(first, last) for minute in range(length)
    }


def _minute(clock: str) -> int:
    hours, _, minutes = clock.partition(":")
    if int(minutes) > 59 or int(hours) * 60 + int(minutes) > DAY_MINUTES:
        raise ValueError(f'"{clock}" is not a time of day (00:00 to 24:00)')
    return int(hours) * 60 + int(minutes)


def _days(first: str | None, last: str | None) -> Sequence[int]:
    for name in (first, last):
        if name is not None and name not in DAYS:
            raise ValueError(f'"{name}" is not a day; days are {", ".join(DAYS)}')
    if first is None:
        return range(7)
    begin = DAYS.index(first)
    end = DAYS.index(last) if last else begin
    return [day % 7 for day in range(begin, end + 1 if end >= begin else end + 8)]


def when_may_i_run(
    now: datetime, conditions: Conditions, on_battery: Callable[[], bool], gpu_is_busy: Callable[[], bool]
) -> Wait | None:
    """Why nothing may start at this local time; None where a cell may. A probe is only asked where it matters."""
    until = conditions.quiet.until(now)
    if until is not None:
        return Wait(f"quiet hours until {clock(until, now)}", until, min(AGAIN_S, (until - now).total_seconds()))
    if conditions.only_on_ac and on_battery():
        return Wait("the machine runs on its battery (only_on_ac)")
    if conditions.wait_for_idle_gpu and gpu_is_busy():
        return Wait("another program uses the GPU (wait_for_idle_gpu)")
    return None


def clock(moment: datetime, now: datetime) -> str:
    """`18:00`, with the day where it is another one: `Mon 09:00`."""
    return f"{moment:%H:%M}" if moment.date() == now.date() else f"{moment:%a %H:%M}"


# -- probes ----------------------------------------------------------------------------------------------------------


def on_battery() -> bool:
    """The machine lives on its battery now; false where it has none."""
    from ollama_sweep.machine import computer

    found = computer.battery()
    return found is not None and found.is_in_use


def gpu_shares(folder: Path = DRM_FOLDER) -> list[float]:
    """How busy each GPU is, 0 to 1: NVIDIA's by nvidia-smi, AMD's by the kernel; empty where none says."""
    from ollama_sweep.machine import computer

    found = [state.busy_share for state in computer.gpu_states() if state.busy_share is not None]
    for file in sorted(folder.glob("card*/device/gpu_busy_percent")):
        with contextlib.suppress(OSError, ValueError):
            found.append(int(file.read_text("ascii")) / 100)
    return found


class IdleGpu:
    """Asks whether another program computes on a GPU. The sweep's own model rests while it is asked."""

    def __init__(
        self, shares: Callable[[], list[float]] = gpu_shares, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._shares = shares
        self._pause = pause
        self.can_tell = True

    def is_busy(self) -> bool:
        """Idle only when two samples in a row are: a training job pauses between its batches.

        Where no GPU answers, `can_tell` becomes false and it is not asked again: nvidia-smi may be gone, or hang.
        """
        quiet = 0
        for number in range(3):
            if number:
                self._pause(BETWEEN_SAMPLES_S)
            shares = self._shares() if self.can_tell else []
            if not shares:
                self.can_tell = False
                return False
            quiet = quiet + 1 if max(shares) < BUSY_SHARE else 0
            if quiet == 2:
                return False
        return True
