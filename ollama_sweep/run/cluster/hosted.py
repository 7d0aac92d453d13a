"""On the host of a lane, inside a Dask worker: its attempt process, which outlives the worker that has started it.

What a bridge asks here are the functions below, by their names. Each may be asked again after the way was cut: a result
stays in the outbox until the bridge says that it has it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from ollama_sweep.core.errors import StorageError, SweepError
from ollama_sweep.core.lanes import order as lines
from ollama_sweep.core.lanes import plain
from ollama_sweep.core.lanes.order import Gone, HandedIn, Line, Ready
from ollama_sweep.machine import process
from ollama_sweep.machine.clocks import REAL
from ollama_sweep.machine.files import safe_name
from ollama_sweep.run.lanes.connection import LocalConnection
from ollama_sweep.run.lanes.post import Post
from ollama_sweep.run.lanes.room import Room

LOOK_S = 0.2
ENDING_S = 60.0
Tell = Callable[[str], None]


def folder() -> Path:
    """Where a host keeps the rooms of its lanes, for this user only."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "ollama-sweep" / "lanes"


class Hosted:
    """One lane of one database on this host. One bridge at a time talks to it."""

    def __init__(self, room: Room) -> None:
        self.room, self.connection = room, LocalConnection(room)
        self.talking = threading.Lock()
        self._heard: deque[Line] = deque()
        self._is_measuring = False
        self._ready: Ready | None = None
        self._post: Post | None = None

    def begin(self, post: Post, tell: Tell) -> None:
        """Have an attempt process that is at rest: what one measures now, for whomever, is waited for."""
        while self._is_measuring and self.connection.is_running:
            self._hear(tell)
        if self.connection.is_running and post == self._post and self._is_at_rest(tell):
            return
        self.connection.end(ENDING_S)
        self._ready, self._post = None, post
        self._heard.clear()  # the last words of the one before it
        self.room.folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        while self.room.is_held():
            REAL.sleep(LOOK_S)
        self.connection.begin(post)

    def _is_at_rest(self, tell: Tell) -> bool:
        """It takes an order. One that was cut short does not: it ends, and may not have done so yet."""
        while self._ready is None:
            if isinstance(self._hear(tell), Gone):
                return False
        self._heard.extend(self.connection.heard())
        return self.connection.is_running

    def ready(self, tell: Tell) -> Line:
        """What it says once it takes an order: Ready, or Gone."""
        while self._ready is None:
            if isinstance(said := self._hear(tell), Gone):
                return said
        return self._ready

    def measure(self, order: str, tell: Tell) -> Line:
        """What it says once an order is done: HandedIn, or Gone."""
        self._ready, self._is_measuring = None, True
        self._heard.clear()
        self.connection.give(lines.order_of(order, "an order"))
        while True:
            said = self._hear(tell)
            if isinstance(said, HandedIn | Gone):
                return said

    def _hear(self, tell: Tell) -> Line:
        """The next line; one that only tells is passed on as well."""
        while not self._heard:
            self._heard.extend(self.connection.heard())
            if not self._heard and not self.connection.is_running:
                self._is_measuring = False
                return Gone(f"its process on this host has died ({self.connection.how_it_ended or 'ended'})")
            file = self.connection.fileno()
            if not self._heard and file is not None:
                process.wait_for_news(file, LOOK_S)
        said = self._heard.popleft()
        match said:
            case Ready():
                self._ready, self._is_measuring = said, False
            case HandedIn() | Gone():
                self._is_measuring = False
            case _:
                tell(lines.line_of(said))
        return said


_HOSTED: dict[str, Hosted] = {}
_GUARD = threading.Lock()


def _hosted(key: str) -> Hosted:
    with _GUARD:
        if key not in _HOSTED:
            _HOSTED[key] = Hosted(Room(folder() / safe_name(key)))
        return _HOSTED[key]


def _teller(topic: str) -> Tell:
    """Passes a line on at once, for who looks on; nothing hangs on its arrival."""
    from distributed import get_worker

    worker = get_worker()

    def tell(line: str) -> None:
        with contextlib.suppress(Exception):  # a worker that was cut off measures on
            worker.log_event(topic, line)

    return tell


def _results(hosted: Hosted) -> list[tuple[str, str]]:
    """What lies in the outbox: names and texts."""
    outbox = hosted.room.outbox
    found = []
    for name in outbox.names():
        with contextlib.suppress(OSError, UnicodeDecodeError):
            found.append((name, (outbox.folder / name).read_text("ascii")))
    return found


# -- what a bridge asks ------------------------------------------------------------------------------------------------


def attach(key: str, post: str, taken: Sequence[str], topic: str) -> dict[str, object]:
    """Have an attempt process for this post, and be told that it is ready: its line, and what its outbox holds."""
    hosted, tell = _hosted(key), _teller(topic)
    try:
        with hosted.talking:
            hosted.begin(plain.of_text(Post, post, "a post"), tell)
            said = hosted.ready(tell)
    except (SweepError, OSError) as error:
        said = Gone(str(error))
    _remove(hosted, taken)
    return {"line": lines.line_of(said), "results": _results(hosted)}


def measure(key: str, order: str, taken: Sequence[str], topic: str) -> dict[str, object]:
    """Let it measure one order: its last line, "" where there is no process that could, and what its outbox holds."""
    hosted, tell = _hosted(key), _teller(topic)
    _remove(hosted, taken)
    said: Line | None = None
    try:
        with hosted.talking:
            if hosted.connection.is_running:
                said = hosted.measure(order, tell)
    except StorageError as error:
        said = Gone(str(error))
    return {"line": lines.line_of(said) if said is not None else "", "results": _results(hosted)}


def ready(key: str, taken: Sequence[str], topic: str) -> dict[str, object]:
    """After an order: wait until it takes the next one."""
    hosted, tell = _hosted(key), _teller(topic)
    with hosted.talking:
        said = hosted.ready(tell)
    _remove(hosted, taken)
    return {"line": lines.line_of(said), "results": _results(hosted)}


def detach(key: str, taken: Sequence[str]) -> None:
    """Its coordinator has no more for it: it closes its engine and ends."""
    hosted = _hosted(key)
    with hosted.talking:
        _remove(hosted, taken)
        hosted.connection.end(ENDING_S)


def cut(key: str) -> None:
    """What it measures is cut short. Asked beside the tasks, and done at once."""
    _hosted(key).connection.cut()


def release(key: str) -> None:
    """It lets go of what is loaded. Asked beside the tasks, and done at once."""
    _hosted(key).connection.release()


def _remove(hosted: Hosted, taken: Sequence[str]) -> None:
    """What is in the database."""
    for name in taken:
        if name in hosted.room.outbox.names():
            hosted.room.outbox.remove(name)
