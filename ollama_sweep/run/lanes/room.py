"""The folder of a lane: who measures there, what it was told, what it has made outside, what it has finished."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ollama_sweep.core.errors import DatabaseInUse, StorageError
from ollama_sweep.core.ledger import Leftover
from ollama_sweep.machine.clocks import REAL
from ollama_sweep.machine.files import refused, safe_name, write_whole
from ollama_sweep.run.lanes.outbox import Outbox
from ollama_sweep.store.beside import lanes_path

_PID_BYTES = 32
PATIENCE_S, _BETWEEN_TRIES_S = 120.0, 0.05
"""So long a model may take to be unloaded, or a server to be stopped."""


@dataclass(frozen=True)
class Room:
    """The files of one lane in its folder."""

    folder: Path

    @property
    def outbox(self) -> Outbox:
        return Outbox(self.folder / "outbox")

    @property
    def ledger(self) -> FileLedger:
        return FileLedger(self.folder / "ledger.json")

    @property
    def post(self) -> Path:
        """What its process is told at its start."""
        return self.folder / "post.json"

    @property
    def order(self) -> Path:
        """What its process was told to measure last."""
        return self.folder / "order.json"

    @property
    def log(self) -> Path:
        """What its process says where nobody listens."""
        return self.folder / "log"

    def make(self) -> None:
        """The folder, for its owner only. Raises StorageError."""
        try:
            self.folder.parent.mkdir(mode=0o700, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise refused(self.folder, error) from error

    def hold(self) -> int:
        """Be the one process that measures here, until the file is closed or the process ends.

        One that has just lost its coordinator is waited for. Raises DatabaseInUse, StorageError.
        """
        file, until = self._open(), REAL.monotonic_s() + PATIENCE_S
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.pwrite(file, f"{os.getpid()}\n".encode().ljust(_PID_BYTES), 0)
                return file
            if REAL.monotonic_s() > until:
                os.close(file)
                raise DatabaseInUse(f"another process measures in {self.folder} (pid {self.pid()})")
            REAL.sleep(_BETWEEN_TRIES_S)

    def _open(self) -> int:
        try:
            return os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise refused(self.folder / "lock", error) from error

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Weights are read from the disk by one lane of this folder at a time; whoever waits can be interrupted."""
        file = os.open(self.folder.parent / "reading", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                REAL.sleep(_BETWEEN_TRIES_S)
            yield
        finally:
            os.close(file)

    def is_held(self) -> bool:
        """A process measures here now."""
        try:
            file = os.open(self.folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            os.close(file)
        return False

    def pid(self) -> int:
        """Which process that is, or was; 0 where nobody knows."""
        with contextlib.suppress(OSError, ValueError), (self.folder / "lock").open("rb") as file:
            return int(file.read(_PID_BYTES))
        return 0


def rooms(db: Path) -> list[Room]:
    """Those of every lane that has ever measured for this database."""
    with contextlib.suppress(OSError):
        return [Room(folder) for folder in sorted(lanes_path(db).iterdir()) if folder.is_dir()]
    return []


def at_work(folder: Path) -> list[int]:
    """The processes of all lanes that measure beside each other in the rooms of this folder."""
    with contextlib.suppress(OSError):
        found = [Room(one) for one in folder.iterdir() if one.is_dir()]
        return [pid for room in found if room.is_held() and (pid := room.pid())]
    return []


def room_of(db: Path, lane: str) -> Room:
    """That of a lane, by its name."""
    return Room(lanes_path(db) / safe_name(lane))


class FileLedger:
    """The ledger of an attempt process: a file that is synced before anything is made, and read after a crash."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._entries: dict[int, tuple[str, str, dict[str, str]]] = {}
        self._last = 0

    def leftovers(self) -> list[Leftover]:
        """What a dead process recorded and did not settle, the newest first; it stays written until it is settled.

        A file that cannot be read says nothing: it is written whole or not at all.
        """
        try:
            entries = json.loads(self._path.read_text("utf-8"))
            found = [Leftover(int(number), str(kind), str(name), {str(key): str(value) for key, value in more.items()})
                     for number, kind, name, more in entries]  # fmt: skip
        except (OSError, ValueError, TypeError, AttributeError):
            return []
        with self._lock:
            self._entries.update({one.number: (one.kind, one.name, dict(one.details)) for one in found})
            self._last = max(self._entries, default=0)
        return sorted(found, key=lambda one: -one.number)

    def record(self, kind: str, name: str, details: Mapping[str, str]) -> int:
        """See `core.ledger.Ledger`. Raises StorageError."""
        with self._lock:
            self._last += 1
            self._entries[self._last] = kind, name, dict(details)
            self._write()
            return self._last

    def settle(self, number: int) -> None:
        """It is gone again; what cannot be written is found to be gone the next time."""
        with self._lock:
            self._entries.pop(number, None)
            with contextlib.suppress(StorageError):
                self._write()

    def _write(self) -> None:
        rows = [[number, *entry] for number, entry in self._entries.items()]
        write_whole(self._path, json.dumps(rows).encode("ascii"), private=True)
