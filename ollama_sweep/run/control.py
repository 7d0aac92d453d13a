"""What other commands ask of a sweep that runs: to stop, to pause, to go on.

A request to stop is a signal, and it is sent only to the process that is seen to have the lock file open. A request
to pause is a file beside the database.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from ollama_sweep.core.errors import ConfigError, DatabaseInUse, StorageError
from ollama_sweep.run.stopping import AFTER_CELL, NOW
from ollama_sweep.store import lock
from ollama_sweep.store.beside import check_beside, pause_path, paused_since
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.rows import Holder

POLL_S = 0.1


def require_running(db: Path) -> Holder:
    """Who runs a sweep on this database. Raises ConfigError where nobody does."""
    found = lock.holder(db)
    if found is None:
        raise ConfigError(f"no sweep runs on {db}. Start or go on with: ollama-sweep run CONFIG")
    return found


# -- stop ------------------------------------------------------------------------------------------------------------


def ask_to_stop(db: Path, found: Holder, *, now: bool) -> Callable[[], bool]:
    """Send the holder the signal of `stop` or `stop --now`, once it is known to be the sweep on this database.

    Returns a question: whether it has ended. Raises DatabaseInUse where it is another program, or may not be asked.
    """
    import platform

    import psutil

    if found.host and found.host != platform.node()[:256]:
        raise DatabaseInUse(f"the sweep runs on host {found.host} (pid {found.pid}); stop it there")
    if not found.hears_signals:
        raise DatabaseInUse(f"pid {found.pid} is another program that measures in a thread; only it can stop the sweep")
    try:
        running = psutil.Process(found.pid)
        if found.pid == os.getpid() or not _has_open(running, lock.lock_path(db)):
            raise DatabaseInUse(_not_ours(db, found.pid, running.name()))
        running.send_signal(NOW if now else AFTER_CELL)
    except psutil.NoSuchProcess:
        if lock.holder(db) is not None:
            raise DatabaseInUse(_not_ours(db, found.pid, "gone")) from None
        return lambda: True
    except psutil.AccessDenied:
        raise DatabaseInUse(f"pid {found.pid} belongs to another user, who can stop it") from None
    return lambda: not running.is_running() or not is_alive(found.pid)


def is_alive(pid: int) -> bool:
    """This process has not ended."""
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _has_open(running: object, file: Path) -> bool:
    import psutil

    assert isinstance(running, psutil.Process)
    return any(os.path.realpath(entry.path) == str(file) for entry in running.open_files())


def _not_ours(db: Path, pid: int, name: str) -> str:
    return (
        f"{db} is held, but pid {pid} ({name}) is not the sweep that holds it, so nothing was sent to it. "
        f"Look who has the file open: fuser {lock.lock_path(db)}"
    )


def wait_for_end(has_ended: Callable[[], bool], longest_s: float = float("inf")) -> bool:
    """Wait until the process has ended; false where it has not in time."""
    until = time.monotonic() + longest_s
    while not has_ended():
        if time.monotonic() > until:
            return False
        time.sleep(POLL_S)
    return True


# -- pause -----------------------------------------------------------------------------------------------------------


def ask_to_pause(db: Path) -> None:
    """Before its next cell a sweep on this database waits, also one that starts later.

    Raises ConfigError, DatabaseInUse for another program's, StorageError.
    """
    from ollama_sweep.machine.files import write_whole

    _check_ours(db)
    if paused_since(db) is None:
        write_whole(pause_path(db), b"Before its next cell a sweep waits until this file is gone.\n")


def _check_ours(db: Path) -> None:
    """No file is laid or taken away beside another program's database."""
    check_beside(db, ".pause")
    if reader := Reader.if_there(db):
        reader.close()


def ask_to_continue(db: Path) -> bool:
    """Take the pause back; false where none was asked for. Raises as above."""
    with contextlib.suppress(StorageError):  # a damaged one is ours all the same
        _check_ours(db)
    file = pause_path(db)
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StorageError(f"{file}: cannot be removed ({error.strerror or error})") from error
    return True
