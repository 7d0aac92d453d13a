"""Open the database: where it lies, whether it is ours, the settings every connection has, and whose fault an error is.

A byte of an open SQLite file must never be read with `open()`: closing any descriptor of the file drops the locks of
every connection in this process. So all that is asked of the file is asked through SQLite or `stat`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ollama_sweep.core.errors import ConfigError, DatabaseInUse, NothingStored, StorageError, SweepError
from ollama_sweep.core.options import Scalar
from ollama_sweep.machine import mounts
from ollama_sweep.machine.files import too_many_files
from ollama_sweep.machine.mounts import file_system as file_system
from ollama_sweep.store import schema, values
from ollama_sweep.store.beside import check_beside, check_database
from ollama_sweep.store.values import is_text_error

BUSY_TIMEOUT_MS = 1000
_CHECKED_BYTES = 64 * 1024 * 1024
_CHECK_S = 1.0
JOURNAL_LIMIT_BYTES = 64 * 1024 * 1024
_ROOM_BYTES = 64 * 1024
_OLDEST_SQLITE = (3, 37, 0)


def check_place(path: Path, allow_network: bool, fs_type: Callable[[Path], str]) -> str:
    """Refuse a folder that is missing, or for a new database one where SQLite may lose data, before anything is made.

    A database that is there already goes on there, with the warning that is given back; "" where all is well.
    """
    check_database(path)
    check_beside(path)
    folder = path.resolve().parent
    if not folder.is_dir():
        raise ConfigError(f"{path}: the folder {folder} does not exist")
    kind = fs_type(folder)
    if allow_network or not (what := mounts.trouble(kind)):
        return ""
    text = f"{path} is on {what} ({kind.lower()}); SQLite can lose data there."
    if size_of(path) or mounts.is_all_there_is(kind):
        return f"{text} A disk of this machine is safe"
    advice = "" if what == mounts.NETWORK else " Give --db a place on a disk of this system, or"
    raise ConfigError(f"{text}{advice} --allow-network-db")


def check_writable(path: Path) -> None:
    """Refuse a file or folder that this user cannot write, before anything is changed."""
    if path.exists() and not os.access(path, os.W_OK):
        raise StorageError(f"{path} cannot be written. Nothing was changed")
    if not os.access(path.resolve().parent, os.W_OK):
        raise StorageError(f"{path} cannot be written: its folder is read-only. Nothing was changed")


def check_ours(path: Path) -> None:
    """Refuse a file that holds something else, before a lock file is laid beside it. Raises DatabaseInUse."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            schema_version(connection, path)
    except sqlite3.DatabaseError as error:
        if primary_code(error) in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise storage_error(error, path) from error


def create_private(path: Path) -> None:
    """Make the empty file, readable by its owner only; SQLite gives `-wal` and `-shm` the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise storage_error(error, path) from error


def connect_rw(path: Path, factory: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
    """A connection for writing to an existing file that is ours or empty; its settings are read back."""
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StorageError(f"SQLite 3.37 or newer is needed; this Python has {sqlite3.sqlite_version}")
    uri = f"{path.resolve().as_uri()}?mode=rw"
    try:
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=1.0, factory=factory)
    except sqlite3.Error as error:
        raise storage_error(error, path) from error
    try:
        schema_version(connection, path)
        _set(connection, "journal_mode", "wal", "wal")
        _set(connection, "synchronous", "FULL", 2)
        _set(connection, "foreign_keys", "ON", 1)
        _set(connection, "busy_timeout", str(BUSY_TIMEOUT_MS), BUSY_TIMEOUT_MS)
        _set(connection, "journal_size_limit", str(JOURNAL_LIMIT_BYTES), JOURNAL_LIMIT_BYTES)
    except sqlite3.Error as error:
        connection.close()
        raise storage_error(error, path) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _set(connection: sqlite3.Connection, name: str, value: str, expected: str | int) -> None:
    connection.execute(f"PRAGMA {name} = {value}").fetchall()
    (found,) = connection.execute(f"PRAGMA {name}").fetchone()
    if found != expected:
        raise StorageError(f"SQLite refused {name} = {value} here (it stays {found}); use another folder for --db")


def connect_ro(path: Path, *, any_thread: bool = False) -> sqlite3.Connection:
    """A connection that can only read, to a database that exists and is ours; an older one is read as it is.

    It belongs to this thread, or to `any_thread`, one at a time.

    A database in WAL mode is read through its `-wal` and `-shm` files; where they are missing a reader makes them. In a
    folder that it cannot write this fails, and then there is no writer either and nothing outside the main file (no
    `-wal`, or an empty one): reading it as `immutable` is right. With a `-wal` that holds data it would not be.
    """
    uri = f"{path.resolve().as_uri()}?mode=ro"
    try:
        return _readable(uri, path, any_thread=any_thread)
    except sqlite3.OperationalError as error:
        if not os.access(path, os.R_OK):
            raise StorageError(f"{path} cannot be read (mode {_mode(path):o})") from error
        if os.access(path.resolve().parent, os.W_OK) or size_of(wal_path(path)) > 0:
            raise storage_error(error, path) from error
    try:
        return _readable(f"{uri}&immutable=1", path, any_thread=any_thread)
    except sqlite3.OperationalError as error:
        raise storage_error(error, path) from error


def _readable(uri: str, path: Path, *, any_thread: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5.0, check_same_thread=not any_thread)
    try:
        version = schema_version(connection, path)
        if version == 0:
            raise NothingStored(f"{path} is empty. Start with: ollama-sweep run CONFIG")
        if version < schema.USER_VERSION:
            schema.read_as_latest(connection)
        connection.execute("PRAGMA query_only = ON")
    except sqlite3.OperationalError:
        connection.close()
        raise
    except sqlite3.Error as error:
        connection.close()
        raise storage_error(error, path) from error
    except BaseException:
        connection.close()
        raise
    return connection


def remove_empty_log(path: Path) -> None:
    """Let SQLite take away a log without anything in it, and its index: what a reader made and cannot remove itself.

    It does so when the last connection ends, and writes the log into the database then; so only an empty one is gone
    about, and only while nobody can begin to write.
    """
    log = wal_path(path)
    if not log.exists() or size_of(log) > 0:
        return
    uri = f"{path.resolve().as_uri()}?mode=rw"
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(uri, uri=True, timeout=0)) as last:
        last.execute("PRAGMA user_version").fetchone()


def schema_version(connection: sqlite3.Connection, path: Path) -> int:
    """The schema's version; 0 for an empty database. Raises DatabaseInUse for one of another program."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' LIMIT 6")]
    if application != schema.APPLICATION_ID and (tables or application != 0):
        shown = ", ".join(tables[:5]) + (", ..." if len(tables) > 5 else "")
        raise DatabaseInUse(f"{path} belongs to another program (tables: {shown or 'none'})")
    if application != schema.APPLICATION_ID:
        return 0
    if version > schema.USER_VERSION:
        raise ConfigError(f"{path} was made by a newer version of this program; update it")
    return int(version)


def look_for_damage(connection: sqlite3.Connection, path: Path) -> None:
    """SQLite's own check before anything is written: whole for a file up to 64 MB, else for a second.

    Raises StorageError.
    """
    (pages,), (page_bytes,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    end = time.monotonic() + _CHECK_S
    if pages * page_bytes > _CHECKED_BYTES:
        connection.set_progress_handler(lambda: time.monotonic() > end, 10_000)
    try:
        found = [str(text) for (text,) in connection.execute("PRAGMA quick_check(1)")]
    except sqlite3.OperationalError as error:
        if primary_code(error) == sqlite3.SQLITE_INTERRUPT:
            return
        raise
    finally:
        connection.set_progress_handler(None, 0)
    if found != ["ok"]:
        raise StorageError(damaged_words(path, "; ".join(found).replace("\n", " ")))


def damaged_words(path: Path, what: object) -> str:
    """A damaged database, and what to do."""
    return (f"{path} is damaged ({what}). Keep a copy of it and of {wal_path(path).name}, "
            f"then save what is readable: ollama-sweep recover --db {path} --to new.db")  # fmt: skip


def storage_error(error: Exception, path: Path, safe_cells: int | None = None) -> SweepError:
    """The one-line form of what SQLite or the system reported; bugs are not turned into it (see `is_storage`)."""
    safe = "" if safe_cells is None else f" {safe_cells} cells are safe."
    primary = primary_code(error)
    if text := _too_many_files(error, primary):
        return StorageError(f"{path}: {text}.{safe}")
    if _no_space(error, primary, path):
        text = f"No space for the database ({path}).{safe} Free space and run: ollama-sweep run"
        return StorageError(text, no_space=True)
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_SHORT_READ and wal_size(path) == 0:
        text = f"{wal_path(path).name} was removed; a sweep that runs puts {path} right with its next cell"
        return StorageError(f"{text}. Look again then")
    if primary == sqlite3.SQLITE_IOERR or (isinstance(error, OSError) and error.errno == errno.EIO):
        return StorageError(f"The disk reported an error while saving ({path}: {error}).{safe} Then: ollama-sweep run")
    if primary == sqlite3.SQLITE_READONLY or isinstance(error, PermissionError):
        return StorageError(f"{path} cannot be written ({error}).{safe}")
    if primary == sqlite3.SQLITE_NOTADB:
        way_out = f". Where it was one: ollama-sweep recover --db {path} --to new.db" if _has_pages(path) else ""
        return StorageError(f"{path} is not a SQLite database, or it is damaged{way_out}")
    if primary == sqlite3.SQLITE_CORRUPT or _is_unreadable(error):
        return StorageError(damaged_words(path, error))
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageError(f"{path} is locked by another program.{safe}")
    return StorageError(f"{path} cannot be opened or used ({error}).{safe}")


def _has_pages(path: Path) -> bool:
    """As large as a database of ours may be."""
    return size_of(path) > 0 and size_of(path) % 4096 == 0


def is_storage(error: sqlite3.Error) -> bool:
    """The surroundings failed, as opposed to a bug (a broken constraint, wrong SQL)."""
    return primary_code(error) in _STORAGE_CODES or _is_unreadable(error)


def _is_unreadable(error: Exception) -> bool:
    """A value of the file is nonsense, which Python or SQLite's functions have met."""
    return isinstance(error, sqlite3.Error) and (is_text_error(error) or str(error) == "malformed JSON")


def primary_code(error: Exception) -> int | None:
    """SQLite's result code without its extension; None for what Python itself raised."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF


_STORAGE_CODES = frozenset({
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOLFS,
})  # fmt: skip


def _no_space(error: Exception, primary: int | None, path: Path) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    if primary == sqlite3.SQLITE_IOERR:  # the shared-memory file of a full disk is reported as an I/O error
        with contextlib.suppress(OSError):
            folder = path.resolve().parent
            return shutil.disk_usage(folder).free < _ROOM_BYTES or _refuses_more(folder)
    return primary == sqlite3.SQLITE_FULL


def _refuses_more(folder: Path) -> bool:
    """SQLite calls a used up quota an I/O error, so a file without a name is tried."""
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            os.pwrite(probe.fileno(), bytes(_ROOM_BYTES), 0)
            os.fsync(probe.fileno())
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return False


def _too_many_files(error: Exception, primary: int | None) -> str:
    """SQLite only says that it cannot open a file, so it is tried with another one."""
    if primary != sqlite3.SQLITE_CANTOPEN:
        return too_many_files(error)
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as reason:
        return too_many_files(reason)
    return ""


def identity(path: Path | str) -> tuple[int, int] | None:
    """Device and inode of the file at a path; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def wal_path(path: Path) -> Path:
    """The write-ahead log beside a database."""
    return side_files(path)[0]


def side_files(path: Path) -> tuple[Path, Path]:
    """What SQLite keeps beside a database while it is open."""
    real = path.resolve()
    return real.with_name(real.name + "-wal"), real.with_name(real.name + "-shm")


def write_again(path: Path) -> None:
    """Write a file's bytes over themselves and wait for the disk; its name in the folder as well. Raises OSError."""
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        position = 0
        while data := os.pread(file, 1024 * 1024, position):
            position += os.pwrite(file, data, position)
        os.fdatasync(file) if hasattr(os, "fdatasync") else os.fsync(file)
    finally:
        os.close(file)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def wal_size(path: Path) -> int:
    """Bytes of the write-ahead log; 0 where there is none."""
    return size_of(wal_path(path))


def privacy_warning(path: Path) -> str | None:
    """`others can read it (mode 644)`; None for a private file."""
    mode = _mode(path)
    return f"{path}: others can read it (mode {mode:o})" if mode & (stat.S_IRGRP | stat.S_IROTH) else None


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


class Reading:
    """What every part of a reader stands on: the open database, and what could not be read in it."""

    path: Path
    _connection: sqlite3.Connection
    _notes: values.Notes

    def _rows(self, sql: str, *bound: Scalar) -> list[tuple[Any, ...]]:
        with self._storage_errors():
            return list(values.rows_of(self._connection, sql, bound))

    @contextlib.contextmanager
    def _storage_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if is_storage(error):
                raise storage_error(error, self.path) from error
            raise
