"""A database's name, and the files that lie beside it without being part of it.

Beside `sweeps.db` lie `sweeps.db.lock` (who writes: `lock`), `sweeps.db.log` (what a run in the background says) and,
while a pause is asked for, `sweeps.db.pause`.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

DEFAULT_DB = "sweeps.db"


def db_words(db: Path) -> str:
    """` --db X` for a command, or nothing for the usual database."""
    return "" if str(db) == DEFAULT_DB else f" --db {db}"


def log_path(db: Path) -> Path:
    """The log of a detached run; the same for every name that leads to the database."""
    return _beside(db, ".log")


def pause_path(db: Path) -> Path:
    """The file that asks for a pause as long as it is there."""
    return _beside(db, ".pause")


def _beside(db: Path, suffix: str) -> Path:
    real = db.resolve()
    return real.with_name(real.name + suffix)


def paused_since(db: Path) -> datetime | None:
    """Since when a pause is asked for, in local time; None where none is."""
    try:
        return datetime.fromtimestamp(pause_path(db).stat().st_mtime)
    except OSError:
        return None
