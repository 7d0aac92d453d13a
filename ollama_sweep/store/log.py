"""The write-ahead log as a file with a name, which somebody may take away while it is written to.

SQLite goes on in the file it has open, whatever lies at the name, so what is committed then is gone with the process.
This is noticed by `stat` alone: opening the database or its `-shm` a second time would drop SQLite's locks.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

from ollama_sweep.core.errors import StorageError
from ollama_sweep.store import file as files


class Log:
    """The log of one connection. It is known from the first transaction on."""

    def __init__(self, path: Path) -> None:
        self._database = path
        self._path = files.wal_path(path)
        self._identity: tuple[int, int] | None = None
        self._error: str | None = None

    @property
    def name(self) -> str:
        """`sweeps.db-wal`."""
        return self._path.name

    def note(self) -> None:
        """Remember which file it is, once."""
        if self._identity is None:
            self._identity = files.identity(self._path)

    def is_lost(self) -> bool:
        """At its name lies another file, or none."""
        return self._identity is not None and files.identity(self._path) != self._identity

    def is_replaced(self) -> bool:
        """What lies there instead holds something. (A reader makes an empty one where it finds none.)"""
        return self._path.is_symlink() or self._path.is_dir() or files.wal_size(self._database) > 0

    def give_up(self, connection: sqlite3.Connection) -> StorageError:
        """What to raise where the log cannot go into the database: all that the connection sees was copied, once."""
        if self._error is None:
            what = f"{self.name} was {'replaced' if self.is_replaced() else 'removed'} while the sweep ran"
            copy = self._database.with_name(f"{self._database.name}.saved-{time.strftime('%Y%m%d-%H%M%S')}.db")
            try:
                files.create_private(copy)
                with contextlib.closing(sqlite3.connect(copy)) as target:
                    connection.backup(target)
            except (sqlite3.Error, StorageError) as error:
                copy.unlink(missing_ok=True)
                self._error = f"{what}, and what was in it could not be saved ({error})"
            else:
                self._error = (
                    f"{what}. All that was measured was saved to {copy}. Go on with: ollama-sweep run --db {copy}"
                )
        return StorageError(self._error)
