"""The loop: pending -> attempt -> commit. It emits events and prints nothing.

Each cell is two commits: `begin_attempt` before anything is started, `finish_attempt` with everything that came of
it. Whatever dies in between costs that cell and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from ollama_sweep.core import judge
from ollama_sweep.core.cell import Cell
from ollama_sweep.core.crashpoints import reached
from ollama_sweep.core.errors import (
    PARSER,
    ConfigError,
    EngineStuck,
    EngineUnavailable,
    Stopped,
    StorageError,
    SweepError,
)
from ollama_sweep.core.events import (
    CellFinished,
    CellStarted,
    FurtherFinished,
    FurtherStarted,
    GoingOn,
    Notice,
    OnHold,
    SweepFinished,
    SweepStarted,
    Waiting,
)
from ollama_sweep.core.forecast import NO_CONTROLS, Controls, WorkLeft, controls_to_come, forecast, rests_s
from ollama_sweep.core.ledger import Ledger
from ollama_sweep.core.loading.change import is_more_than_reloads
from ollama_sweep.core.outcome import RETRIED, SURE_AGAIN, Flag, Outcome, Status
from ollama_sweep.core.surface.goal import Runs
from ollama_sweep.core.units import format_duration
from ollama_sweep.engines.base import Engine, EngineInfo
from ollama_sweep.machine.clocks import REAL, Clock
from ollama_sweep.machine.conditions import Wait
from ollama_sweep.machine.files import write_whole
from ollama_sweep.machine.secrets import masked
from ollama_sweep.plan.spec import SweepSpec
from ollama_sweep.run.attempt import Measuring, unbroken
from ollama_sweep.run.cooling import CoolDown
from ollama_sweep.run.drift import DriftWatch
from ollama_sweep.run.memory.watch import MemoryWatch
from ollama_sweep.run.planners.steering import Steering
from ollama_sweep.run.stopping import StopNow, Stopping
from ollama_sweep.run.turns import Beside, FurtherTurn, OwnTurn, Turn
from ollama_sweep.run.waiting import FIRST_WAIT_S, LONGEST_WAIT_S, Emit, pause, stopped, wait_for
from ollama_sweep.run.words import versions
from ollama_sweep.store.lanes.keeping import Leased
from ollama_sweep.store.loads.further import FurtherLoad
from ollama_sweep.store.rows import PendingCell
from ollama_sweep.store.writer import Store

T = TypeVar("T")
BUGS_IN_A_ROW = 3
DISK_WAIT_S = 60.0
CLOCK_JUMP_S = 10.0


def rescue(database: Path, key: str, cell: Cell, outcome: Outcome) -> str:
    """Write a cell that the database would not take to a file beside it; a sentence that says where, or "".

    `recover` takes such files over.
    """
    content = {"key": key, "cell": asdict(cell), "outcome": asdict(outcome)}
    file = database.with_name(f"{database.name}.rescued-{time.strftime('%Y%m%d-%H%M%S')}.json")
    try:
        write_whole(file, json.dumps(content, default=sorted, indent=1).encode())
    except StorageError:
        return ""
    return f"The cell at hand was saved to {file}"


def _sentences(error: Exception, more: str) -> str:
    return f"{str(error).rstrip('.')}. {more}" if more else str(error)


def surroundings(info: EngineInfo, machine: Mapping[str, str]) -> dict[str, str]:
    """The fingerprint beside a cell's key: what changes numbers without being asked for."""
    library = {name: info.details[name] for name in ("library_digest",) if name in info.details}
    found = {"engine": info.name, "engine_version": info.version, **library, **machine}
    return {name: masked(value) for name, value in found.items()}


@dataclass(frozen=True)
class ShieldedLedger:
    """The store's ledger for engines: its commits are never cut short by a signal."""

    store: Ledger
    stopping: Stopping

    def record(self, kind: str, name: str, details: Mapping[str, str]) -> int:
        with self.stopping.shielded():
            return self.store.record(kind, name, details)

    def settle(self, number: int) -> None:
        """Trouble with the database is left to what is stored next; the next run then finds it gone already."""
        with self.stopping.shielded(), contextlib.suppress(StorageError):
            self.store.settle(number)


def _started(turn: Turn, cell: Cell, tried: int) -> CellStarted | FurtherStarted:
    if turn.further is None:
        reason = f"{turn.chosen.reason} ({turn.chosen.how_far})" if turn.chosen and not tried else ""
        return CellStarted(cell, turn.attempts + tried + 1, reason=reason)
    return FurtherStarted(cell, turn.further.purpose, turn.further.reason, tried + 1)


def _finished(
    turn: Turn, cell: Cell, outcome: Outcome, duration_s: float, retry: bool, seconds_left: float | None, reused: int
) -> CellFinished | FurtherFinished:
    if turn.further is None:
        return CellFinished(cell, outcome, duration_s, retry, seconds_left, reused)
    return FurtherFinished(cell, outcome, duration_s, retry, turn.further.reason, seconds_left)


@dataclass(frozen=True)
class Begun:
    """An attempt that the database knows of, before anything is done; `tried` are those at this cell before it, in this
    turn."""

    turn: Turn
    cell: Cell
    tried: int
    attempt_id: int
    beside: Beside


@dataclass
class Execution:
    """One `run`: the sweep's cells by their position in the plan, and everything that measures and keeps them."""

    store: Store
    sweep_id: int
    spec: SweepSpec
    cell_at: Callable[[int], Cell]
    measuring: Measuring
    engine: Engine
    stopping: Stopping
    emit: Emit
    machine: Mapping[str, str] = field(default_factory=dict)
    wait_engine_s: float = 600.0
    wait_disk_s: float = 600.0
    clock: Clock = REAL
    drift: DriftWatch | None = None
    cooling: CoolDown | None = None
    memory: MemoryWatch | None = None
    may_start: Callable[[], Wait | None] = lambda: None
    following: Callable[[], FurtherLoad | None] = lambda: None
    left_beside: Callable[[], float | None] = lambda: 0.0
    watches_clock: bool = True
    steering: Steering | None = None
    same_version: bool = False
    """Another version of the engine is refused, and opens no new segment."""
    _was: Mapping[str, object] | None = None
    """What the sweep was measured in, once that was asked."""
    _engine_version: str = ""
    _bugs: int = 0
    _missed: int = 0
    _missed_since: float = 0.0
    _day_ahead_s: float | None = None
    _waiting: int | None = None
    """Pending cells that take the result of another one."""
    _work: tuple[int, WorkLeft] = (0, WorkLeft())

    def run(self) -> None:
        """Measure until no cell is pending. Raises Stopped, StorageError, EngineUnavailable, SweepError for a bug."""
        self.emit(self.started())
        try:
            while (turn := self._next()) is not None:
                self.take(turn)
        finally:
            self.correct()
        self.look_at_clock()
        self.emit(SweepFinished(self.spec.name, stopped=False))

    def started(self) -> SweepStarted:
        """Where the sweep stands before its first cell."""
        counts, total, done = self._counts()
        return SweepStarted(self.spec.name, total, done, counts, self.seconds_left(begins=True))

    def take(self, turn: Turn) -> None:
        """Measure one load, once nothing holds it up. Raises as `run`."""
        if self.stopping.requested:
            self._stop()
        self._hold()
        self._measure(turn)

    def correct(self) -> None:
        """By what the controls say of the drift."""
        if self.drift is not None and not self.stopping.now:
            self.drift.correct()

    def _next(self) -> Turn | None:
        """A pending cell, or a cell that wants a further load; None where nothing is left."""
        return self.own_turn() or self.further_turn()

    def own_turn(self) -> OwnTurn | None:
        """The pending cell whose turn is next, by the order of the plan, or by a planner for a goal."""
        chosen = self.steering.next() if self.steering is not None else None
        pending = chosen.pending if chosen is not None else None
        if self.steering is None:
            pending = self._pending()
        if pending is None:
            return None
        turn = self.memory.turn(pending) if self.memory else pending
        if chosen is None or turn is not pending:
            return OwnTurn(self.store, self.sweep_id, turn, self.spec.timeout_s)
        return OwnTurn(self.store, self.sweep_id, turn, self.spec.timeout_s, None, chosen.why, chosen.runs)

    def _pending(self) -> PendingCell | None:
        """The cell whose turn is next by the order of the plan."""
        return self.store.next_pending(self.sweep_id)

    def further_turn(self, load: FurtherLoad | None = None) -> FurtherTurn | None:
        """This further load, or else the one that is next once no cell is pending."""
        load = load or self.following()
        return None if load is None else FurtherTurn(self.store, self.sweep_id, load, self.spec.timeout_s)

    def _counts(self) -> tuple[Mapping[Status, int], int, int]:
        """Cells by status, all of them, and those that have a final state."""
        counts = self.store.counts(self.sweep_id)
        return counts, sum(counts.values()), sum(count for status, count in counts.items() if status.is_final)

    def _all_seconds_left(self) -> float | None:
        """Of this sweep, and of the one that it is measured in turns with."""
        own, beside = self.seconds_left(), self.left_beside()
        return None if own is None or beside is None else own + beside

    def seconds_left(self, *, begins: bool = False) -> float | None:
        """With the rests between the cells; there is none before the first."""
        _, total, done = self._counts()
        if self.steering is not None and not self.steering.wants_all:
            return None
        if self._waiting is None:
            self._waiting = self.store.waiting_copies(self.sweep_id)
        wanted, left = self.spec.cooldown, total - done - self._waiting
        seen = self.store.rests(self.sweep_id) if wanted.gpu_c is not None else []
        resting_s = rests_s(wanted.seconds, seen, left - 1 if begins else left)
        controls = self._controls(left, total * self.spec.passes, rests_s(wanted.seconds, seen, 1))
        history = self.store.history(self.sweep_id)
        return forecast(history, left, 0.0, resting_s, self._work_left(left), controls).seconds_left

    def _controls(self, left: int, loads: int, rest_s: float) -> Controls:
        if self.drift is None:
            return NO_CONTROLS
        seen = self.store.controls_seen(self.sweep_id)
        return controls_to_come(self.spec.control_rule, seen, left, loads, rest_s)

    def _work_left(self, left: int) -> WorkLeft:
        """What the cells to come ask and need, in what shares; looked at anew when a twentieth of them is done."""
        if not is_more_than_reloads(self.spec.dimensions):
            return WorkLeft()
        of, shares = self._work
        if not 0.95 * of < left <= of:
            shares = self.store.work_left(self.sweep_id)
            self._work = left, shares
        return shares

    def _taken(self, turn: Turn, outcome: Outcome, retry: bool) -> int:
        """How many further cells take this result, as the same configuration."""
        if retry or turn.further is not None or not outcome.status.counts:
            return 0
        reused = self.store.copies(turn.cell_id)
        self._waiting = max(0, (self._waiting or 0) - reused)
        return reused

    def _hold(self) -> None:
        """A rest; then, while the person or the surroundings ask for quiet, nothing is loaded and nothing starts."""
        if self.cooling is not None:
            self.cooling.before_cell()
        said = None
        while (wait := self.may_start()) is not None:
            if said is None:
                self.unload()
            if wait.reason != said:
                self.emit(OnHold(wait.reason, wait.until))
                said = wait.reason
            pause(wait.again_s, self.stopping, REAL if wait.is_for_others else self.clock)
        if said is not None:
            self.emit(GoingOn())

    def unload(self) -> None:
        """Nothing of this engine is loaded any more. Raises Stopped."""
        with contextlib.suppress(EngineUnavailable):
            try:
                with self.stopping.interruptible():
                    self.engine.release(failed=False)
            except StopNow:
                self._stop()

    def _stop(self) -> None:
        self.emit(SweepFinished(self.spec.name, stopped=True))
        raise stopped(self.stopping)

    # -- one cell ------------------------------------------------------------------------------------------------

    def _measure(self, turn: Turn) -> None:
        """Attempts at one cell until one counts and needs no retry."""
        cell = self.cell_at(turn.position)
        self.look_at_clock()
        self._look_at_engine()
        if turn.further is not None:
            self.unload()  # what is loaded by chance would be no further load
        for tried in range(self.spec.retries + 1):
            retry = self._attempt(turn, cell, tried)
            if not retry or self.stopping.requested:
                break
        self._look_for_drift()
        if self.cooling is not None:
            self.cooling.after_cell()

    def look_at_clock(self) -> None:
        """Durations are measured by a clock that nobody sets; times of day, and what is reckoned from them, are not."""
        if not self.watches_clock:
            return
        before_s, self._day_ahead_s = self._day_ahead_s, self.clock.day_ahead_s()
        jump_s = 0.0 if before_s is None else self._day_ahead_s - before_s
        if abs(jump_s) > CLOCK_JUMP_S:
            way = "forward" if jump_s > 0 else "back"
            self.emit(Notice(f"Warning: the computer's clock was set {way} by {format_duration(abs(jump_s))}: times of "
                             "day in the database jump here; what was measured is not touched"))  # fmt: skip

    def _look_for_drift(self) -> None:
        if self.drift is None or self.stopping.requested:
            return
        try:
            self.drift.after_cell()
        except StopNow:
            self._stop()
        except EngineUnavailable as error:
            self._wait_for_engine(error)

    def _look_at_engine(self) -> None:
        """Before anything is recorded the engine must answer; another version than before opens a new segment.

        Raises ConfigError where that is not wanted.
        """
        info = wait_for(self.engine.describe, self.stopping, self.emit, self.wait_engine_s, clock=self.clock)
        self._engine_version = info.version
        now = surroundings(info, self.machine)
        if self.same_version:
            self._was = self._was or self.store.measured_in(self.sweep_id)
            if self._was is not None and (words := versions.other_engine(self._was, now)):
                raise ConfigError(words, versions.OPTION)
        _, changed = self.store.segment(self.sweep_id, now)
        for change in changed:
            self.emit(Notice(f"The surroundings changed ({change}): cells from now on belong to a new segment"))

    def _attempt(self, turn: Turn, cell: Cell, tried: int) -> bool:
        """One attempt, committed; true where the cell is to be tried again at once."""
        begun = self.begin(turn, cell, tried)
        started = self.clock.monotonic_s()
        try:
            outcome = unbroken(lambda: self._outcome(cell, begun.beside, turn.runs), self.clock, self.stopping.stops)
        except StopNow:
            turn.give_up(begun.attempt_id, "stopped")
            self._stop()
        except EngineUnavailable as error:
            reason = "stuck" if isinstance(error, EngineStuck) else "engine_unavailable"
            turn.give_up(begun.attempt_id, reason, str(error))
            self._wait_for_engine(error)
            return False
        took_s, self._missed = self.clock.monotonic_s() - started, 0
        retry = self.finish(begun, outcome, took_s, self._engine_version, self._flags())
        if outcome.status is not Status.OK:
            self._bring_to_rest()
        reached("after_release")
        return retry

    def _flags(self) -> frozenset[Flag]:
        """What is true of whatever is measured now."""
        drifted = {Flag.DRIFTED} if self.drift is not None and self.drift.has_drifted else set()
        warm = {Flag.WARM} if self.cooling is not None and self.cooling.is_warm else set()
        return frozenset(drifted | warm)

    def begin(self, turn: Turn, cell: Cell, tried: int, leased: Leased | None = None) -> Begun:
        """The first commit, before anything is started. Raises StorageError, Stopped."""
        beside = turn.beside()
        reached("before_begin")
        attempt_id = self._when_there_is_room(partial(turn.begin, leased))
        self.emit(_started(turn, cell, tried))
        reached("after_begin")
        return Begun(turn, cell, tried, attempt_id, beside)

    def finish(self, begun: Begun, outcome: Outcome, took_s: float, version: str, flags: frozenset[Flag]) -> bool:
        """The second commit, with everything that came of it; true where the cell is to be tried again at once.

        `version` is that of the engine; `flags` hold where there is a number. Raises StorageError, Stopped, and
        SweepError where cell after cell meets a bug.
        """
        turn, cell, attempt_id = begun.turn, begun.cell, begun.attempt_id
        if outcome.status is Status.OK:
            outcome = replace(outcome, flags=outcome.flags | flags)
        if judge.is_unstable(outcome.status, self.store.former_statuses(turn.cell_id)):
            outcome = replace(outcome, flags=outcome.flags | {Flag.UNSTABLE})
        may_differ = outcome.status in RETRIED and outcome.reason not in SURE_AGAIN
        retry = may_differ and begun.tried < self.spec.retries
        reached("before_finish")
        self._save(turn, attempt_id, cell, outcome, retry)
        reached("after_finish")
        reused = self._taken(turn, outcome, retry)
        self.emit(_finished(turn, cell, outcome, took_s, retry, self._all_seconds_left(), reused))
        if self.memory is not None:
            self._when_there_is_room(partial(self.memory.after, turn, cell, attempt_id, outcome, version))
        if not retry:
            self._check_for_bugs(outcome)
        return retry

    def _save(self, turn: Turn, attempt_id: int, cell: Cell, outcome: Outcome, retry: bool) -> None:
        """Commit; what cannot be stored goes to a file beside the database."""
        key = turn.key
        try:
            self._when_there_is_room(lambda: turn.finish(attempt_id, outcome, retry=retry))
        except StorageError as error:
            text = _sentences(error, rescue(self.store.path, key, cell, outcome))
            if self.stopping.now:
                raise Stopped(text, self.stopping.signal_number or 2) from error
            raise StorageError(text) from error
        except Stopped as stop:
            text = _sentences(stop, rescue(self.store.path, key, cell, outcome))
            raise Stopped(text, stop.exit_code - 128) from None

    def _when_there_is_room(self, store: Callable[[], T]) -> T:
        """Store something; a full disk is waited for. Raises StorageError, Stopped."""
        until = REAL.monotonic_s() + self.wait_disk_s
        while True:
            try:
                return store()
            except StorageError as error:
                if not error.no_space or REAL.monotonic_s() >= until:
                    raise
                self.emit(Waiting(str(error), DISK_WAIT_S))
            pause(DISK_WAIT_S, self.stopping)

    def _outcome(self, cell: Cell, beside: Beside, wanted: Runs) -> Outcome:
        with self.stopping.interruptible():
            return self.measuring.outcome(cell, beside, wanted)

    # -- the surroundings ----------------------------------------------------------------------------------------

    def _bring_to_rest(self) -> None:
        """After a failure nothing of it may touch the next cell."""
        try:
            with self.stopping.interruptible():
                self.engine.release(failed=True)
        except StopNow:
            self._stop()
        except EngineUnavailable as error:
            self._wait_for_engine(error)

    def _wait_for_engine(self, error: EngineUnavailable) -> None:
        """An engine that answers and refuses the cell all the same is away too: its time runs until an attempt ends."""
        if not self._missed:
            self._missed_since = self.clock.monotonic_s()
        left_s = self._missed_since + self.wait_engine_s - self.clock.monotonic_s()
        first_wait_s = min(FIRST_WAIT_S * 2 ** min(self._missed, 10), LONGEST_WAIT_S)
        self._missed += 1
        wait_for(self.engine.describe, self.stopping, self.emit, left_s, error, first_wait_s, self.clock)
        self.emit(Notice("The engine answers again"))

    def _check_for_bugs(self, outcome: Outcome) -> None:
        """Of cells in a row whose last attempt met one."""
        self._bugs = self._bugs + 1 if outcome.reason in ("bug", PARSER) else 0
        if self._bugs >= BUGS_IN_A_ROW:
            raise SweepError(f"{BUGS_IN_A_ROW} cells in a row met a bug of this program. The last:\n{outcome.error}")
