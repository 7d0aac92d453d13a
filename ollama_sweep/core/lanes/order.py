"""What an attempt process is told, what it hands in, and what it says meanwhile: one line of JSON each. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.lanes import plain
from ollama_sweep.core.lanes.lane import Standing
from ollama_sweep.core.outcome import Outcome, Purpose, Run
from ollama_sweep.core.surface.goal import FULL, Runs

T = TypeVar("T")
VERSION = 1
"""Of the form of everything here. A program of another one is refused in words."""


@dataclass(frozen=True)
class Order:
    """One attempt at one cell.

    `database` is the id of the database and `attempt_id` the attempt's there; `number` counts the attempts at the cell,
    `tried` those of this turn before it.
    `loads` are earlier loads that the cell's numbers speak for as well, and `adds` says that so many runs fewer are
    needed. `runs_spread` is how far runs differ, as a logarithm. `fresh`: what is loaded is unloaded first. `lease_s`:
    after so long nobody waits for the result any more.
    """

    database: str
    sweep: str
    attempt_id: int
    number: int
    key: str
    cell: Cell
    lane: str
    lease_s: float
    tried: int = 0
    purpose: Purpose | None = None
    loads: tuple[tuple[Run, ...], ...] = ()
    adds: bool = True
    runs: Runs = FULL
    runs_spread: float = 0.0
    fresh: bool = False
    version: int = field(default=VERSION, metadata={plain.ALWAYS: True})


@dataclass(frozen=True)
class Handed:
    """An attempt that has ended, with the order that it answers.

    An engine that was away, or a stop, is an outcome `interrupted` with its reason. `took_s`: from the order to the
    end. The free memory, in bytes, is that of the lane right after a failure for want of it.
    """

    order: Order
    outcome: Outcome
    engine_version: str = ""
    took_s: float = 0.0
    pid: int = 0
    gpu_free_bytes: int | None = None
    memory_free_bytes: int | None = None
    version: int = field(default=VERSION, metadata={plain.ALWAYS: True})


@dataclass(frozen=True)
class Ready:
    """The engine answers: the lane takes an order."""

    standing: Standing


@dataclass(frozen=True)
class RunMade:
    """A generation of the attempt at hand has ended."""

    number: int
    warmup: bool
    rate: float | None = None


@dataclass(frozen=True)
class Note:
    """A line for the person."""

    text: str


@dataclass(frozen=True)
class Away:
    """The engine does not answer, or there is no room for the result; it is tried again after so many seconds."""

    reason: str
    seconds: float


@dataclass(frozen=True)
class Resting:
    """The lane rests before its next cell."""

    reason: str


@dataclass(frozen=True)
class HandedIn:
    """A finished attempt lies in the outbox under this name."""

    name: str
    attempt_id: int


@dataclass(frozen=True)
class Gone:
    """The process ends, and why: it was told to, or its engine cannot be used."""

    why: str = ""


Line = Ready | RunMade | Note | Away | Resting | HandedIn | Gone
_KINDS: dict[str, type[Any]] = {
    "ready": Ready, "run": RunMade, "note": Note, "away": Away, "resting": Resting, "handed_in": HandedIn, "gone": Gone,
}  # fmt: skip
_NAMES = {kind: name for name, kind in _KINDS.items()}


def line_of(said: Line) -> str:
    """What an attempt process says, as a line."""
    return json.dumps({_NAMES[type(said)]: plain.plain(said)}, ensure_ascii=True, allow_nan=False)


def said_in(line: str, where: str) -> Line:
    """The same, read. Raises ConfigError."""
    found = plain.of_text(dict, line, where) if line.startswith("{") else {}
    if len(found) != 1 or (name := next(iter(found))) not in _KINDS:
        raise ConfigError(f"says something that is no line of an attempt process: {line[:60]!r}", where)
    said: Line = plain.read(_KINDS[name], found[name], where)
    return said


def order_of(text: str, where: str) -> Order:
    """An order, read strictly. Raises ConfigError."""
    return _of_version(Order, text, where)


def handed_of(text: str, where: str) -> Handed:
    """A handed-in attempt, read strictly. Raises ConfigError."""
    return _of_version(Handed, text, where)


def _of_version(kind: type[T], text: str, where: str) -> T:
    """Another version is told in words before any of its fields is looked at."""
    found = plain.of_text(dict, text, where)
    version = found.get("version")
    if version != VERSION:
        raise ConfigError(f"is of version {version!r}, and this program reads {VERSION}: update the older one", where)
    return plain.read(kind, found, where)
