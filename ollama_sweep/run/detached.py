"""A sweep without a terminal: start it detached, its log, requests to stop and to pause, one sweep per server.

Beside a database `sweeps.db` lie `sweeps.db.lock` (who writes; it ends with its process), `sweeps.db.log` (what a
detached run says) and, while a pause is asked for, `sweeps.db.pause`. A request to stop is a signal, and it is sent
only to the process that is seen to have the lock file open.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ollama_sweep.core.errors import ConfigError, DatabaseInUse, StorageError
from ollama_sweep.run.stopping import AFTER_CELL, NOW
from ollama_sweep.store import lock
from ollama_sweep.store.beside import log_path, pause_path, paused_since
from ollama_sweep.store.rows import Holder

DETACHED = "OLLAMA_SWEEP_DETACHED"
"""In the environment of a detached run: the number of the pipe on which it says that it has begun."""
LOG_BYTES = 8 * 1024 * 1024
POLL_S = 0.1


def program_words() -> list[str]:
    """How this program was started, without its own arguments: `python sweep.py` or `python .../ollama-sweep`."""
    own = len(sys.orig_argv) - len(sys.argv[1:])
    if sys.orig_argv[own:] == sys.argv[1:]:
        return [sys.executable, *sys.orig_argv[1:own]]
    root = str(Path(__file__).resolve().parent.parent)
    code = f"import sys; sys.path.insert(0, {root!r}); from ollama_sweep.cli import main; main()"
    return [sys.executable, "-c", code]


# -- detach: the parent's side ---------------------------------------------------------------------------------------


class Start:
    """A detached run that has just been started, seen from the process that started it."""

    def __init__(self, db: Path, environment: Mapping[str, str]) -> None:
        """Start this very command again, in a session of its own. Raises StorageError."""
        from ollama_sweep.machine import process

        self.log = log_path(db)
        self._is_new = not self.log.exists()
        try:
            os.close(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._seen = self.log.stat().st_size
            self._pipe, theirs = os.pipe()
            try:
                self.child = process.spawn_detached(
                    [*program_words(), *sys.argv[1:]],
                    env={**environment, DETACHED: str(theirs)},
                    log=self.log,
                    kept_files=[theirs],
                )
            finally:
                os.close(theirs)
        except OSError as error:
            raise StorageError(f"{self.log}: cannot be written ({error.strerror or error})") from error

    def wait(self, say: Callable[[str], None]) -> int | None:
        """Pass on what the run says until its first cell: how many cells it has left to run, None where it ended."""
        answer = b""
        while not answer.endswith(b"\n"):
            ready, _, _ = select.select([self._pipe], [], [], POLL_S)
            if ready:
                data = os.read(self._pipe, 100)
                answer += data
                if not data:
                    break
            self._pass_on(say)
        os.close(self._pipe)
        self._pass_on(say)
        return int(answer) if answer.endswith(b"\n") else None

    def ended(self, say: Callable[[str], None]) -> int:
        """The return code of a run that ends at once, with the rest of what it said; a log made for it is removed."""
        code = self.child.wait()
        self._pass_on(say)
        if self._is_new and code:
            self.log.unlink(missing_ok=True)
        return code if code >= 0 else 128 - code

    def stop(self) -> None:
        """The person does not want it after all: ask it to end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.child.pid, signal.SIGTERM)

    def _pass_on(self, say: Callable[[str], None]) -> None:
        with self.log.open("rb") as file:
            file.seek(self._seen)
            *lines, _ = file.read().split(b"\n")
        self._seen += sum(len(line) + 1 for line in lines)
        for line in lines:
            say(shown(line))


def shown(line: bytes) -> str:
    """A line of a log for the terminal; what could steer the terminal is written out."""
    text = line.decode("utf-8", "replace").rstrip("\r")
    return "".join(char if char.isprintable() or char == "\t" else repr(char)[1:-1] for char in text)


# -- detach: the run's side ------------------------------------------------------------------------------------------


class Announcement:
    """What a detached run owes to the process that started it; for every other run it does nothing."""

    def __init__(self, pipe: int | None) -> None:
        self._pipe = pipe

    @classmethod
    def take_over(cls) -> Announcement:
        """Read it from the environment, once: children shall not have it. From here on a hang-up is ignored."""
        try:
            pipe = int(os.environ.pop(DETACHED, ""))
            os.set_inheritable(pipe, False)
        except (ValueError, OSError):
            return cls(None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return cls(pipe)

    @property
    def is_owed(self) -> bool:
        """This is a detached run."""
        return self._pipe is not None

    def make(self, cells_left: int) -> None:
        """The sweep is registered and goes on by itself."""
        if self._pipe is not None:
            with contextlib.suppress(OSError):
                os.write(self._pipe, b"%d\n" % cells_left)
            os.close(self._pipe)
            self._pipe = None


def keep_short(log: Path, limit: int = LOG_BYTES) -> None:
    """Drop the older half of a log that has grown over the limit. The file stays the same: its writer has it open."""
    try:
        if log.stat().st_size <= limit:
            return
        with log.open("r+b") as file:
            file.seek(-limit // 2, os.SEEK_END)
            file.readline()
            tail = file.read()
            file.seek(0)
            file.write(b"[older lines were dropped]\n" + tail)
            file.truncate()
    except OSError:
        return


# -- stop ------------------------------------------------------------------------------------------------------------


def ask_to_stop(db: Path, found: Holder, *, now: bool) -> Callable[[], bool]:
    """Send the holder the signal of `stop` or `stop --now`, once it is known to be the sweep on this database.

    Returns a question: whether it has ended. Raises DatabaseInUse where it is another program, or may not be asked.
    """
    import platform

    import psutil

    if found.host and found.host != platform.node()[:256]:
        raise DatabaseInUse(f"the sweep runs on host {found.host} (pid {found.pid}); stop it there")
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
    """Before its next cell a sweep on this database waits, also one that starts later. Raises StorageError."""
    from ollama_sweep.machine.files import write_whole

    if paused_since(db) is None:
        write_whole(pause_path(db), b"Before its next cell a sweep waits until this file is gone.\n")


def ask_to_continue(db: Path) -> bool:
    """Take the pause back; false where none was asked for. Raises StorageError."""
    file = pause_path(db)
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StorageError(f"{file}: cannot be removed ({error.strerror or error})") from error
    return True


# -- one sweep per server --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def claimed(things: Mapping[str, str], db: Path, say: Callable[[str], None], *, share: bool = False) -> Iterator[None]:
    """Hold these things (key -> words, `Ollama at http://…`) against other sweeps of this user while the block runs.

    Raises DatabaseInUse, which names the other sweep; with `share` what is taken is left to the other.
    """
    with contextlib.ExitStack() as held:
        for key, words in things.items():
            claim = _claim(key, words, db, say, share=share)
            if claim is not None:
                held.callback(claim.release, remove=True)
        yield


def _claim(key: str, words: str, db: Path, say: Callable[[str], None], *, share: bool) -> lock.WriterLock | None:
    from ollama_sweep.machine.files import cache_folder, safe_name

    file = cache_folder() / "in-use" / safe_name(key)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        claim = lock.WriterLock(file)
    except (OSError, StorageError) as error:
        say(f"Warning: nothing keeps a second sweep away from {words}: {error}")
        return None
    except DatabaseInUse:
        if share:
            return None
        raise DatabaseInUse(_taken(words, lock.holder(file) or Holder())) from None
    claim.note(str(db.resolve()))
    return claim


def _taken(words: str, other: Holder) -> str:
    by = f"pid {other.pid} since {lock.local_time(other.since)}, database {other.note}" if other.pid else "another run"
    return (
        f"{words} is in use by another sweep ({by}). Two at once spoil each other's numbers: "
        "wait for it or stop it, or run both with --share-server"
    )


def require_running(db: Path) -> Holder:
    """Who runs a sweep on this database. Raises ConfigError where nobody does."""
    found = lock.holder(db)
    if found is None:
        raise ConfigError(f"no sweep runs on {db}. Start or go on with: ollama-sweep run CONFIG")
    return found
