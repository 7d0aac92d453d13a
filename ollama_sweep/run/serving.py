"""The live page beside a run, a process of its own: it comes with the sweep and ends with the run, whatever ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ollama_sweep.core.events import Event, SweepStarted

if TYPE_CHECKING:
    from ollama_sweep.machine.process import Worker

READY_S = 20.0
"""The longest that a sweep waits for its page, once, before its first cell."""


class LivePage:
    """Listens to a sweep and starts its page by the command `words`; what that prints is said.

    The page is ready, and idle, before the first cell is measured. It ends when its input does, so also with a run that
    is killed. A page that cannot be is a warning: the sweep goes on without.
    """

    def __init__(self, words: Sequence[str], say: Callable[[str], None]) -> None:
        self._words, self._say = words, say
        self._child: Worker | None = None
        self._was_tried = False

    def __call__(self, event: Event) -> None:
        if not isinstance(event, SweepStarted) or self._was_tried:
            return
        self._was_tried = True
        from ollama_sweep.machine import process

        try:
            self._child = process.spawn_worker(self._words)
            line = self._child.receive(READY_S)
        except (OSError, process.DeadlineExceeded) as error:
            self._say(f"Warning: no live page: {error or 'it did not begin in time'}")
            self.close()
            return
        if line:
            self._say(f"Page: {line}")
            return
        self._child.wait(1.0)
        said = next(iter(reversed(self._child.stderr_text().strip().splitlines())), "it ended at once")
        self._say(f"Warning: no live page: {said.removeprefix('error: ')}")
        self.close()

    def close(self) -> None:
        """The run ends."""
        if self._child is not None:
            self._child.end()
            self._child = None
