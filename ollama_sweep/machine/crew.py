"""Threads for what is asked at once, each for one question. What came of it is taken in the thread that asked.

And none where they only wait for one another: numpy computes our small sums with one thread. Its own, one for each
core, spin while they wait, and where others measure that takes twenty times the processor.
"""

from __future__ import annotations

import math
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

from ollama_sweep.core.errors import CellFailed
from ollama_sweep.core.outcome import Status

T = TypeVar("T")
LOOK_S = 0.2
"""So often a wait comes back to Python, where an exception from another thread gets in."""
END_S = 5.0
AGAIN_S = 0.05
births = threading.Lock()
"""Held while a thread begins: until it runs Python takes it for the one that made it, and an exception that is sent to
that one would end it unborn, with its maker waiting for it for ever."""


ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Read by numpy's libraries when they are loaded, and by those of whoever inherits it."""


def compute_with_one_thread() -> None:
    """For good, and before numpy is imported: in a process that starts no other one."""
    os.environ.update({**ONE_THREAD, **os.environ})


def import_numpy_with_one_thread() -> None:
    """Does nothing where it is imported already. Children inherit nothing of it: what they compute may be measured."""
    if "numpy" in sys.modules:
        return
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update({name: value for name, value in ONE_THREAD.items() if before[name] is None})
    try:
        import numpy as np  # noqa: F401 - it is loaded now, not used
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]


def start(thread: threading.Thread) -> None:
    """Let a thread begin, and no exception from another thread in between."""
    with births:
        thread.start()


class Crew(Generic[T]):
    """A block in which jobs run in threads; at its end none of them waits for anything any more.

    `cut_short` ends the requests that they wait for. `over` is set then, and tells a job to begin nothing new.
    """

    def __init__(self, cut_short: Callable[[], None], over: threading.Event) -> None:
        self._cut_short, self._over = cut_short, over
        self._ended: queue.SimpleQueue[tuple[threading.Thread, int, T | BaseException]] = queue.SimpleQueue()
        self._threads: set[threading.Thread] = set()

    @property
    def in_flight(self) -> int:
        """Jobs that were begun and not taken back by `next`."""
        return len(self._threads)

    def begin(self, number: int, job: Callable[[], T]) -> None:
        """Begin a job. Raises CellFailed where the computer gives no thread for it."""
        thread = threading.Thread(target=lambda: self._do(thread, number, job), name=f"question {number}", daemon=True)
        try:
            start(thread)
        except RuntimeError as error:
            text = f"no thread for another question beside the {self.in_flight} in flight: {error}"
            raise CellFailed(Status.RESOURCE, "host_resource", text) from None
        self._threads.add(thread)

    def _do(self, thread: threading.Thread, number: int, job: Callable[[], T]) -> None:
        try:
            result: T | BaseException = job()
        except BaseException as error:
            result = error
        self._ended.put((thread, number, result))

    def next(self, until: float = math.inf) -> tuple[int, T]:
        """Wait for the next job that ends: its number and its result. Raises what it raised.

        Raises TimeoutError where none has ended by `until`, a time of the monotonic clock.
        """
        while True:
            try:
                thread, number, result = self._ended.get(timeout=LOOK_S)
                break
            except queue.Empty:
                if time.monotonic() > until:
                    raise TimeoutError from None
        self._threads.discard(thread)
        if isinstance(result, BaseException):
            raise result
        return number, result

    def __enter__(self) -> Crew[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        until = time.monotonic() + END_S
        while (alive := [thread for thread in self._threads if thread.is_alive()]) and time.monotonic() < until:
            self._cut_short()  # again: one of them may just have begun another request
            alive[0].join(AGAIN_S)
