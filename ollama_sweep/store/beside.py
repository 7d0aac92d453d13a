"""What lies beside a database: `sweeps.db.log`, and `sweeps.db.pause` as long as a pause is asked for."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path


def log_path(db: Path) -> Path:
    """The log of a detached run; the same for every name that leads to the database."""
    return _beside(db, ".log")


def pause_path(db: Path) -> Path:
    """The file that asks for a pause as long as it is there."""
    return _beside(db, ".pause")


def paused_since(db: Path) -> datetime | None:
    """Since when a pause is asked for, in local time; None where none is."""
    try:
        return datetime.fromtimestamp(pause_path(db).stat().st_mtime)
    except OSError:
        return None


def _beside(db: Path, suffix: str) -> Path:
    real = db.resolve()
    return real.with_name(real.name + suffix)
