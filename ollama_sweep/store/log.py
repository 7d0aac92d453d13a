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

    def size(self) -> int:
        """How many bytes lie at its name."""
        return files.size_of(self._path)

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
    A reader may read on it (`Reader.following`). One thread uses it at a time, and whoever made it closes it; `version`
    opens it again by itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._of: object = None
        self._beside: tuple[str, ...] = ()
        self._lock = self._wal = ""
        self._opened, self._seen, self._schema = 0, -1, -1

    def version(self) -> tuple[object, ...]:
        """Differs from the last one where a commit came between them, the file was replaced, or what its writer waits
        for, a pause or the log of a run has changed. Raises nothing: a database that is gone has a version, too.
        """
        found = self._files()
        if self._connection is None or found != self._of:
            found = self._open()
        version = self._data_version()
        writer = lock.holder_of(self._lock) is not None
        return (
            found[0] is not None,
            self._opened if self._connection else 0,
            version,
            *map(_stamp, self._beside),
            writer,
        )

    def connection(self) -> sqlite3.Connection | None:
        """The one that is kept open; None where the database cannot be read."""
        self.version()
        return self._connection

    def _open(self) -> tuple[object, object]:
        """Where the database lies, by whatever name, is looked up here and not at each look."""
        self.close()
        self._opened += 1
        self._lock, self._wal = str(lock.lock_path(self.path)), str(files.wal_path(self.path))
        self._beside = (self._lock, str(pause_path(self.path)), str(log_path(self.path)))
        with contextlib.suppress(SweepError, OSError, sqlite3.Error):
            self._connection = files.connect_ro(self.path, any_thread=True)
        self._seen = self._schema = -1
        self._of = self._files()  # a reader may have made the log
        return self._of

    def _files(self) -> tuple[object, object]:
        return files.identity(self.path), files.identity(self._wal)

    def _data_version(self) -> int:
        """Read anew where a writer has brought the database up to date: an older one is read in another way."""
        if self._connection is None:
            return -1
        try:
            version = int(self._connection.execute("PRAGMA data_version").fetchall()[0][0])
            if version != self._seen:
                schema = int(self._connection.execute("PRAGMA user_version").fetchall()[0][0])
                if self._schema not in (-1, schema):
                    self._open()
                    return self._data_version()
                self._seen, self._schema = version, schema
        except sqlite3.Error:
            self.close()
            return -1
        return version

    def close(self) -> None:
        """The connection ends; nothing that it made stays beside the database."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            with lock.kept_free(self.path) as is_free:
                if is_free:
                    files.remove_empty_log(self.path)


def _stamp(file: str) -> tuple[int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


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
