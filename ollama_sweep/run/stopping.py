"""Ctrl-C and SIGTERM: the first finishes the cell, the second stops now. A handler only sets a flag.

`stop` and `stop --now` send signals of their own, so that asking twice for the first never becomes the second.
`Stopping.stop` is the same from inside the program, for any thread; it is the only way where a sweep runs beside the
main thread, which alone can take signals.

Work that may be cut short stands inside `interruptible()`; there the second signal raises `StopNow`. A commit never
stands inside it, so no signal can cut one in two.
"""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ollama_sweep.machine.clocks import Heartbeat
from ollama_sweep.machine.crew import births

AFTER_CELL, NOW = signal.SIGUSR1, signal.SIGUSR2
"""What `stop` and `stop --now` send; both end the sweep as SIGTERM does."""


class StopNow(BaseException):
    """The person asked twice: end what is running.

    It comes up anywhere, so no `except Exception` on its way may take it for a failure of what it cuts short.
    """


class Stopping:
    """What was asked so far, by signals or by `stop`. `say` is called once, at the first."""

    def __init__(self, say: Callable[[str], None] = lambda line: None) -> None:
        self._say = say
        self._interruptible = False
        self._thread: int | None = None
        self._is_cut = False
        self._cutting = threading.RLock()
        self.signal_number: int | None = None
        self.now = False
        self.is_urgent = False
        """Nothing of worth is lost by what is cut short, so the first request ends it."""
        self.asked = 0
        self._is_drawing = False
        self.wants_no_pictures = False
        self._continued = 0
        self._heartbeat = Heartbeat()

    @property
    def requested(self) -> bool:
        return self.signal_number is not None

    def stop(self, *, now: bool = False) -> None:
        """End the sweep after the cell at hand, or now. For any thread, also before the sweep begins.

        What waits inside a library is cut short when it comes back to Python.
        """
        with self._cutting:
            first, was_now = not self.requested, self.now
            self._ask(NOW if now else AFTER_CELL)
            if self.now and not was_now and self._interruptible and self._thread is not None:
                self._is_cut = True
                _raise_in(self._thread, StopNow)
        if first:
            self._announce()

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The block is what is stopped, by signals where it runs in the main thread: no other can take them."""
        self._thread, self._heartbeat = threading.get_ident(), Heartbeat()
        before = self._install() if threading.current_thread() is threading.main_thread() else {}
        self._heartbeat.start()
        try:
            yield
        finally:
            self._heartbeat.stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _install(self) -> dict[signal.Signals, Any]:
        """Handlers, also where a shell has set SIGINT to ignore (`sh -c 'run &'`); those that were there before.

        A SIGHUP that is ignored (nohup, --detach) stays ignored.
        """
        numbers = [signal.SIGINT, signal.SIGTERM, AFTER_CELL, NOW]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._handle) for number in numbers}
        before[signal.SIGCONT] = signal.signal(signal.SIGCONT, self._count_continued)
        return before

    def _count_continued(self, number: int, frame: FrameType | None) -> None:
        self._continued += 1

    def stops(self) -> tuple[int, float]:
        """How often this process was continued, and how many seconds it stood still: both grow with a true stop.

        A terminal that is closed sends SIGCONT to processes that nobody has stopped, and a busy machine holds them up.
        Beside the main thread no SIGCONT is seen, so no stop is.
        """
        return self._continued, self._heartbeat.stood_still_s()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first = not self.requested
        self._ask(number)
        if first:
            self._announce()
        self._check()

    def _ask(self, number: int) -> None:
        first = not self.requested
        self.asked += 1
        self.now = self.now or self.is_urgent or number == NOW or (not first and number != AFTER_CELL)
        if first:
            self.signal_number = signal.SIGTERM if number in (AFTER_CELL, NOW) else number

    def _announce(self) -> None:
        if self._is_drawing:
            self._say("Stopping; no picture is drawn any more")
        elif self.is_urgent:
            self._say("Stopping now …; what is loaded already is not loaded again next time")
        elif self.now:
            self._say("Stopping now …; the cell at hand is measured again next time")
        else:
            self._say("Stopping after this cell … (again to stop now; the cell is then measured again)")

    def _check(self) -> None:
        with self._cutting:
            if self.now and self._interruptible and not self._is_cut:
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
            self._take_back()

    @contextmanager
    def while_drawing(self) -> Iterator[Callable[[], bool]]:
        """Pictures are drawn inside, which every further request ends; yields the question whether there was one."""
        before, self._is_drawing = self.asked, True
        try:
            yield lambda: self.asked > before
        finally:
            self._is_drawing = False
            self.wants_no_pictures = self.now and self.asked > before

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """A part of an interruptible block that must not be cut short (a commit)."""
        before, self._interruptible = self._interruptible, False
        self._take_back()
        try:
            yield
        finally:
            self._interruptible = before
        self._check()

    def _take_back(self) -> None:
        """From here on nothing that `stop` has sent may arrive: what has not, is found by the next `_check`."""
        with self._cutting:
            if self._is_cut and self._thread is not None:
                _raise_in(self._thread, None)
            self._is_cut = False


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Let this exception come up in another thread, at its next step in Python; None takes it back."""
    with births:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread), ctypes.py_object(kind) if kind is not None else None
        )
