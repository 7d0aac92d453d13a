"""The page that is asked for first is made before anybody asks where that takes long: of a sweep of very many cells."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ollama_sweep.core.errors import SweepError
from ollama_sweep.store import lock

if TYPE_CHECKING:
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.web.library import Library

FROM_CELLS = 100_000
"""A sweep of fewer is read quickly enough when it is asked for."""
END_S = 30.0


class Ahead:
    """Once, when the server is ready, and never beside a sweep that runs: nobody may ever look."""

    def __init__(self, library: Library, make: Callable[[], object]) -> None:
        self._library, self._make = library, make
        self._thread = threading.Thread(target=self._work, name="ahead", daemon=True)

    @property
    def is_making(self) -> bool:
        """It is under way."""
        return self._thread.is_alive()

    def begin(self) -> None:
        """In a thread of its own, where there can be one."""
        with contextlib.suppress(RuntimeError):
            self._thread.start()

    def wait(self) -> None:
        """Until it has ended, or never begun."""
        if self._thread.is_alive():
            self._thread.join(END_S)

    def _work(self) -> None:
        with contextlib.suppress(SweepError):  # whoever asks is told
            if lock.holder(self._library.db) is None and self._library.read_now(_is_long):
                self._make()


def _is_long(reader: Reader) -> bool:
    row = reader.last_sweep()
    return row is not None and sum(reader.counts(row.sweep_id).values()) >= FROM_CELLS
