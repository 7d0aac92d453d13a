"""Pictures of a sweep while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ollama_sweep.core.errors import SweepError
from ollama_sweep.core.events import CellFinished, Event, SweepStarted
from ollama_sweep.plan.spec import Interim

INTERIM_S = 300.0
"""The longest that a sweep waits for its interim pictures."""


class InterimPictures:
    """Listens to a sweep and has its pictures drawn when they are due, by the command `words`.

    It is a child that is waited for between two cells: nothing is measured meanwhile, and no memory is kept.
    """

    def __init__(self, when: Interim, words: Sequence[str], say: Callable[[str], None]) -> None:
        self._when, self._words, self._say = when, words, say
        self._left = self._cells = 0
        self._drawn_at = time.monotonic()
        self._has_failed = False

    def __call__(self, event: Event) -> None:
        if isinstance(event, SweepStarted):
            self._left, self._drawn_at = event.total - event.done, time.monotonic()
        elif isinstance(event, CellFinished) and not event.will_retry:
            self._left -= 1
            self._cells += 1
            if self._left > 0 and self._is_due():
                self._draw()
                self._cells, self._drawn_at = 0, time.monotonic()

    def _is_due(self) -> bool:
        if self._when.cells is not None:
            return self._cells >= self._when.cells
        return self._when.seconds is not None and time.monotonic() - self._drawn_at >= self._when.seconds

    def _draw(self) -> None:
        from ollama_sweep.machine import process

        try:
            done = process.run(self._words, timeout_s=INTERIM_S)
            said = done.stderr.strip().splitlines()
            failure = "" if done.returncode == 0 else said[-1] if said else f"exit {done.returncode}"
        except (OSError, SweepError) as error:
            failure = str(error)
        if failure and not self._has_failed:
            self._say(f"Warning: no interim pictures: {failure.removeprefix('error: ')}")
        self._has_failed = bool(failure)
