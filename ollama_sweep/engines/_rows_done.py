"""How far an embedding request is, said now and then: slow models need minutes for what others do in a second."""

from __future__ import annotations

import time
from collections.abc import Callable

EVERY_S = 10.0


class RowsDone:
    """One request. A line at most every `EVERY_S` seconds, so none for a quick one, and none at its end."""

    def __init__(self, say: Callable[[str], None], rows: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._rows, self._clock = say, rows, clock
        self._last = clock()

    def __call__(self, done: int) -> None:
        """So many rows are embedded by now."""
        now = self._clock()
        if done < self._rows and now - self._last >= EVERY_S:
            self._last = now
            self._say(f"Embedding: {done} of {self._rows} rows")
