"""A sweep without a terminal: started in the background, what it tells the terminal that started it, its log."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import ollama_sweep
from ollama_sweep.core.errors import DatabaseInUse, StorageError
from ollama_sweep.core.events import CellFinished, Event, FurtherFinished, SweepStarted
from ollama_sweep.core.outcome import Status
from ollama_sweep.core.text import harmless
from ollama_sweep.store import file as files
from ollama_sweep.store import lock
from ollama_sweep.store.beside import log_path

DETACHED = "OLLAMA_SWEEP_DETACHED"
"""In the environment of a detached run: the number of the pipe on which it says that it has begun."""
LOG_BYTES = 8 * 1024 * 1024
POLL_S = 0.1


def program_words() -> list[str]:
    """How this program was started, without its own arguments: `python sweep.py` or `python .../ollama-sweep`."""
    own = len(sys.orig_argv) - len(sys.argv[1:])
    if sys.orig_argv[own:] == sys.argv[1:]:
        return [sys.executable, *sys.orig_argv[1:own]]
    root = str(Path(ollama_sweep.__file__).resolve().parent.parent)
    code = f"import sys; sys.path.insert(0, {root!r}); from ollama_sweep.cli import main; main()"
    return [sys.executable, "-c", code]


# -- detach: the parent's side ---------------------------------------------------------------------------------------


def check(db: Path, *, allow_network: bool) -> None:
    """What can be seen before a run is started that nobody watches. Raises ConfigError, DatabaseInUse, StorageError."""
    files.check_place(db, allow_network, files.file_system)
    files.check_writable(db)
    if db.exists() and db.stat().st_size > 0:
        files.check_ours(db)
    holder = lock.holder(db)
    if holder is not None:
        raise DatabaseInUse(lock.already_running(holder))


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
                    needs=lambda name: True,
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
    return harmless(line.decode("utf-8", "replace").rstrip("\r"))


# -- detach: the run's side ------------------------------------------------------------------------------------------


class Announcement:
    """What a detached run owes to the process that started it; for every other run it does nothing.

    It listens to the sweep, and is made once the sweep is registered and goes on by itself.
    """

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

    def __call__(self, event: Event) -> None:
        if isinstance(event, SweepStarted) and self._pipe is not None:
            with contextlib.suppress(OSError):
                os.write(self._pipe, b"%d\n" % event.counts.get(Status.PENDING, 0))
            os.close(self._pipe)
            self._pipe = None


def log_keeper(db: Path) -> Callable[[Event], None]:
    """Listens to a sweep and keeps the log short where this run's output goes to it."""
    log = log_path(db)
    try:
        is_ours = os.path.samestat(os.fstat(1), log.stat())
    except OSError:
        is_ours = False

    def listen(event: Event) -> None:
        if is_ours and isinstance(event, CellFinished | FurtherFinished):
            keep_short(log)

    return listen


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
