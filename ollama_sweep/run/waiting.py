"""Waiting for what may come back: an engine that is away, space on a disk. A signal ends every wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ollama_sweep.core.errors import EngineMissing, EngineUnavailable, Stopped
from ollama_sweep.core.events import Event, Waiting
from ollama_sweep.machine.clocks import REAL, Clock
from ollama_sweep.run.stopping import StopNow, Stopping

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
POLL_S = 0.2
"""So often a wait looks whether somebody asks to stop."""

Emit = Callable[[Event], None]
T = TypeVar("T")


def wait_for(
    ask: Callable[[], T],
    stopping: Stopping,
    emit: Emit,
    longest_s: float,
    error: EngineUnavailable | None = None,
    first_wait_s: float | None = None,
    clock: Clock = REAL,
) -> T:
    """The answer of an engine that may be away for a while: asked again with growing pauses.

    `error` is a refusal just seen, so that the first question waits too. Raises the last EngineUnavailable when the
    engine stays away, at once where waiting cannot help (EngineMissing), and Stopped.
    """
    wait_s, until = first_wait_s or FIRST_WAIT_S, clock.monotonic_s() + longest_s
    while True:
        if error is not None:
            left_s = until - clock.monotonic_s()
            if isinstance(error, EngineMissing) or left_s <= 0:
                raise error
            emit(Waiting(str(error), min(wait_s, left_s)))
            pause(min(wait_s, left_s), stopping, clock)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        try:
            with stopping.interruptible():
                return ask()
        except StopNow:
            raise stopped(stopping) from None
        except EngineUnavailable as again:
            error = again


def pause(seconds: float, stopping: Stopping, clock: Clock = REAL) -> None:
    """Let time pass. Raises Stopped as soon as a signal asks for it."""
    until = clock.monotonic_s() + seconds
    while (left_s := until - clock.monotonic_s()) > 0:
        if stopping.requested:
            raise stopped(stopping)
        clock.sleep(min(POLL_S, left_s) if clock.is_real else left_s)


def stopped(stopping: Stopping) -> Stopped:
    """What to raise once the person has asked to stop."""
    return Stopped("stopped; everything measured is saved", stopping.signal_number or 2)
