"""What goes into the database and comes out of it, as plain dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.noise.spread import Load
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Effective, Flag, Purpose, Run, Status

PAIR = "pair"
"""What the settings of a sweep that is an arm of a pair have of that: `letter`, `pair` (its name) and `what`."""

SCOUT, SCOUT_OF = "scout", "scout_of"
"""The same: the name of the sweep that scouts for it by context swap, and of a scout the name of the one it scouts."""

DIED, REBOOT, PARKED = "died", "reboot", "parked"
"""Reasons of interrupted attempts (the first two are unexplained deaths), and of a cell with three of those."""
DEATHS_UNTIL_PARKED = 3


def scout_of(name: str) -> str:
    """The name of the sweep that scouts for this one."""
    return f"{name}.scout"


@dataclass(frozen=True)
class InPair:
    """Which arm of which pair a sweep is: `a` or `b`, the pair's name, and what this arm has of its own, in words.

    `again` is what `run` takes in place of a sweep file, "" where the file says all.
    """

    letter: str
    pair: str
    what: str
    again: str = ""


def in_pair(spec: Mapping[str, object]) -> InPair | None:
    """What the settings of a sweep say of that; None for one that is measured alone."""
    found = spec.get(PAIR)
    if not isinstance(found, dict) or found.get("letter") not in ("a", "b"):
        return None
    return InPair(str(found["letter"]), *(str(found.get(name, "")) for name in ("pair", "what", "again")))


@dataclass(frozen=True)
class SweepHeader:
    """A sweep as `run` registers it.

    `engine` is the one that runs (never `auto`); `spec` a JSON-ready picture of the settings, for people and for
    "what changed"; `plan_fingerprint` changes exactly when the materialised plan has to be made again;
    `machine` one line about the computer; `dimensions` the swept names, outermost first.
    """

    name: str
    engine: str
    config_path: str
    spec: Mapping[str, object]
    plan_fingerprint: str
    machine: str
    dimensions: tuple[str, ...]


@dataclass(frozen=True)
class PlannedCell:
    """A cell of the plan with its key; `status` is PENDING, or SKIPPED with a reason (`does_not_fit`).

    `frontier` is the number, from 1, of a frontier of memory beyond which the cell lies: it comes last. `same_as` is
    the key of an earlier cell that is the same configuration, where those are measured once.
    """

    key: str
    cell: Cell
    model_digest: str
    prompt_hash: str
    quantization: str | None = None
    parameter_size: str | None = None
    status: Status = Status.PENDING
    reason: str = ""
    frontier: int = 0
    same_as: str = ""


@dataclass(frozen=True)
class LeftOut:
    """What a plan leaves out for want of memory: how many places, because of how many witnesses."""

    cells: int = 0
    witnesses: int = 0


@dataclass(frozen=True)
class StoredAttempt:
    """An attempt with everything that is stored of it, as `verify` makes its numbers again.

    `numbers` are the columns of its summary, `scores` the further ones, `score_rows` the same once more, of the table
    `scores`. `raws` are the outputs by part, `loads` what the load said by metric. `identity` is what the key of the
    cell was made of, but for the task's version. `engine_version` is "" where it is not known; `is_sealed`: it has a
    checksum.
    """

    attempt_id: int
    cell_id: int
    number: int
    status: Status
    reason: str
    engine: str
    engine_version: str
    task: str
    key: str
    is_sealed: bool
    numbers: Mapping[str, float | None]
    scores: Mapping[str, float]
    score_rows: Mapping[str, float]
    runs: tuple[Run, ...]
    raws: Mapping[str, str]
    loads: Mapping[str, Load]
    identity: Mapping[str, str]


@dataclass(frozen=True)
class PendingCell:
    """The next cell to measure: where it stands and how many attempts it had that count."""

    cell_id: int
    key: str
    position: int
    attempts: int


@dataclass(frozen=True)
class SweepRow:
    """A registered sweep as read back. Times are ISO 8601 in UTC; `pid` that of the process that ran it last."""

    sweep_id: int
    name: str
    engine: str
    config_path: str
    spec: Mapping[str, object]
    plan_fingerprint: str
    machine: str
    dimensions: tuple[str, ...]
    created_at: str
    last_run_at: str
    pid: int | None

    @property
    def in_pair(self) -> InPair | None:
        """Which arm of which pair it is; None for a sweep that is measured alone."""
        return in_pair(self.spec)


@dataclass(frozen=True)
class RunningAttempt:
    """The attempt that has begun and not ended. Where no process holds the database, it died with its process."""

    cell: str
    number: int
    started_at: str
    coordinates: Mapping[str, Scalar] = field(default_factory=dict)
    pid: int | None = None


@dataclass(frozen=True)
class ControlCell:
    """The cell that is measured again to see drift: where it stands, and its first rate in tokens/s."""

    cell_id: int
    position: int
    prompt_eval_rate: float


@dataclass(frozen=True)
class AttemptRow:
    """One attempt of a cell's history. `segment` numbers the surroundings it was measured in; `repeats` are the runs it
    was to have, and `effective` is what the engine really used. `purpose` is None for the cell's own load; the numbers
    speak for `loads` loads."""

    attempt_id: int
    sweep: str
    number: int
    status: Status
    reason: str
    error: str
    flags: frozenset[Flag]
    runs: int
    prompt_eval_rate: float | None
    timeout_s: float | None
    started_at: str
    finished_at: str | None
    segment: int | None
    repeats: int
    effective: Effective
    purpose: Purpose | None = None
    loads: int = 1


@dataclass(frozen=True)
class FailedAttempt:
    """One of the last errors of a sweep."""

    coordinates: Mapping[str, Scalar]
    status: Status
    reason: str
    error: str
    finished_at: str


@dataclass(frozen=True)
class Holder:
    """The process that holds a database for writing. `since` is ISO 8601 in UTC; 0 and "" where it left no word.

    `note` is what it waits for now, "" while it measures. `hears_signals` is false for a thread of a program that a
    signal would end.
    """

    pid: int = 0
    since: str = ""
    host: str = ""
    note: str = ""
    hears_signals: bool = True
