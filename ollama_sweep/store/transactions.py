"""The one connection that writes: explicit transactions, and what happens when the disk or a stranger is in the way."""

from __future__ import annotations

import contextlib
import ctypes
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from ollama_sweep.core.errors import StorageError
from ollama_sweep.core.units import format_bytes
from ollama_sweep.store import file as files
from ollama_sweep.store.log import Log
from ollama_sweep.store.values import Unreadable

_BUSY_PAUSE_S = 0.05
Result = TypeVar("Result")
P = ParamSpec("P")


class CommitFailed(StorageError):
    """A COMMIT that failed: whether it was stored is only known after opening the database again and looking.

    What is then seen may be in memory only: after an error of the disk the system never writes it by itself, and the
    next sync says that all is well. So the log is written and synced again before anything in it is believed.
    """


@dataclass(frozen=True)
class Guarding:
    """How a connection behaves. `patience_s` is how long a stranger's write is waited for.

    `max_pages` is a ceiling for the file's size; `factory` the class of connections (tests break disks with both).
    """

    say: Callable[[str], None] = lambda line: None
    patience_s: float = 600.0
    max_pages: int | None = None
    factory: type[sqlite3.Connection] = sqlite3.Connection


class Guard:
    """Owns the read-write connection and its transactions."""

    def __init__(self, path: Path, settings: Guarding) -> None:
        self._path = path
        self._settings = settings
        self._connection = self._connect()
        self._identity = files.identity(path)
        self._doubtful = False
        self._unsynced = files.wal_size(path) > 0  # the process before this one may have ended with a disk error
        self._safe_cells: int | None = None
        self._warned_of_log = False
        self._is_together = self._is_log_to_shorten = False
        self._log = Log(path)
        self.is_in_a_hurry: Callable[[], bool] = lambda: False
        """The person does not want to wait for a stranger's write any longer."""
        try:
            self._make_log_sure(self._connection)
        except BaseException:
            self.close()
            raise

    def read(
        self, action: Callable[Concatenate[sqlite3.Connection, P], Result], *values: P.args, **named: P.kwargs
    ) -> Result:
        """Read between transactions: what `action` finds. Storage trouble is raised as StorageError."""
        connection = self._sound_connection()
        try:
            return action(connection, *values, **named)
        except Unreadable as error:
            raise StorageError(files.damaged_words(self._path, error)) from error
        except sqlite3.Error as error:
            raise self._failed(error, StorageError) from error

    def _sound_connection(self) -> sqlite3.Connection:
        """The connection; opened again first where the last error left it in doubt."""
        if self._doubtful:
            self._reopen()
        return self._connection

    def write(self, action: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run an action in a transaction of its own; after a COMMIT that failed, open again and run it once more.

        So an action looks before it stores: doing it twice must be as good as once.
        """
        try:
            with self.transaction() as connection:
                return action(connection)
        except CommitFailed:
            with self.transaction() as connection:
                return action(connection)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """BEGIN IMMEDIATE … COMMIT; rolled back on any exception. Storage trouble is raised as StorageError."""
        self._check_log()
        connection = self._sound_connection()
        self._make_log_sure(connection)
        self._begin(connection)
        try:
            yield connection
            self._check_same_file()
        except sqlite3.Error as error:
            raise self._failed(error, StorageError) from error
        except BaseException:
            self._roll_back()
            raise
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            failure = self._failed(error, CommitFailed)
            self._unsynced = True
            raise failure from error
        self._check_log()

    def shorten_log(self) -> None:
        """Copy what was committed into the database, as far as no reader is in the way: a lost log then costs little.

        Never a log in doubt. Where the disk refuses, the log is in doubt from then on.
        """
        self._is_log_to_shorten = self._is_together
        if self._unsynced or self._doubtful or self._is_together:
            return
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            self._unsynced = files.primary_code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is committed here, within a moment, is copied once, at the end; each commit is as safe as ever."""
        self._is_together = True
        try:
            yield
        finally:
            self._is_together = False
            if self._is_log_to_shorten:
                self.shorten_log()

    def _check_log(self) -> None:
        """Where the log was taken away it is still there for this connection, and goes into the database at once."""
        self._check_same_file()
        if not self._log.is_lost():
            return
        if self._log.is_replaced() or self._unsynced or self._doubtful:
            raise self._log.give_up(self._connection)
        if not self._log_is_in_database():
            raise self._log.give_up(self._connection)
        self._connect_anew()
        self._settings.say(f"{self._log.name} was removed while the sweep ran; what was in it is in the database now")

    def _log_is_in_database(self) -> bool:
        """Copy all of the log and end it, which waits for readers; false where that cannot be done."""
        deadline, warned = time.monotonic() + self._settings.patience_s, False
        while True:
            try:
                ((is_busy, _, _),) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.Error as error:
                is_busy = files.primary_code(error) == sqlite3.SQLITE_BUSY
                if not is_busy:
                    return False
            if not is_busy or time.monotonic() >= deadline or self.is_in_a_hurry():
                return not is_busy
            if not warned:
                warned = True
                self._settings.say(f"{self._log.name} was removed; waiting for a program that reads {self._path}")
            time.sleep(_BUSY_PAUSE_S)

    def warn_of_long_log(self) -> None:
        """Say once that a reader keeps the write-ahead log from being emptied."""
        size = self._log.size()
        if size > files.JOURNAL_LIMIT_BYTES and not self._warned_of_log:
            self._warned_of_log = True
            log = files.wal_path(self._path).name
            self._settings.say(f"{log} has grown to {format_bytes(size)}: another program keeps reading the database")

    def empty_log(self) -> None:
        """After a very large transaction; where a reader is in the way it happens later by itself."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _make_log_sure(self, connection: sqlite3.Connection) -> None:
        """A log in doubt is written again, byte by byte as it is: no reader is disturbed, nobody writes meanwhile."""
        if not self._unsynced:
            return
        self._begin(connection)
        try:
            files.write_again(files.wal_path(self._path))
        except OSError as error:
            raise files.storage_error(error, self._path, self._safe_cells) from error
        finally:
            self._roll_back()
        self._unsynced = False

    def close(self) -> None:
        """Where the log stays in doubt the connection stays open: closing it would copy the log into the database."""
        try:
            self._make_log_sure(self._connection)
            if self.has_same_file:
                self._check_log()
        except (StorageError, sqlite3.Error):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
        else:
            self._close_connection()

    def _close_connection(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = files.connect_rw(self._path, self._settings.factory)
        if self._settings.max_pages is not None:
            connection.execute(f"PRAGMA max_page_count = {self._settings.max_pages}").fetchall()
        return connection

    def _reopen(self) -> None:
        self._check_log()
        self._connect_anew()
        self._check_same_file()
        self._doubtful = False

    def _connect_anew(self) -> None:
        self._close_connection()
        self._log = Log(self._path)  # the last one to close has removed it
        self._connection = self._connect()

    def _begin(self, connection: sqlite3.Connection) -> None:
        self._check_same_file()
        deadline = time.monotonic() + self._settings.patience_s
        warned = False
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                is_over = time.monotonic() >= deadline or self.is_in_a_hurry()
                if files.primary_code(error) != sqlite3.SQLITE_BUSY or is_over:
                    raise self._failed(error, StorageError) from error
            else:
                self._log.note()
                return
            if not warned:
                warned = True
                self._settings.say(f"waiting for the database: another program is writing to {self._path}")
            time.sleep(_BUSY_PAUSE_S)

    @property
    def has_same_file(self) -> bool:
        """The file at the path is still the one that was opened."""
        return files.identity(self._path) == self._identity

    def _check_same_file(self) -> None:
        if not self.has_same_file:
            raise StorageError(f"{self._path} was deleted or replaced while the sweep ran. Nothing was written to it")

    def _failed(self, error: sqlite3.Error, kind: type[StorageError]) -> Exception:
        """Roll back; the exception to raise: storage trouble as `kind`, anything else (a bug) as it is."""
        self._roll_back()
        if not files.is_storage(error):
            return error
        self._doubtful = True
        if not self._unsynced:  # else what can be read now may be in memory only
            self._safe_cells = self._finished_cells()
        found = files.storage_error(error, self._path, self._safe_cells)
        return kind(str(found), no_space=isinstance(found, StorageError) and found.no_space)

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _finished_cells(self) -> int | None:
        """How many cells are measured and stored; None where even that cannot be read any more."""
        sql = "SELECT count(*) FROM cells WHERE status NOT IN ('pending', 'started', 'skipped')"
        try:
            (count,) = self._connection.execute(sql).fetchone()
        except sqlite3.Error:
            return None
        return int(count)
