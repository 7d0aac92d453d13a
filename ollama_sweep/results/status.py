"""How far a sweep is, what it does now, how long it will take, what went wrong last. Never disturbs a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ollama_sweep.core.cell import model_label
from ollama_sweep.core.forecast import Forecast, controls_to_come, forecast, rests_s
from ollama_sweep.core.lanes.factors import LaneFactor, factors
from ollama_sweep.core.loading.controls import Rule
from ollama_sweep.results.find import find_sweep, pair_of
from ollama_sweep.results.grids import in_word
from ollama_sweep.store import beside
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.rows import SCOUT, SCOUT_OF, LeftOut
from ollama_sweep.store.scans import FITS, OOM, ScannedLoad, settings_of

if TYPE_CHECKING:
    from ollama_sweep.core.lanes.disturbance import Compared
    from ollama_sweep.core.noise.spread import Spreads
    from ollama_sweep.core.options import Scalar
    from ollama_sweep.core.outcome import Purpose, Status
    from ollama_sweep.results.likely.scouted import ScoutedMap
    from ollama_sweep.store.goals.keeping import KeptGoal
    from ollama_sweep.store.lanes.keeping import LaneRow
    from ollama_sweep.store.rows import FailedAttempt, Holder, InPair, SweepRow

SHOWN_ERRORS = 3


@dataclass(frozen=True)
class Running:
    """The attempt under way, and for how many seconds."""

    coordinates: Mapping[str, Scalar]
    attempt: int
    seconds: float


@dataclass(frozen=True)
class OtherSweep:
    """The sweep that a process measures in this database, where it is not the one that was asked for."""

    sweep: str
    pid: int


@dataclass(frozen=True)
class SweepStatus:
    """Where a sweep stands. `process` is the one that measures it now; `waiting` says for what it waits."""

    sweep: str
    engine: str
    machine: str
    config: str
    database: Path
    counts: Mapping[Status, int]
    running: Running | None
    next: Mapping[str, Scalar] | None
    process: Holder | None
    other_sweep: OtherSweep | None
    waiting: str
    is_paused: bool
    time: Forecast
    drift: float | None
    last_run_at: str
    log: Path | None
    errors: tuple[FailedAttempt, ...]
    spreads: Mapping[str, Spreads] = field(default_factory=dict)
    waiting_loads: Mapping[Purpose, int] = field(default_factory=dict)
    """Further loads of cells that are done, by what they are made for."""
    seconds: Mapping[Purpose | None, float] = field(default_factory=dict)
    """What the attempts of all sessions took, by what they were made for; None for the cells' own."""
    left_out: LeftOut = field(default_factory=LeftOut)
    """What `prune` leaves out."""
    missing_cells: int = 0
    """Cells that were called done and are not in this file."""
    memory: tuple[str, ...] = ()
    """What `run --scan` found, a line for each combination."""
    replays: str = ""
    """What a replayed sweep answers from: its times are those of a clock of its own."""
    pair: InPair | None = None
    """Which arm of which pair it is."""
    goal: KeptGoal | None = None
    """What the sweep is for; None for all of its cells."""
    scouted: ScoutedMap | None = None
    """What its scout says of cells that are not measured; None for a sweep that has none."""
    scouts_for: str = ""
    """The sweep that this one scouts for."""
    also_running: tuple[Running, ...] = ()
    """What other lanes measure beside `running`."""
    lanes: tuple[LaneRow, ...] = ()
    """The lanes of the sweep; none where it was measured in one process."""
    disturbance: Compared | None = None
    """Why what they have measured is flagged: they disturb each other."""
    factors: Mapping[str, LaneFactor] = field(default_factory=dict)
    """How many times as fast each of them is as all together."""

    @property
    def total(self) -> int:
        """All cells."""
        return sum(self.counts.values())

    @property
    def done(self) -> int:
        """The cells with a final state."""
        return sum(count for status, count in self.counts.items() if status.is_final)

    @property
    def failed(self) -> int:
        """The cells that gave no number."""
        return sum(count for status, count in self.counts.items() if status.is_failure)

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        process = self.process
        return {
            "sweep": self.sweep,
            "engine": self.engine,
            "machine": self.machine,
            "config": self.config,
            "database": str(self.database),
            "total": self.total,
            "done": self.done,
            "failed": self.failed,
            "counts": {str(status): count for status, count in self.counts.items()},
            "running": asdict(self.running) if self.running else None,
            **({"lanes": [_lane_dict(one, self.factors.get(one.name)) for one in self.lanes]} if self.lanes else {}),
            **({"disturbance": _disturbance_dict(self.disturbance)} if self.disturbance else {}),
            **({"also_running": [asdict(one) for one in self.also_running]} if self.also_running else {}),
            "next": self.next,
            "process": {"pid": process.pid, "since": process.since, "host": process.host} if process else None,
            "other_sweep": asdict(self.other_sweep) if self.other_sweep else None,
            "waiting": self.waiting,
            "paused": self.is_paused,
            **asdict(self.time),
            "drift": self.drift,
            "spreads": {name: one.as_dict() for name, one in self.spreads.items()},
            "waiting_loads": {str(purpose): count for purpose, count in self.waiting_loads.items()},
            "seconds": {str(purpose or "cells"): took for purpose, took in self.seconds.items()},
            "last_run_at": self.last_run_at,
            "missing_cells": self.missing_cells,
            "left_out": asdict(self.left_out),
            "memory": list(self.memory),
            **({"replays": self.replays} if self.replays else {}),
            "pair": asdict(self.pair) if self.pair else None,
            "goal": self.goal.as_dict() if self.goal else None,
            **({"scouted": self.scouted.as_dict()} if self.scouted else {}),
            **({"scouts_for": self.scouts_for} if self.scouts_for else {}),
            "log": str(self.log) if self.log else None,
            "errors": [
                {"coordinates": dict(error.coordinates), "status": str(error.status), "error": error.error}
                for error in self.errors
            ],
        }


def status(db: Path | str, sweep: str | None = None) -> SweepStatus:
    """The status of a sweep, by its name or file; left out, of the one that ran last. Raises ConfigError."""
    with Reader.open(Path(db)) as reader, reader.snapshot():
        return status_of(reader, find_sweep(reader, sweep))


def status_of(reader: Reader, row: SweepRow, *, is_quick: bool = False) -> SweepStatus:
    """The status of a sweep of an open database. `is_quick`: without `seconds`, which looks at every attempt."""
    counts = reader.counts(row.sweep_id)
    holder = reader.writer()
    other = _other_sweep(reader, row, holder) if holder else None
    process = None if other else holder
    running, *others = _running(reader, row) if process else [None]
    is_between = process is not None and running is None
    further = reader.waiting_loads(row.sweep_id)
    left = sum(count for status, count in counts.items() if not status.is_final) + sum(further.values())
    left -= reader.waiting_copies(row.sweep_id)
    goal = reader.goal(row.sweep_id)
    goal = None if goal is None or goal.goal.is_off else goal
    chooses = goal is not None and (not goal.goal.wants_all or bool(row.spec.get(SCOUT)))
    if chooses:
        left = sum(further.values()) if goal is not None and goal.has_ended else 0
    log = beside.log_path(reader.path)
    return SweepStatus(
        sweep=row.name,
        engine=row.engine,
        machine=row.machine,
        config=(row.in_pair.again if row.in_pair else "") or row.config_path,
        database=reader.path,
        counts={status: counts[status] for status in sorted(counts, key=_rank)},
        running=running,
        next=None if goal is not None else reader.next_cell(row.sweep_id),
        process=process,
        other_sweep=other,
        waiting=process.note if process else "",
        is_paused=beside.paused_since(reader.path) is not None,
        time=_time(reader, row, left, running, is_open=chooses, is_between=is_between, at_once=1 + len(others)),
        drift=next((drift for _, drift in reader.drifts(row.sweep_id, 1)), None),
        last_run_at=row.last_run_at,
        log=log if log.exists() else None,
        errors=tuple(reader.errors(row.sweep_id, SHOWN_ERRORS)),
        spreads=reader.spreads(row.sweep_id),
        waiting_loads=further,
        seconds={} if is_quick else reader.seconds(row.sweep_id),
        left_out=reader.left_out(row.sweep_id),
        missing_cells=reader.missing_cells(),
        memory=tuple(memory_words(reader.scanned_loads(row.sweep_id))),
        replays=str(row.spec.get("replays") or ""),
        pair=row.in_pair,
        goal=goal,
        scouted=_scouted(reader, row),
        scouts_for=str(row.spec.get(SCOUT_OF) or ""),
        lanes=tuple(reader.lanes(row.sweep_id)),
        disturbance=reader.disturbance(row.sweep_id),
        factors=factors(reader.control_rates(row.sweep_id)),
        also_running=tuple(one for one in others if one is not None),
    )


def _scouted(reader: Reader, row: SweepRow) -> ScoutedMap | None:
    if not row.spec.get(SCOUT):
        return None
    from ollama_sweep.results.likely.scouted import scouted_map

    return scouted_map(reader, row)


@dataclass(frozen=True)
class PairStatus:
    """Where both sweeps of a pair stand, which are measured in turns."""

    name: str
    arms: tuple[SweepStatus, ...]

    @property
    def total(self) -> int:
        """The cells of both."""
        return sum(arm.total for arm in self.arms)

    @property
    def done(self) -> int:
        """Those of both with a final state."""
        return sum(arm.done for arm in self.arms)

    @property
    def at(self) -> SweepStatus:
        """The arm that is measured now; else the first that is not done, else the last."""
        running = [arm for arm in self.arms if arm.running]
        return next(iter(running or [arm for arm in self.arms if arm.done < arm.total]), self.arms[-1])

    @property
    def seconds_left(self) -> float | None:
        """Of both together."""
        left = [arm.time.seconds_left for arm in self.arms]
        return None if None in left else sum(seconds or 0.0 for seconds in left)

    @property
    def text(self) -> str:
        """`Pair grid: a is num_thread 1, b is num_thread 2; 3 of 8 cells done`."""
        said = ", ".join(f"{arm.pair.letter} is {arm.pair.what}" for arm in self.arms if arm.pair)
        return f"Pair {self.name}: {said}; {self.done} of {self.total} cells done, in turns"

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        at = self.at
        return {
            "pair": self.name, "total": self.total, "done": self.done, "failed": sum(arm.failed for arm in self.arms),
            "seconds_left": self.seconds_left, "process": at.as_dict()["process"], "waiting": at.waiting,
            "paused": at.is_paused, "arms": [arm.as_dict() for arm in self.arms],
        }  # fmt: skip


def status_of_pair(reader: Reader, rows: Sequence[SweepRow]) -> PairStatus:
    """The status of both sweeps of a pair of an open database."""
    return PairStatus(pair_of(rows), tuple(status_of(reader, row) for row in rows))


def _time(
    reader: Reader,
    row: SweepRow,
    left: int,
    running: Running | None,
    *,
    is_open: bool,
    is_between: bool,
    at_once: int,
) -> Forecast:
    """What is left takes so long, `at_once` cells at a time; where a planner chooses (`is_open`) nobody knows how many
    cells there will be.
    """
    begun_s = running.seconds if running else 0.0
    passes = row.spec.get("passes")
    loads = sum(reader.counts(row.sweep_id).values()) * (passes if isinstance(passes, int) and passes > 1 else 1)
    rule, seen = Rule.stored(row.spec.get("control")), reader.controls_seen(row.sweep_id)
    found = forecast(
        reader.history(row.sweep_id),
        left,
        begun_s,
        _rests_s(reader, row, left if is_between else left - 1),
        reader.work_left(row.sweep_id),
        controls_to_come(rule, seen, left, loads, _rests_s(reader, row, 1)),
    )
    if is_open and not left:
        return Forecast(found.seconds_per_cell)
    left_s = (None if one is None else one / at_once
              for one in (found.seconds_left, found.seconds_left_low, found.seconds_left_high))  # fmt: skip
    return Forecast(found.seconds_per_cell, *left_s)


def _rests_s(reader: Reader, row: SweepRow, cells: int) -> float:
    """How long so many cells will rest before they begin; nothing for a sweep that has no cool-down."""
    wanted = row.spec.get("cooldown")
    if not isinstance(wanted, dict) or not any(wanted.values()):
        return 0.0
    return rests_s(wanted.get("seconds"), reader.rests(row.sweep_id), cells)


def _rank(status: Status) -> tuple[bool, int]:
    """What is finished comes first."""
    return not status.is_final, list(type(status)).index(status)


def _other_sweep(reader: Reader, row: SweepRow, holder: Holder) -> OtherSweep | None:
    last = reader.last_sweep()
    if last is None or last.sweep_id == row.sweep_id or pair_of([row, last]):
        return None
    return OtherSweep(last.name, holder.pid)


def _lane_dict(lane: LaneRow, factor: LaneFactor | None) -> dict[str, object]:
    return {**asdict(lane), "factor": None if factor is None else asdict(factor)}


def _disturbance_dict(found: Compared) -> dict[str, object]:
    of = found.disturbance
    return {"lanes": [lane.name for lane in found.lanes], "coordinates": dict(found.coordinates), "alone": of.alone,
            "beside": of.beside, "share": of.share, "by_chance": of.limit, "loads": len(found.alone),
            "measured_at": found.measured_at}  # fmt: skip


def _running(reader: Reader, row: SweepRow) -> list[Running | None]:
    """What is measured now, one for each lane; None where that is nothing."""
    found: list[Running | None] = []
    for one in reader.under_way(row.sweep_id):
        seconds = (datetime.now(UTC) - datetime.fromisoformat(one.started_at)).total_seconds()
        is_seen = not row.spec.get("replays")  # it began by a clock that nobody sees from here
        found.append(Running(one.coordinates, one.number, max(0.0, seconds) if is_seen else 0.0))
    return found or [None]


# -- what `run --scan` found ------------------------------------------------------------------------------------------


def memory_words(loads: Sequence[ScannedLoad]) -> list[str]:
    """A line for each combination: how far the model fits, and how far it stays on the GPU where that is less."""
    combinations = dict.fromkeys(load.combination for load in loads)
    lines = []
    for combination in combinations:
        found = list(settled(load for load in loads if load.combination == combination))
        whose = f" of {_label(combination)}" if len(combinations) > 1 else ""
        lines.append(f"Memory{whose}: {_reach(found)} (scanned)")
    return lines


def _reach(found: Sequence[ScannedLoad]) -> str:
    fitted = [load for load in found if load.is_loaded]
    if not fitted:
        return "no load fitted"
    words = f"fits up to {place_words(_largest(fitted))}"
    on_gpu = [load for load in fitted if load.result == FITS]
    if len(on_gpu) == len(fitted):
        return words
    return (
        f"{words}, on the GPU up to {place_words(_largest(on_gpu))}" if on_gpu else f"{words}, no load all on the GPU"
    )


def _largest(loads: Sequence[ScannedLoad]) -> ScannedLoad:
    return max(loads, key=lambda load: (load.num_ctx, load.num_batch))


def _label(combination: str) -> str:
    model, *rest = settings_of(combination).items()
    return ", ".join([model_label(str(model[1])), *(f"{name} {in_word(value)}" for name, value in rest)])


def settled(loads: Iterable[ScannedLoad]) -> Iterator[ScannedLoad]:
    """The last load of each place, without one that ran out of memory once: that is believed when it happens twice."""
    last: dict[tuple[int, int], tuple[ScannedLoad, int]] = {}
    for load in loads:
        place = load.num_ctx, load.num_batch
        last[place] = load, (last[place][1] if place in last else 0) + (load.result == OOM)
    yield from (load for load, times in last.values() if load.result != OOM or times > 1)


def place_words(load: ScannedLoad) -> str:
    """`num_ctx 8192 with num_batch 512`; without what is left to the engine."""
    found = [f"{name} {value}" for name, value in (("num_ctx", load.num_ctx), ("num_batch", load.num_batch)) if value]
    return " with ".join(found) or "the engine's own sizes"
