"""One writer: a kernel lock on `<database>.lock`. It ends with its process, however that ends; nothing gets stale."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ollama_sweep.core.errors import DatabaseInUse
from ollama_sweep.store.file import storage_error
from ollama_sweep.store.rows import Holder

_TRIES = 5
_BETWEEN_TRIES_S = 0.05
_SIGNATURE_BYTES = 1024


def lock_path(path: Path) -> Path:
    """The lock file of a database; the same for every name that leads to it."""
    real = path.resolve()
    return real.with_name(real.name + ".lock")


class WriterLock:
    """Held from its making until `release`. Raises DatabaseInUse where another process holds it.

    It also says whether a signal reaches the holder: only a program's main thread can take one.
    """

    def __init__(self, path: Path) -> None:
        self._path = lock_path(path)
        self._file: int | None = None
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._hears_signals = threading.current_thread() is threading.main_thread()
        while self._file is None:
            file = _open(self._path, path)
            try:
                _lock(file, path)
                if _is_at(file, self._path):  # else its last holder has removed it meanwhile
                    self._file = file
            finally:
                if self._file is None:
                    os.close(file)
        self.note("")

    def note(self, text: str) -> None:
        """Write down who holds it and what it does now: a courtesy, so a full disk does not matter here.

        It is one write that always has the same length, so that nobody ever reads half of it.
        """
        if self._file is None:
            return
        line = " ".join(text.split())[: _SIGNATURE_BYTES // 8]
        signals = "" if self._hears_signals else "signals unheard\n"
        host = platform.node()[:256]
        signature = f"pid {os.getpid()}\nsince {self._since}\nhost {host}\nnote {line}\n{signals}".encode()
        try:
            os.pwrite(self._file, signature.ljust(_SIGNATURE_BYTES), 0)
        except OSError:
            os.ftruncate(self._file, 0)

    def release(self, *, remove: bool = False) -> None:
        """Let it go; `remove` also takes the file away."""
        if self._file is not None:
            if remove:
                self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None


def holder(path: Path) -> Holder | None:
    """Who holds the database for writing now; None where nobody does."""
    return holder_of(lock_path(path))


def holder_of(file_of_lock: Path | str) -> Holder | None:
    """The same by the lock file, for who asks again and again."""
    try:
        file = os.open(file_of_lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _signature(file)
    except OSError:
        return None
    else:
        return None
    finally:
        os.close(file)


@contextlib.contextmanager
def kept_free(path: Path) -> Iterator[bool]:
    """Whether nobody holds the database for writing; where that is so, nobody can begin to while the block runs.

    Only for the blink of an eye: a writer that wants to begin waits no longer.
    """
    with contextlib.ExitStack() as held:
        try:
            file = os.open(lock_path(path), os.O_RDONLY | os.O_CLOEXEC)
            held.callback(os.close, file)
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:  # nobody has ever written here: it is a copy
            yield True
        except OSError:
            yield False
        else:
            yield True


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _open(lock: Path, path: Path) -> int:
    try:
        return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise storage_error(error, path) from error


def _lock(file: int, path: Path) -> None:
    """Take the lock; a few short tries, because `holder` holds it for the blink of an eye."""
    for left in reversed(range(_TRIES)):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not left:
                raise DatabaseInUse(already_running(_signature(file))) from None
            time.sleep(_BETWEEN_TRIES_S)
        except OSError as error:
            raise storage_error(error, path) from error
        else:
            return


def _signature(file: int) -> Holder:
    words = dict(line.split(" ", 1) for line in os.pread(file, 4096, 0).decode(errors="replace").splitlines()
                 if " " in line)  # fmt: skip
    pid = words.get("pid", "")
    return Holder(pid=int(pid) if pid.isdecimal() else 0, since=words.get("since", ""), host=words.get("host", ""),
                  note=words.get("note", ""), hears_signals="signals" not in words)  # fmt: skip


def already_running(found: Holder) -> str:
    """The refusal to a second writer, which names the first."""
    if not found.pid:
        return "Already running: another process holds the database"
    return f"Already running: pid {found.pid} since {local_time(found.since)} on host {found.host}"


def local_time(since: str) -> str:
    """`10:02` of today, else with the date; in local time."""
    try:
        local = datetime.fromisoformat(since).astimezone()
    except ValueError:
        return "?"
    return f"{local:%H:%M}" if local.date() == datetime.now().astimezone().date() else f"{local:%Y-%m-%d %H:%M}"
