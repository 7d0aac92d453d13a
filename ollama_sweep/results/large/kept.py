"""The sheets that a program keeps while it runs, so that a second look at a sweep of very many cells costs little."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ollama_sweep.results.large.sheet import Sheet
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import SweepRow

MOST_KEPT = 2
"""Each takes some 50 MB for a million cells."""

Key = tuple[object, ...]


class Sheets:
    """Those of one database. A sheet is used by one thread at a time."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, Sheet] = OrderedDict()
        self._lock = threading.RLock()
        self._over = threading.Event()

    def end(self) -> None:
        """The program ends: a sheet that is read now is given up, with StorageError, and none is begun."""
        self._over.set()

    @contextlib.contextmanager
    def of(self, reader: Reader, row: SweepRow) -> Iterator[Sheet]:
        """That of a sweep as the reader's snapshot has it, for as long as the block lasts."""
        with self._lock:
            yield self._up_to_date(reader, row)

    def _up_to_date(self, reader: Reader, row: SweepRow) -> Sheet:
        from ollama_sweep.results.large import sheet as sheets

        key = _key(reader, row)
        found = self._kept.pop(key, None)
        if found is not None:
            found.row = found.columns.row = row
            if found.update(reader) is None:
                found = None
        if found is None:
            for old in [one for one in self._kept if one[1] == row.sweep_id]:
                del self._kept[old]
            while len(self._kept) >= MOST_KEPT:
                self._kept.popitem(last=False)
            found = sheets.read(reader, row, self._over.is_set)
        self._kept[key] = found
        return found


def _key(reader: Reader, row: SweepRow) -> Key:
    """Another file, another plan or another run has a sheet of its own; so has what was found of the lanes since."""
    number = None
    with contextlib.suppress(OSError):
        number = reader.path.stat().st_ino
    return number, row.sweep_id, row.created_at, row.plan_fingerprint, row.last_run_at, reader.last_disturbance()
