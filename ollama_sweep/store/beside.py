"""A database's name, and the files that lie beside it without being part of it.

Beside `sweeps.db` lie `sweeps.db.lock` (who writes: `lock`), `sweeps.db.log` (what a run in the background says) and,
while a pause is asked for, `sweeps.db.pause`.
"""

from __future__ import annotations

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
