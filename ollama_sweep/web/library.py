"""Reads the database for the page: each answer out of one short transaction that is over before the first byte of it is
sent, so a client that never reads holds nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio

from ollama_sweep.core.errors import ConfigError, StorageError
from ollama_sweep.results.large.kept import Sheets
from ollama_sweep.store.beside import pause_path
from ollama_sweep.store.file import wal_path
from ollama_sweep.store.lock import lock_path
from ollama_sweep.store.reader import Reader

if TYPE_CHECKING:
    from ollama_sweep.core.options import Scalar
    from ollama_sweep.results.explain import Explained
    from ollama_sweep.results.page.gathering import Gathered
    from ollama_sweep.results.page.view import Repeat
    from ollama_sweep.results.status import PairStatus, SweepStatus
    from ollama_sweep.store.log import Following
    from ollama_sweep.store.rows import PlannedCell, SweepRow

T = TypeVar("T")
AT_ONCE = 2
"""Reads at a time, however many pages ask: each holds its sweep in memory."""


@dataclass(frozen=True)
class Told:
    """What other commands say and a page as well: `status` and `explain` in lines, how something is measured again."""

    status: Callable[[SweepStatus | PairStatus], Sequence[str]]
    repeats: Callable[[Reader, SweepRow, Gathered], Sequence[Repeat]]
    commands: Callable[[SweepRow, PlannedCell, Mapping[str, Scalar]], Sequence[str]]
    explained: Callable[[Explained], Sequence[str]]


@dataclass(frozen=True)
class Library:
    """A database and what is said of it."""

    db: Path
    told: Told
    sheets: Sheets = field(default_factory=Sheets)
    """Sweeps of very many cells, as they were read last."""
    _limit: list[anyio.CapacityLimiter] = field(default_factory=list)

    async def read(self, work: Callable[[Reader], T]) -> T:
        """What `work` makes of the database, all of one moment, in a thread. Raises what `work` does, StorageError and
        DatabaseInUse.
        """
        return await self.aside(lambda: self.read_now(work))

    async def aside(self, work: Callable[[], T]) -> T:
        """The same for work that reads by itself."""
        if not self._limit:
            self._limit.append(anyio.CapacityLimiter(AT_ONCE))
        return await anyio.to_thread.run_sync(work, limiter=self._limit[0])

    def state(self) -> tuple[object, ...]:
        """Differs whenever something was written to the database: what was made of it before may be of no use then."""
        found: list[object] = []
        for file in (self.db, wal_path(self.db), lock_path(self.db), pause_path(self.db)):
            try:
                stat = file.stat()
                found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
            except OSError:
                found.append(None)
        return tuple(found)

    def read_now(self, work: Callable[[Reader], T]) -> T:
        """The same in this thread."""
        with _whose_fault():
            opened = Reader.open(self.db)
        with opened as reader, reader.snapshot():
            return work(reader)

    def read_on(self, followed: Following, work: Callable[[Reader], T]) -> T:
        """The same on a connection that is kept open, which is quicker; after a fault it is opened anew."""
        try:
            with _whose_fault():
                reader = Reader.following(followed)
            with reader.snapshot():
                return work(reader)
        except BaseException:
            followed.close()
            raise


@contextlib.contextmanager
def _whose_fault() -> Iterator[None]:
    """A file that is empty, gone or newer now is no mistake of who asks."""
    try:
        yield
    except ConfigError as error:
        raise StorageError(str(error)) from error
