"""Pictures of a sweep while it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ollama_sweep.core.errors import SweepError
from ollama_sweep.core.events import CellFinished, Drawing, Drawn, Event, SweepStarted
from ollama_sweep.machine.clocks import REAL, Clock
from ollama_sweep.plan.spec import Interim
from ollama_sweep.run.stopping import Stopping

INTERIM_S = 300.0
"""The longest that a sweep waits for its interim pictures."""


class InterimPictures:
    """Listens to a sweep and has its pictures drawn when they are due, by the command `words`.

    It is a child that is waited for between two cells: nothing is measured meanwhile, and no memory is kept. Whoever
    asks the sweep to stop ends it. `emit` is told when it begins and ends.
    """

    def __init__(
        self,
        when: Interim,
        words: Sequence[str],
        say: Callable[[str], None],
        *,
        stopping: Stopping | None = None,
        emit: Callable[[Event], None] = lambda event: None,
        clock: Clock = REAL,
    ) -> None:
        self._when, self._words, self._say = when, words, say
        self._stopping, self._emit = stopping or Stopping(), emit
        self._clock = clock
        self._left = self._cells = 0
        self._drawn_at = self._clock.monotonic_s()
        self._has_failed = False

    def __call__(self, event: Event) -> None:
        if isinstance(event, SweepStarted):
            self._left, self._drawn_at = event.total - event.done, self._clock.monotonic_s()
        elif isinstance(event, CellFinished) and not event.will_retry:
            self._left -= 1
            self._cells += 1
            if self._left > 0 and self._is_due() and not self._stopping.requested:
                self._draw()
                self._cells, self._drawn_at = 0, self._clock.monotonic_s()

    def _is_due(self) -> bool:
        if self._when.cells is not None:
            return self._cells >= self._when.cells
        return self._when.seconds is not None and self._clock.monotonic_s() - self._drawn_at >= self._when.seconds

    def _draw(self) -> None:
        self._emit(Drawing())
        with self._stopping.while_drawing() as is_stopped:
            failure = self._failure(is_stopped)
        self._emit(Drawn())
        if self._stopping.requested:
            return
        if failure and not self._has_failed:
            self._say(f"Warning: no interim pictures: {failure.removeprefix('error: ')}")
        self._has_failed = bool(failure)

    def _failure(self, is_stopped: Callable[[], bool]) -> str:
        from ollama_sweep.machine import process

        try:
            done = process.run(self._words, timeout_s=INTERIM_S, is_cut=is_stopped)
        except (OSError, SweepError) as error:
            return str(error)
        if done.timed_out:
            return f"not done within {INTERIM_S:.0f} s"
        said = done.stderr.strip().splitlines()
        return "" if done.returncode == 0 else said[-1] if said else f"exit {done.returncode}"
