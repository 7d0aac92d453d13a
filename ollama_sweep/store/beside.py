"""A database's name, and the files that lie beside it without being part of it.

Beside `sweeps.db` lie `sweeps.db.lock` (who writes: `lock`), `sweeps.db.log` (what a run in the background says),
`sweeps.db.done` (how many cells were called done), while a pause is asked for `sweeps.db.pause`, while `serve` has a
token that it may not print `sweeps.db.serve`, and where several lanes measure the folder `sweeps.db.lanes`.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.machine import places

DEFAULT_DB = "sweeps.db"
SUFFIXES = (".lock", ".log", ".pause", "-wal", "-shm")


def db_words(db: Path) -> str:
    """` --db X` for a command, or nothing for the usual database."""
    return "" if str(db) == DEFAULT_DB else f" --db {db}"


def log_path(db: Path) -> Path:
    """The log of a detached run; the same for every name that leads to the database."""
    return _beside(db, ".log")


def pause_path(db: Path) -> Path:
    """The file that asks for a pause as long as it is there."""
    return _beside(db, ".pause")


def lanes_path(db: Path) -> Path:
    """The folder of what measures for this database in processes of its own, where it is measured by several lanes."""
    return _beside(db, ".lanes")


def serve_path(db: Path) -> Path:
    """The file with the address of `serve` and its token, where that is not printed."""
    return _beside(db, ".serve")


def check_database(db: Path) -> None:
    """Where a database lies or may be made. Nothing is made.

    Raises ConfigError for a folder, a device, a pipe, a name that is too long; StorageError where it cannot be reached.
    """
    found = places.look(db, beside=max(SUFFIXES, key=len))
    if found and (what := places.kind(found)):
        raise ConfigError(f"{db} is {what}; --db takes a file")


def check_beside(db: Path, *suffixes: str) -> None:
    """What lies beside a database under these names, or under all that it uses, is a file. Raises as above."""
    for suffix in suffixes or SUFFIXES:
        file = _beside(db, suffix)
        found = places.look(file)
        if found and (what := places.kind(found)):
            raise ConfigError(f"{file} is {what}; a file of the database belongs there. Move it away")


@dataclass(frozen=True)
class CalledDone:
    """How many cells of the database with this id were called done, each time one was. It only grows."""

    database_id: str
    cells: int


_CALLED_DONE = re.compile(rb"([0-9a-f]{32}) (\d{15})\n")


def done_path(db: Path) -> Path:
    """The file that counts the cells called done, so that a database that has lost some is noticed."""
    return _beside(db, ".done")


def called_done(db: Path) -> CalledDone | None:
    """What the file beside a database says; None where there is none that says anything."""
    with contextlib.suppress(OSError):
        file = os.open(done_path(db), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            is_file = stat.S_ISREG(os.fstat(file).st_mode)
            found = _CALLED_DONE.fullmatch(os.read(file, 4096)) if is_file else None
        finally:
            os.close(file)
        if found:
            return CalledDone(found[1].decode(), int(found[2]))
    return None


def note_called_done(path: Path, done: CalledDone) -> None:
    """Write it into this file (`done_path`) with one write and no sync: where that fails, or is lost with the power,
    less is noticed later.
    """
    line = f"{done.database_id} {done.cells:015d}\n".encode()
    with contextlib.suppress(OSError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
        file = os.open(path, flags, 0o600)
        try:
            if stat.S_ISREG(os.fstat(file).st_mode):
                os.pwrite(file, line, 0)
                os.ftruncate(file, len(line))
        finally:
            os.close(file)


def missing_words(missing: int) -> str:
    """The line for cells that were called done and are not in the database."""
    cells = "1 cell that was" if missing == 1 else f"{missing} cells that were"
    are = "is" if missing == 1 else "are"
    return f"{cells} called done {are} not in this file: its -wal was removed, or this is an older copy"


def _beside(db: Path, suffix: str) -> Path:
    real = db.resolve()
    return real.with_name(real.name + suffix)


def paused_since(db: Path) -> datetime | None:
    """Since when a pause is asked for, in local time; None where none is."""
    try:
        found = pause_path(db).stat()
    except OSError:
        return None
    return None if places.kind(found) else datetime.fromtimestamp(found.st_mtime)
