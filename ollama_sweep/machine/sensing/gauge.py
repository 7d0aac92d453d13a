"""What one sensor says, and what a sensor is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

EVERY_S = 1.0
SELDOM_S = 10.0
"""How often a sensor is read for which a program must be started, or which changes slowly."""
PATIENCE_S = 10.0
PATIENCE_WITH_PROGRAMS_S = 45.0
"""A reading that lasts longer hangs; programs have deadlines of their own, and a reading may ask several."""


@dataclass(frozen=True)
class Gauge:
    """What one sensor says now: a counter of energy (J), or a power (W), and memory in use (bytes); None is unknown.

    `is_throttled`: heat or the supply holds the clock down, or has done so since the last reading. `is_shared`: a
    program of others computes on this GPU, which the engine uses as well. `waited_s` is a counter of the time in which
    some task waited (pressure), `percent` a battery's charge.
    """

    energy_j: float | None = None
    power_w: float | None = None
    used_bytes: int | None = None
    is_throttled: bool | None = None
    is_shared: bool | None = None
    busy_share: float | None = None
    celsius: float | None = None
    clock_mhz: float | None = None
    waited_s: float | None = None
    percent: float | None = None


class Sensor(Protocol):
    """Something that is read again and again; `every_s` is how often that is cheap enough.

    One that has failed, or whose reading has lasted longer than `patience_s`, `is_off` from then on, in later cells as
    well. One that `has_answered` before is told of. `kind` is cpu, gpu, pressure or battery.
    """

    every_s: float
    patience_s: float
    kind: str
    name: str
    is_off: bool
    has_answered: bool

    def read(self, pids: frozenset[int]) -> dict[str, Gauge]:
        """The gauges by name (a GPU, a processor). `pids` are the engine's. May raise anything, and may hang."""


class Base:
    """What holds for most sensors."""

    every_s = EVERY_S
    patience_s = PATIENCE_S
    is_off = has_answered = False


class Silent(Base):
    """A sensor that did not even let itself be found in time: it is never read, and told of once."""

    is_off = has_answered = True

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.name = kind, name

    def read(self, pids: frozenset[int]) -> dict[str, Gauge]:
        return {}


def number(path: Path, unit: float = 1.0) -> float | None:
    """The number in a file of the kernel, in our unit; None where it is absent, may not be read, or says none."""
    try:
        return float(path.read_text("ascii")) * unit
    except (OSError, ValueError):
        return None


def line(path: Path) -> str:
    """The text in a file of the kernel, "" where it cannot be read."""
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
