"""Connections that see one moment of a database, for as many threads: SQLite works without Python's lock."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from ollama_sweep.store import file as files

TRIES = 3


@contextlib.contextmanager
def connections(path: Path, n: int) -> Iterator[list[sqlite3.Connection]]:
    """So many, each in a transaction that reads; none where commits come too quickly one after the other.

    The first one looks before and after the others have begun: where it sees no commit between, there was none, and all
    of them see the same. Raises StorageError and sqlite3.Error.
    """
    with contextlib.ExitStack() as stack:
        found = [
            stack.enter_context(contextlib.closing(files.connect_ro(path, any_thread=True))) for _ in range(max(1, n))
        ]
        for _ in range(TRIES):
            if _have_begun(found):
                yield found
                return
            for connection in found:
                connection.execute("ROLLBACK")
        yield []


def _have_begun(found: list[sqlite3.Connection]) -> bool:
    before = _version(found[0])
    for connection in reversed(found):
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # a transaction begins with what it reads
    return _version(found[0]) == before


def _version(connection: sqlite3.Connection) -> object:
    """Another one after each commit of another connection."""
    return connection.execute("PRAGMA data_version").fetchone()[0]
