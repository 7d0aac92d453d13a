"""How the coordinator reaches the attempt process of a lane: the contract, and the way to one on this computer."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from ollama_sweep.core import crashpoints
from ollama_sweep.core.errors import ConfigError, EngineUnavailable
from ollama_sweep.core.lanes import order as lines
from ollama_sweep.core.lanes import plain
from ollama_sweep.core.lanes.order import Handed, Line, Order
from ollama_sweep.machine import process
from ollama_sweep.machine.files import write_whole
from ollama_sweep.run.control import is_alive
from ollama_sweep.run.lanes import post as posts
from ollama_sweep.run.lanes.attempt_process import END, RELEASE
from ollama_sweep.run.lanes.post import Post
from ollama_sweep.run.lanes.room import Room
from ollama_sweep.run.stopping import NOW

MODULE = "ollama_sweep.run.lanes.attempt_process"
DEAF_S = 10.0
"""An idle process reads its orders at once."""
ENDING_S = 5.0
"""A process that says nothing more is as good as ended."""


class Connection(Protocol):
    """The attempt process of one lane, wherever it is. Nothing here waits, but for `end`."""

    def begin(self, post: Post) -> None:
        """Start one. Raises EngineUnavailable, StorageError."""

    def give(self, order: Order) -> None:
        """Tell it what to measure; it is idle. Raises StorageError."""

    def release(self) -> None:
        """An idle one lets go of what is loaded."""

    def dismiss(self) -> None:
        """Tell an idle one to end; nobody waits for that."""

    def cut(self) -> None:
        """What is measured is cut short; the process hands in that it was, and ends."""

    def heard(self) -> list[Line]:
        """What it has said since the last time. Raises ConfigError for what is no line of such a process."""
        ...

    def fileno(self) -> int | None:
        """A file that can be read when there is something to hear; None where there is none, and one has to ask."""
        ...

    @property
    def is_running(self) -> bool:
        """It has not ended, as far as was heard."""
        ...

    @property
    def how_it_ended(self) -> str:
        """In words, "" for well."""
        ...

    def names(self) -> list[str]:
        """What lies in its outbox."""
        ...

    def read(self, name: str) -> Handed:
        """A finished attempt of its outbox. Raises ConfigError, StorageError."""
        ...

    def remove(self, name: str) -> None:
        """That is in the database."""

    def set_aside(self, name: str) -> None:
        """That cannot be read."""

    def end(self, grace_s: float) -> None:
        """Tell it to end, and wait for that; after so long it is ended by force."""

    def leave(self) -> None:
        """Let it finish what it has in hand, and wait no longer for it."""


@dataclass
class LocalConnection:
    """See `Connection`: a process on this computer, with its room beside the database; `environment` goes to it."""

    room: Room
    environment: Mapping[str, str] = field(default_factory=dict)
    _worker: process.Worker | None = None
    _ended: str = ""
    module: ClassVar[str] = MODULE

    def begin(self, post: Post) -> None:
        self.room.make()
        posts.write(post, self.room)
        self.room.outbox.make()
        argv = [sys.executable, "-P", "-m", self.module, str(self.room.folder)]
        try:
            self._worker = process.spawn_outliving(
                argv, env={**_environment(), **self.environment}, log=self.room.log, needs=lambda name: True
            )
        except OSError as error:
            raise EngineUnavailable(f"its process cannot be started: {error}") from error

    def give(self, order: Order) -> None:
        write_whole(self.room.order, plain.as_text(order).encode("ascii"), private=True)
        crashpoints.reached("order_written")
        self._send(plain.as_text(order))

    def release(self) -> None:
        self._send(RELEASE)

    def dismiss(self) -> None:
        self._send(END)

    def _send(self, line: str) -> None:
        if self._worker is None:
            return
        try:
            self._worker.send(line, DEAF_S)
        except process.DeadlineExceeded:
            self._worker.end(0.0)  # it stands still; that it has ended is heard next

    def cut(self) -> None:
        if self._worker is not None:
            self._worker.signal(NOW)

    def heard(self) -> list[Line]:
        found: list[Line] = []
        while self._worker is not None:
            try:
                line = self._worker.receive(0)
            except process.DeadlineExceeded:
                break
            if line is None:
                self.end(ENDING_S)
                break
            found.append(lines.said_in(line, f"the process of {self.room.folder.name}"))
        return found

    @property
    def how_it_ended(self) -> str:
        return self._ended

    def fileno(self) -> int | None:
        return self._worker.fileno() if self._worker is not None else None

    @property
    def is_running(self) -> bool:
        return self._worker is not None

    def names(self) -> list[str]:
        return self.room.outbox.names()

    def read(self, name: str) -> Handed:
        return self.room.outbox.read(name)

    def remove(self, name: str) -> None:
        self.room.outbox.remove(name)

    def set_aside(self, name: str) -> None:
        self.room.outbox.set_aside(name)

    def end(self, grace_s: float) -> None:
        if self._worker is not None:
            self._send(END)
            code = self._worker.wait(grace_s)
            self._ended = _words(self._worker.end(0.0) if code is None else code)
            self._worker = None

    def leave(self) -> None:
        if self._worker is not None:
            self._worker.leave()
            self._worker = None


def _words(code: int) -> str:
    return "" if code == 0 else f"ended by signal {-code}" if code < 0 else f"exit {code}"


def _environment() -> dict[str, str]:
    """The process finds this package also where it is not installed. A test says where it dies, and where we do."""
    package = importlib.import_module("ollama_sweep")
    paths = [str(Path(str(package.__file__)).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    found.pop(crashpoints.VARIABLE, None)
    if dies_at := found.pop(crashpoints.IN_LANE, None):
        found[crashpoints.VARIABLE] = dies_at
    return found


@dataclass
class Outlived:
    """The process that a dead coordinator had started, seen by its room: it finishes what it has in hand."""

    room: Room
    order: Order

    @property
    def is_running(self) -> bool:
        return self.room.is_held()

    def cut(self) -> None:
        """What it measures is cut short."""
        pid = self.room.pid()
        if pid and self.room.is_held() and is_alive(pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, NOW)

    def kill(self) -> None:
        """It has had its time."""
        pid = self.room.pid()
        if pid and self.room.is_held():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def outlived(room: Room) -> Outlived | None:
    """What goes on in a room without a coordinator; None where nobody measures there."""
    if not room.is_held():
        return None
    try:
        order = lines.order_of(room.order.read_text("ascii"), str(room.order))
    except (OSError, UnicodeDecodeError, ConfigError):
        return None
    return Outlived(room, order)
