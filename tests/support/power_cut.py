"""What a disk may hold after the power was cut: rebuilt from the system calls of a real sweep.

A write is on the disk for certain only once its file was synced. Before that any part of it may be there, in pieces of
512 bytes. For names (a file was made, was removed) and sizes there are three kinds of file systems, see `Names`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from traced import LOG, SAID

SECTOR = 512
TRACED = ("pwrite64", "write", "fdatasync", "fsync", "ftruncate", "unlink", "openat", "rename")
RECORDING = ("-y", "-xx", "-s", "1000000", "-e", f"trace={','.join(TRACED)}")
"""Options of strace: whole buffers, and the paths of open files."""
DATABASE = ("sweeps.db", "sweeps.db-wal", "sweeps.db-journal")
"""`-shm` is made anew by the first that opens the database, and the lock file holds nothing."""
FOLDER = "."
_LINE = re.compile(r"^(\w+)\((.*)\) += (-?\d+)")
_HEX = re.compile(r"(?:\\x[0-9a-f]{2})+")
_ACKNOWLEDGED = re.compile(r"\d+/\d+  (num_ctx \d+, num_batch \d+): ✓")


class Names(StrEnum):
    """When names and sizes of files are on the disk."""

    AT_ONCE = "at once"
    WITH_ANY_SYNC = "with the next sync"
    WITH_THE_FOLDER = "with a sync of the folder"


class Unsynced(StrEnum):
    """What is there of writes that were not synced."""

    NONE = "none"
    ALL = "all"
    SOME = "some"


@dataclass(frozen=True)
class Step:
    """One system call. `sync` that failed has `size` -1."""

    kind: str
    name: str
    offset: int = 0
    data: bytes = b""
    size: int = 0


def recorded(folder: Path) -> list[Step]:
    """The steps in the log of strace, with `said` for what the program has told the person."""
    return [step for line in (folder / LOG).read_text().splitlines() for step in _steps(line, folder)]


def _steps(line: str, folder: Path) -> Iterator[Step]:
    found = _LINE.match(line)
    if not found:
        return
    call, arguments, result = found.group(1), found.group(2), int(found.group(3))
    texts = [bytes.fromhex(text.replace("\\x", "")) for text in _HEX.findall(arguments)]
    path = Path(texts[-1 if call in ("openat", "unlink") else 0].decode()) if texts else folder
    if path == folder:
        name = FOLDER
    elif path.parent == folder and path.name in (*DATABASE, SAID):
        name = path.name
    else:
        return
    numbers = [int(number) for number in re.findall(r"(?<=, )-?\d+(?=,|$)", arguments)]
    if call in ("fdatasync", "fsync"):
        yield Step("sync", name, size=result)
    elif result < 0:
        return
    elif call == "write" and name == SAID:
        yield Step("said", name, data=texts[1])
    elif call == "pwrite64":
        yield Step("write", name, numbers[-1], texts[1][:result])
    elif call == "ftruncate":
        yield Step("truncate", name, size=numbers[-1])
    elif call == "openat" and "O_CREAT" in arguments:
        yield Step("create", name)
    elif call == "unlink":
        yield Step("unlink", name)
    elif call == "rename" and name != FOLDER:
        raise AssertionError("a database's file was renamed")


@dataclass
class _File:
    """`sure` is on the disk, `seen` is what programs read; `open` are the steps between them, in their order.

    After a sync that failed the system forgets that these were never written: `forgotten`, until the same place is
    written again and that comes to the disk.
    """

    sure: bytearray = field(default_factory=bytearray)
    seen: bytearray = field(default_factory=bytearray)
    open: list[Step] = field(default_factory=list)
    forgotten: list[Step] = field(default_factory=list)

    def change(self, step: Step) -> None:
        _apply(self.seen, step)
        self.open.append(step)

    def sync(self, succeeded: bool) -> None:
        if succeeded:
            for step in self.open:
                _apply(self.sure, step)
                self.forgotten = [old for old in self.forgotten if not _covers(step, old)]
        else:
            self.forgotten += self.open
        self.open = []

    def content(self, names: Names, unsynced: Unsynced, chance: random.Random) -> bytes:
        """What the disk may hold."""
        if unsynced is Unsynced.ALL:
            return bytes(self.seen)
        found = bytearray(self.sure)
        for step in (*self.forgotten, *self.open):
            if step.kind == "truncate" and names is Names.AT_ONCE:
                _apply(found, step)
            elif unsynced is Unsynced.SOME:
                _apply_some(found, step, chance)
        if names is Names.AT_ONCE:
            found += bytes(max(0, len(self.seen) - len(found)))
        return bytes(found)


def _covers(new: Step, old: Step) -> bool:
    """All that the old write wrote was written anew."""
    if new.kind == "truncate":
        return old.kind == "truncate" or old.offset >= new.size
    end = old.offset + len(old.data)
    return old.kind != "truncate" and new.offset <= old.offset and end <= new.offset + len(new.data)


def _apply(content: bytearray, step: Step) -> None:
    if step.kind == "truncate":
        del content[step.size :]
        content += bytes(step.size - len(content))
        return
    content += bytes(max(0, step.offset - len(content)))
    content[step.offset : step.offset + len(step.data)] = step.data


def _apply_some(content: bytearray, step: Step, chance: random.Random) -> None:
    """Each sector of a write for itself."""
    if step.kind == "truncate":
        if chance.random() < 0.5:
            _apply(content, step)
        return
    position, end = step.offset, step.offset + len(step.data)
    while position < end:
        until = min(end, (position // SECTOR + 1) * SECTOR)
        if chance.random() < 0.5:
            part = step.data[position - step.offset : until - step.offset]
            _apply(content, Step("write", step.name, position, part))
        position = until


class Disk:
    """Follows the steps, and says what the disk may hold after each."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._sure: dict[str, _File] = {}
        self._open: list[tuple[str, _File | None]] = []
        self._said = ""
        self.follows_folder_only = False

    @property
    def acknowledged(self) -> set[str]:
        """The cells whose line the person has seen."""
        return set(_ACKNOWLEDGED.findall(self._said))

    def take(self, step: Step) -> None:
        """The next step was made."""
        if step.kind == "said":
            self._said += step.data.decode()
        elif step.kind == "unlink":
            self._name(step.name, None)
        elif step.name == FOLDER:
            if step.kind == "sync" and step.size == 0:
                self._names_are_sure()
        else:
            if step.name not in self._files:
                self._name(step.name, _File())
            file = self._files[step.name]
            if step.kind == "sync":
                file.sync(step.size == 0)
                if step.size == 0 and not self.follows_folder_only:
                    self._names_are_sure()
            elif step.kind != "create":
                file.change(step)

    def _name(self, name: str, file: _File | None) -> None:
        if file is None:
            self._files.pop(name, None)
        else:
            self._files[name] = file
        self._open.append((name, file))

    def _names_are_sure(self) -> None:
        self._sure = dict(self._files)
        self._open = []

    def holds(self, names: Names, unsynced: Unsynced, seed: int) -> dict[str, bytes]:
        """The files that there may be, with their content."""
        chance = random.Random(seed)
        entries = dict(self._sure)
        kept = len(self._open)
        if names is not Names.AT_ONCE and unsynced is not Unsynced.ALL:
            kept = 0 if unsynced is Unsynced.NONE else chance.randint(0, kept)
        for name, file in self._open[:kept]:
            if file is None:
                entries.pop(name, None)
            else:
                entries[name] = file
        return {name: file.content(names, unsynced, chance) for name, file in entries.items()}


def states(steps: list[Step], cuts: set[int], seeds: int) -> Iterator[tuple[str, set[str], dict[str, bytes]]]:
    """For each cut: where it was and of which kind the disk, the cells that must be there, and the files."""
    for names in Names:
        disk = Disk()
        disk.follows_folder_only = names is Names.WITH_THE_FOLDER
        for number, step in enumerate(steps):
            disk.take(step)
            if number not in cuts:
                continue
            for unsynced in Unsynced:
                for seed in range(seeds if unsynced is Unsynced.SOME else 1):
                    where = f"cut after step {number} ({step.kind} {step.name}), names {names}, unsynced {unsynced}"
                    yield f"{where}, seed {seed}", disk.acknowledged, disk.holds(names, unsynced, seed + number)
