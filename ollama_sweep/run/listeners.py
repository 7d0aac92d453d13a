"""Who listens to a sweep: a group that passes events on, and the note that says what the sweep waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ollama_sweep.core.errors import SweepError
from ollama_sweep.core.events import CellStarted, Drawing, Drawn, Event, FurtherStarted, GoingOn, OnHold, Waiting
from ollama_sweep.run.stopping import StopNow

Listener = Callable[[Event], None]


class Listeners:
    """Passes each event on to everybody, in their order."""

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self._listeners = list(listeners)

    def add(self, listener: Listener) -> None:
        """From now on it hears everything, after all others."""
        self._listeners.append(listener)

    def __call__(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)


def guarded(listener: Listener) -> Listener:
    """A listener of somebody else: what goes wrong in it ends the sweep as an error, and never becomes a cell's."""

    def listen(event: Event) -> None:
        try:
            listener(event)
        except (SweepError, StopNow):
            raise
        except Exception as error:
            text = f"a listener failed at {type(event).__name__} ({type(error).__name__}: {error})"
            raise SweepError(f"{text}; everything measured is saved") from error

    return listen


DRAWING = "drawing the pictures"
"""What the note says then; `stop` reads it as well."""


class WaitingNote:
    """Writes beside the lock what the run waits for, for `status` in another terminal; `note` is the store's."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._is_waiting = False

    def __call__(self, event: Event) -> None:
        if isinstance(event, OnHold | Waiting):
            self._note(f"on hold: {event.reason}" if isinstance(event, OnHold) else f"waiting: {event.reason}")
            self._is_waiting = True
        elif isinstance(event, Drawing):
            self._note(DRAWING)
            self._is_waiting = True
        elif self._is_waiting and isinstance(event, CellStarted | FurtherStarted | GoingOn | Drawn):
            self._note("")
            self._is_waiting = False
