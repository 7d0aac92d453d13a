"""What happens during a sweep, for whoever shows it: the terminal now, a page or a notebook as well.

`arm` is `a` or `b` where two sweeps are measured in turns, the lane's name where several lanes measure one, "" else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.outcome import Outcome, Purpose, Status


@dataclass(frozen=True)
class SweepStarted:
    """Counts of cells: all of the sweep, those that have a final state already, and each status by itself.

    `seconds_left`: None is unknown.
    """

    name: str
    total: int
    done: int
    counts: Mapping[Status, int] = field(default_factory=dict)
    seconds_left: float | None = None


@dataclass(frozen=True)
class CellStarted:
    """`reason` says why it is this one where a planner chose it, "" for its turn in the plan."""

    cell: Cell
    attempt: int
    arm: str = ""
    reason: str = ""


@dataclass(frozen=True)
class RunFinished:
    """One generation ended; `number` counts from 1, warm-ups apart."""

    cell: Cell
    number: int
    warmup: bool
    rate: float | None
    arm: str = ""


@dataclass(frozen=True)
class CellFinished:
    """An attempt is in the database; `will_retry` says that the cell is tried again at once.

    So many further cells are the same configuration and take its result (`reused`).
    """

    cell: Cell
    outcome: Outcome
    duration_s: float
    will_retry: bool
    seconds_left: float | None = None
    reused: int = 0
    arm: str = ""


@dataclass(frozen=True)
class FurtherStarted:
    """A cell that has a value is loaded once more; `reason` says why in words."""

    cell: Cell
    purpose: Purpose
    reason: str
    attempt: int
    arm: str = ""


@dataclass(frozen=True)
class FurtherFinished:
    """What came of that is in the database; the cell keeps its place among those that are done."""

    cell: Cell
    outcome: Outcome
    duration_s: float
    will_retry: bool
    reason: str
    seconds_left: float | None = None
    arm: str = ""


@dataclass(frozen=True)
class Loaded:
    """A load without a prompt has ended, well or not, as the `number`-th of at most `most`.

    `result` is a word for it; `will_retry`: memory did not suffice, which is believed when it happens twice.
    """

    cell: Cell
    outcome: Outcome
    result: str
    duration_s: float
    number: int
    most: int
    will_retry: bool


@dataclass(frozen=True)
class Waiting:
    """The engine is not there; it is asked again after `seconds`."""

    reason: str
    seconds: float


@dataclass(frozen=True)
class OnHold:
    """No cell starts for now: a pause, quiet hours, …; `until` in local time, None where nobody knows."""

    reason: str
    until: datetime | None = None


@dataclass(frozen=True)
class GoingOn:
    """The hold is over."""


@dataclass(frozen=True)
class Drawing:
    """The pictures are being drawn; nothing is measured meanwhile."""


@dataclass(frozen=True)
class Drawn:
    """The drawing has ended, well or not."""


@dataclass(frozen=True)
class Drifted:
    """The control cell was measured again: how much faster (+) or slower (-) the machine is now, as a share.

    Beyond `limit` the cells that follow are flagged.
    """

    cell: Cell
    drift: float
    has_drifted: bool
    limit: float = 0.03
    arm: str = ""


@dataclass(frozen=True)
class Notice:
    """One line for the person."""

    text: str


@dataclass(frozen=True)
class SweepFinished:
    """No cell is pending, or the person stopped."""

    name: str
    stopped: bool


Event = (
    SweepStarted
    | CellStarted
    | RunFinished
    | CellFinished
    | FurtherStarted
    | FurtherFinished
    | Loaded
    | Drifted
    | Waiting
    | OnHold
    | GoingOn
    | Drawing
    | Drawn
    | Notice
    | SweepFinished
)


def of_part(event: Event, part: str, sweep: str) -> Event:
    """What happens in a sweep that is part of another one: with the part's word, and its end with the other's name."""
    match event:
        case SweepFinished():
            return replace(event, name=sweep)
        case Waiting():
            return replace(event, reason=f"{part}: {event.reason}")
        case Notice():
            return replace(event, text=f"{part}: {event.text}")
        case CellStarted() | RunFinished() | CellFinished() | FurtherStarted() | FurtherFinished() | Drifted():
            return replace(event, arm=part)
        case _:
            return event
