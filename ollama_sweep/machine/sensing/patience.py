"""Ask something that may never answer, and go on without it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from ollama_sweep.machine.crew import start

T = TypeVar("T")


class Hangs(TimeoutError):
    """There was no answer in time; the thread that waits for it is left behind."""


def answer(ask: Callable[[], T], timeout_s: float) -> T:
    """What `ask` gives, in a thread of its own. Raises Hangs, and whatever `ask` raises."""
    said: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue()

    def run() -> None:
        try:
            said.put((ask(), None))
        except BaseException as error:  # it is raised where the answer is waited for
            said.put((None, error))

    start(threading.Thread(target=run, name="patience", daemon=True))
    try:
        found, error = said.get(timeout=timeout_s)
    except queue.Empty:
        raise Hangs(f"no answer within {timeout_s:g} s") from None
    if error is not None:
        raise error
    return found  # type: ignore[return-value]  # there is an answer where there is no error
