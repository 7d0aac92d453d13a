"""Ctrl-C and SIGTERM: the first finishes the cell, the second stops now. A handler only sets a flag.

`stop` and `stop --now` send signals of their own, so that asking twice for the first never becomes the second.

Work that may be cut short stands inside `interruptible()`; there the second signal raises `StopNow`. A commit never
stands inside it, so no signal can cut one in two.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ollama_sweep.machine.clocks import Heartbeat

AFTER_CELL, NOW = signal.SIGUSR1, signal.SIGUSR2
"""What `stop` and `stop --now` send; both end the sweep as SIGTERM does."""


class StopNow(Exception):
    """The person asked twice: end what is running."""


class Stopping:
    """What was asked by signals so far. `say` is called once, at the first."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._interruptible = False
        self.signal_number: int | None = None
        self.now = False
        self._continued = 0
        self._heartbeat = Heartbeat()

    @property
    def requested(self) -> bool:
        return self.signal_number is not None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handlers while the block runs, also where a shell has set SIGINT to ignore (`sh -c 'run &'`).

        A SIGHUP that is ignored (nohup, --detach) stays ignored.
        """
        numbers = [signal.SIGINT, signal.SIGTERM, AFTER_CELL, NOW]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._handle) for number in numbers}
        before[signal.SIGCONT] = signal.signal(signal.SIGCONT, self._count_continued)
        self._heartbeat.start()
        try:
            yield
        finally:
            self._heartbeat.stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _count_continued(self, number: int, frame: FrameType | None) -> None:
        self._continued += 1

    def stops(self) -> tuple[int, float]:
        """How often this process was continued, and how many seconds it stood still: both grow with a true stop.

        A terminal that is closed sends SIGCONT to processes that nobody has stopped, and a busy machine holds them up.
        """
        return self._continued, self._heartbeat.stood_still_s()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first = not self.requested
        self.now = self.now or number == NOW or (not first and number != AFTER_CELL)
        if first:
            self.signal_number = signal.SIGTERM if number in (AFTER_CELL, NOW) else number
            if self.now:
                self._say("Stopping now …; the cell at hand is measured again next time")
            else:
                self._say("Stopping after this cell … (again to stop now; the cell is then measured again)")
        self._check()

    def _check(self) -> None:
        if self.now and self._interruptible:
            raise StopNow

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A block that the second signal may cut short. Raises StopNow."""
        self._interruptible = True
        try:
            self._check()
            yield
        finally:
            self._interruptible = False

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """A part of an interruptible block that must not be cut short (a commit)."""
        before, self._interruptible = self._interruptible, False
        try:
            yield
        finally:
            self._interruptible = before
        self._check()
