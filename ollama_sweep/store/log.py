"""The write-ahead log as a file with a name, which somebody may take away while it is written to.

SQLite goes on in the file it has open, whatever lies at the name, so what is committed then is gone with the process.
This is noticed by `stat` alone: opening the database or its `-shm` a second time would drop SQLite's locks.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from ollama_sweep.core.errors import StorageError, SweepError
from ollama_sweep.store import file as files
from ollama_sweep.store import lock
from ollama_sweep.store.beside import log_path, pause_path
from ollama_sweep.store.rows import Holder


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


class Following:
    """Notices that something was written to a database, for a few microseconds a look.

    One connection is kept open for it, which holds nothing between two looks: no transaction, so no log grows for it.
    It belongs to one thread and is closed by whoever made it; `version` opens it again by itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._of: object = None
        self._opened = 0

    def version(self) -> tuple[object, ...]:
        """Differs from the last one where a commit came between them, the file was replaced, or what its writer waits
        for, a pause or the log of a run has changed. Raises nothing: a database that is gone has a version, too.
        """
        if self._connection is None or self._files() != self._of:
            self.close()
            self._opened += 1
            with contextlib.suppress(SweepError, OSError, sqlite3.Error):
                self._connection = files.connect_ro(self.path)
            self._of = self._files()  # a reader may have made the log
        there = files.identity(self.path) is not None
        return (there, self._opened if self._connection else 0, self._data_version(), *self._beside())

    def _files(self) -> tuple[object, object]:
        return files.identity(self.path), files.identity(files.wal_path(self.path))

    def _data_version(self) -> int:
        if self._connection is not None:
            try:
                return int(self._connection.execute("PRAGMA data_version").fetchall()[0][0])
            except sqlite3.Error:
                self.close()
        return -1

    def _beside(self) -> tuple[object, ...]:
        found: list[object] = []
        for file in (lock.lock_path(self.path), pause_path(self.path), log_path(self.path)):
            try:
                stat = file.stat()
                found.append((stat.st_mtime_ns, stat.st_size))
            except OSError:
                found.append(None)
        return (*found, lock.holder(self.path) is not None)

    def close(self) -> None:
        """The connection ends; nothing that it made stays beside the database."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            with lock.kept_free(self.path) as is_free:
                if is_free:
                    files.remove_empty_log(self.path)


def growing(path: Path, writer: Holder | None) -> str | None:
    """That the log is longer than it may get by itself, and who has the database open; None while it is not.

    Each commit goes into the log until a program that reads has ended its transaction, so such a reader costs space and
    no commit.
    """
    size = files.wal_size(path)
    if size <= files.JOURNAL_LIMIT_BYTES:
        return None
    known = ", ".join(_readers(path, writer))
    who = f"{known} {'keeps' if ',' not in known else 'keep'}" if known else "a program keeps"
    return f"{files.wal_path(path).name} has {size} bytes; {who} reading the database"


def _readers(path: Path, writer: Holder | None) -> Iterator[str]:
    """`pid 123 (python)`: those of this user that have it open, but for the one that writes and ourselves."""
    import psutil

    side, passed = {str(file) for file in files.side_files(path)}, {os.getpid(), writer.pid if writer else 0}
    for program in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if program.pid not in passed and side & {os.path.realpath(file.path) for file in program.open_files()}:
                command = next((word for word in ("serve", "watch") if word in program.cmdline()), "")
                yield f"pid {program.pid} ({f'ollama-sweep {command}' if command else program.name()})"
