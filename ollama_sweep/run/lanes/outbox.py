"""Finished attempts on their way into the database: a file each, whole and synced, for its owner only."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from ollama_sweep.core.errors import ConfigError, StorageError
from ollama_sweep.core.lanes import plain
from ollama_sweep.core.lanes.order import Handed, handed_of
from ollama_sweep.core.units import format_bytes
from ollama_sweep.machine.files import clear_leftovers, refused, write_whole

MOST_FILES, MOST_BYTES = 64, 256 * 1024 * 1024
_NAME = re.compile(r"\d{12}-[0-9a-f]{1,32}\.json")


@dataclass(frozen=True)
class Outbox:
    """A folder of handed-in attempts. Whoever takes one removes it once it is in the database, and not before."""

    folder: Path

    def put(self, handed: Handed) -> str:
        """Keep a finished attempt; its name. Raises StorageError, and ValueError for NaN or infinity."""
        name = f"{handed.order.attempt_id:012d}-{handed.order.database[:8]}.json"
        self.make()
        write_whole(self.folder / name, plain.as_text(handed).encode("ascii"), private=True)
        return name

    def make(self) -> None:
        """The folder, where it is not there yet. Raises StorageError."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise refused(self.folder, error) from error

    def names(self) -> list[str]:
        """What lies in it, the oldest attempt first; what a dead process was writing is cleared away."""
        with contextlib.suppress(OSError):
            clear_leftovers(self.folder)
            return sorted(file.name for file in self.folder.iterdir() if _NAME.fullmatch(file.name))
        return []

    def read(self, name: str) -> Handed:
        """One of them. Raises ConfigError where it is no handed-in attempt of this version, StorageError."""
        file = self.folder / name
        try:
            text = file.read_text("ascii")
        except UnicodeDecodeError:
            raise ConfigError("is no handed-in attempt: it was changed", str(file)) from None
        except OSError as error:
            raise StorageError(f"{file}: cannot be read ({error.strerror or error})") from error
        return handed_of(text, str(file))

    def remove(self, name: str) -> None:
        """It is in the database. What cannot be removed is found to be known the next time."""
        with contextlib.suppress(OSError):
            (self.folder / name).unlink(missing_ok=True)

    def set_aside(self, name: str) -> None:
        """It cannot be read, and is nobody's to delete: it stays under a name that nobody takes."""
        with contextlib.suppress(OSError):
            (self.folder / name).rename(self.folder / f"{name}.unreadable")

    def fullness(self) -> str:
        """Why nothing more may be measured for it, in words; "" where there is room."""
        sizes = []
        for name in self.names():
            with contextlib.suppress(OSError):
                sizes.append((self.folder / name).stat().st_size)
        if len(sizes) < MOST_FILES and sum(sizes) < MOST_BYTES:
            return ""
        held = f"{len(sizes)} finished attempts, {format_bytes(sum(sizes))}"
        return f"the outbox {self.folder} is full ({held}): they wait for a run that takes them"
