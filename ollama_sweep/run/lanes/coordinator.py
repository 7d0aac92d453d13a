"""The loop over several lanes: which cell next and where, what came of it, which lanes are left. The only writer.

What is decided of a cell is what `run.loop` decides; here it is begun on a lane and finished when its result comes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.crashpoints import reached
from ollama_sweep.core.errors import ConfigError, EngineUnavailable, StorageError
from ollama_sweep.core.events import (
    Event,
    GoingOn,
    Notice,
    OnHold,
    RunFinished,
    SweepFinished,
    Waiting,
    of_part,
)
from ollama_sweep.core.lanes.lane import ADDRESS, Standing, differences
from ollama_sweep.core.lanes.order import (
    Away,
    Gone,
    Handed,
    HandedIn,
    Line,
    Note,
    Order,
    Ready,
    Resting,
    RunMade,
)
from ollama_sweep.core.outcome import Flag, Outcome, Purpose, Status
from ollama_sweep.core.units import format_duration
from ollama_sweep.machine.clocks import REAL
from ollama_sweep.run.drift import MOST_PAUSES, PAUSE_S
from ollama_sweep.run.lanes import taking
from ollama_sweep.run.lanes.fleet import Fleet
from ollama_sweep.run.lanes.side import Doing, Side
from ollama_sweep.run.loop import Begun, Execution
from ollama_sweep.run.turns import ControlTurn, Turn
from ollama_sweep.run.words import versions
from ollama_sweep.store.lanes.keeping import Leased, State
from ollama_sweep.store.lanes.versions import VERSION, versions_in
from ollama_sweep.store.memory.failures import FreeMemory
from ollama_sweep.store.rows import PendingCell

LOOK_S = 0.2
"""So often the surroundings are looked at where no lane says anything."""
TOGETHER_S = 10.0
"""So long lanes are waited for before the class of the sweep is chosen among those that answer."""
DEATHS_OF_A_LANE = 6
"""In a row. A cell that kills whoever measures it is parked after three."""
CUT_S, END_S = 30.0, 90.0
"""How long a lane may take to hand in what was cut short, and to end: a model is unloaded, a server stopped."""


@dataclass
class Coordinator(Execution):
    """One `run` over several lanes. `sides` are in the order of the file; `digests` are those of the survey."""

    sides: Sequence[Side] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    database: str = ""
    _kind: Mapping[str, str] | None = None
    _speaks: str = ""
    _tried: dict[tuple[int, int], tuple[int, str]] = field(default_factory=dict)
    """Of a cell (and its further load) that is tried again: how often it was, and on which lane last."""
    _control_is_due: bool = False
    _pauses: int = 0
    _held_until_s: float = 0.0
    _held_for: str = ""
    _began_s: float = 0.0
    _stops_for: str = ""
    _for: Side | None = None
    _looked_s: float = 0.0

    def __post_init__(self) -> None:
        self._fleet = Fleet(self.sides)
        hear = self.emit
        self.emit = lambda event: hear(self._worded(event))
        for side in self.sides:
            side.memory = replace(self.memory) if self.memory is not None else None

    def _worded(self, event: Event) -> Event:
        return of_part(event, self._speaks, self.spec.name) if self._speaks else event

    def _as(self, side: Side, event: Event) -> None:
        """Say what happens on a lane."""
        self._speaks = side.lane.name
        try:
            self.emit(event)
        finally:
            self._speaks = ""

    def run(self) -> None:
        """See `Execution.run`. Raises EngineUnavailable as well where no lane is left."""
        self.emit(self.started())
        self._began_s = REAL.monotonic_s()
        try:
            for side in self._wanted() if self._fleet.is_outlived or self._anything_left() else ():
                self._begin(side)
            while not self._is_over():
                self._look()
        finally:
            self._end_all()
            self.correct()
        self.look_at_clock()
        self.emit(SweepFinished(self.spec.name, stopped=False))

    def seconds_left(self, *, begins: bool = False) -> float | None:
        """Shared out among the lanes that are left."""
        alone = super().seconds_left(begins=begins)
        return None if alone is None else alone / max(1, self._fleet.hoped_for)

    def unload(self) -> None:
        for side in self._fleet.free():
            if not side.is_released:
                side.connection.release()
                side.is_released = True

    # -- lanes -----------------------------------------------------------------------------------------------------

    def _wanted(self) -> Iterator[Side]:
        """As many lanes as there are cells; one that a dead run has left at work is waited for all the same."""
        cells = self.store.counts(self.sweep_id).get(Status.PENDING, 0) * int(self.spec.settings.get("passes") or 1)
        cells += sum(self.store.waiting_loads(self.sweep_id).values())
        for number, side in enumerate(self.sides):
            if number < max(1, cells) or side.outlived is not None:
                yield side
                continue
            self._fleet.set_spare(side, is_spare=True)
            self._as(side, Notice("has nothing to do: there are fewer cells than lanes"))

    def _begin(self, side: Side) -> None:
        """Start its process, unless one of a dead run is still there."""
        side.is_ready = side.is_idle = side.is_away = side.is_cut = side.is_released = False
        side.why_gone = None
        if side.outlived is not None:
            return
        self._keep(side, State.STARTS)
        try:
            side.connection.begin(side.post)
            self._fleet.listen(side)
        except EngineUnavailable as error:
            self._leave_out(side, str(error))

    def _keep(self, side: Side, state: State, says: str = "") -> None:
        """What readers are told of a lane; trouble with the database is for whoever meets it first."""
        if (state, says) == side.is_known_as:
            return
        fingerprint = side.standing.fingerprint if side.standing is not None else {}
        with contextlib.suppress(StorageError):
            self.store.keep_lane(self.sweep_id, side.lane, state, says, fingerprint)
            side.is_known_as = state, says

    def _leave_out(self, side: Side, why: str) -> None:
        """It is no lane of this session any more; the others go on."""
        self._fleet.leave_out(side)
        self._keep(side, State.LEFT_OUT, why)
        left = sum(other.is_hoped_for or other.is_spare for other in self.sides)
        others = f"{left} {'lane goes' if left == 1 else 'lanes go'} on" if left else "no lane is left"
        self._as(side, Notice(f"left out: {why.rstrip('.')}. {others[:1].upper()}{others[1:]}"))
        side.connection.dismiss()
        if (spare := self._fleet.spare()) is not None:
            self._fleet.set_spare(spare, is_spare=False)
            self._begin(spare)

    def _is_over(self) -> bool:
        """Nothing is measured and nothing is left to do. Raises Stopped, EngineUnavailable."""
        is_busy = bool(self._fleet.in_hand)
        if self.stopping.requested and not is_busy:
            self._stop()
        if is_busy or self._fleet.is_outlived:
            return False
        if not self._fleet.hoped_for:
            if self._anything_left():
                raise EngineUnavailable("no lane is left that could measure; what is measured is saved. "
                                        "Go on with the same command")  # fmt: skip
            return True
        return not self._anything_left()

    def _anything_left(self) -> bool:
        """Asked while nothing is measured."""
        self._for = None
        return self._control_is_due or self.own_turn() is not None or self.further_turn() is not None

    # -- one round -------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Give free lanes what to do, then hear what they say; now and then every lane is looked after."""
        if self.stopping.now:
            self._cut_all()
        elif not self.stopping.requested and self._may_begin():
            self._give_all()
        heard = self._fleet.heard(LOOK_S)
        with self.store.together():
            for side in heard:
                self._hear(side)
                self._look_after(side)
        if not heard or REAL.monotonic_s() - self._looked_s >= LOOK_S:
            self._looked_s = REAL.monotonic_s()
            for side in self.sides:
                if side.connection.is_running and side.connection.fileno() is None:
                    self._hear(side)
                self._look_after(side)
        self._choose_class()

    def _give_all(self) -> None:
        """What one lane does not get, no other gets, but for what it has tried itself and for a control."""
        have_tried, is_in_vain = {lane for _, lane in self._tried.values()}, False
        for side in self._fleet.free():
            if is_in_vain and not self._control_is_due and side.lane.name not in have_tried:
                continue
            if (turn := self._turn_for(side)) is not None:
                self._give(side, turn)
            is_in_vain = is_in_vain or (turn is None and side.lane.name not in have_tried)

    def _may_begin(self) -> bool:
        """Nothing holds the sweep up: no pause, no quiet hours, no drift that is waited for."""
        if self._kind is None or not self._fleet.free():
            return False
        wait = self.may_start()
        left_s = self._held_until_s - REAL.monotonic_s()
        reason = wait.reason if wait is not None else self._held_for if left_s > 0 else ""
        if reason:
            self.unload()
        if reason and reason != self._stops_for:
            self.emit(OnHold(reason, wait.until if wait is not None else None))
        elif not reason and self._stops_for:
            self.emit(GoingOn())
        self._stops_for = reason
        return not reason

    def _cut_all(self) -> None:
        for side in self.sides:
            if side.outlived is not None and not side.is_cut:
                side.outlived.cut()
                side.is_cut = True
            if side.doing is not None and not side.is_cut:
                side.connection.cut()
                side.is_cut = True
                side.doing = replace(side.doing, since_s=REAL.monotonic_s())

    # -- whose turn ------------------------------------------------------------------------------------------------

    def _turn_for(self, side: Side) -> Turn | None:
        """What this lane measures next; None where there is nothing for it now."""
        self._for = side
        in_hand = self._fleet.in_hand
        if self._control_is_due and self.drift is not None:
            control = self.store.control_cell(self.sweep_id)
            if control is None or (control.cell_id not in in_hand and self._has_fewest_controls(side)):
                self._control_is_due = False
                if (turn := self.drift.next_control()) is not None:
                    return turn
        if in_hand and self.steering is not None and self.steering.is_reached():
            return None  # a result that is still to come may change that
        own = self.own_turn()
        if own is not None:
            return None if own.cell_id in in_hand else own
        if in_hand or self._fleet.is_outlived:
            load = self.store.next_further(self.sweep_id)
            further = self.further_turn(load) if load is not None else None
        else:
            further = self.further_turn()
        return None if further is None or further.cell_id in in_hand else further

    def _has_fewest_controls(self, side: Side) -> bool:
        """Controls go to the lanes in turn, so that each has its factor."""
        made = self.store.control_rates(self.sweep_id)
        others = [other for other in self.sides if other.is_hoped_for and other.is_ready]
        return all(len(made.get(side.lane.name, ())) <= len(made.get(other.lane.name, ())) for other in others)

    def _pending(self) -> PendingCell | None:
        """The first pending cell that was not tried on this very lane last, where there is another one."""
        mine = self._for
        if mine is None or not any(one.is_ready and one.is_hoped_for and one is not mine for one in self.sides):
            return self.store.next_pending(self.sweep_id)
        but = [cell for (cell, _), (_, lane) in self._tried.items() if lane == mine.lane.name]
        return self.store.next_pending(self.sweep_id, but)

    @staticmethod
    def _key(turn: Turn) -> tuple[int, int]:
        return turn.cell_id, turn.further.further_id if turn.further is not None else 0

    # -- begin -----------------------------------------------------------------------------------------------------

    def _give(self, side: Side, turn: Turn) -> None:
        """The first commit, then the order."""
        cell = self.cell_at(turn.position)
        self.look_at_clock()
        assert side.standing is not None
        _, changed = self.store.segment(self.sweep_id, self._surroundings(side.standing))
        for change in changed:
            self.emit(Notice(f"The surroundings changed ({change}): cells from now on belong to a new segment"))
        tried = self._tried.get(self._key(turn), (0, ""))[0]
        self._speaks = side.lane.name
        try:
            begun = self._begun(turn, cell, tried, Leased(side.lane.name, self._lease_s(cell)))
        finally:
            self._speaks = ""
        order = self._order(side, begun)
        self._fleet.give(side, Doing(begun, order, REAL.monotonic_s()))
        self._when_there_is_room(lambda: side.connection.give(order))

    @property
    def _is_mixed(self) -> bool:
        """Lanes need not be alike."""
        return bool(self.spec.settings.get("mixed_lanes"))

    def _surroundings(self, standing: Standing) -> Mapping[str, str]:
        """What a cell is measured in: those of its lane's class; of lanes that are not alike those of all of them, so
        that what they differ by is part of how far loads differ.
        """
        return self._fleet.mixture() if self._is_mixed else standing.kind

    def _begun(self, turn: Turn, cell: Cell, tried: int, leased: Leased) -> Begun:
        if not isinstance(turn, ControlTurn):
            return self.begin(turn, cell, tried, leased)
        return Begun(turn, cell, 0, self._when_there_is_room(lambda: turn.begin(leased)), turn.beside())

    def _order(self, side: Side, begun: Begun) -> Order:
        turn = begun.turn
        purpose = Purpose.CONTROL if isinstance(turn, ControlTurn) else turn.further.purpose if turn.further else None
        key = turn.key or self.store.planned(self.sweep_id, turn.position).key
        return Order(
            database=self.database,
            sweep=self.spec.name,
            attempt_id=begun.attempt_id,
            number=turn.attempts + begun.tried + 1,
            key=key,
            cell=begun.cell,
            lane=side.lane.name,
            lease_s=self._lease_s(begun.cell),
            tried=begun.tried,
            purpose=purpose,
            loads=begun.beside.loads,
            adds=begun.beside.adds,
            runs=turn.runs,
            runs_spread=self.measuring.runs_spread(),
            fresh=purpose is not None,
        )

    def _lease_s(self, cell: Cell) -> float:
        """Longer than everything that may happen in an attempt: the load, every run, the rest, a server that starts."""
        spec, setup = self.spec, self.spec.setups.get(cell.task)
        questions = len(setup.questions) * (setup.max_retries + 1) if setup is not None and setup.questions else 1
        rounds = (setup.repeats if setup is not None else None) or spec.repeats.maximum
        runs = spec.warmup.maximum + questions * rounds
        return spec.load_timeout_s + runs * spec.timeout_s + self.wait_engine_s + 1800.0

    # -- hear ------------------------------------------------------------------------------------------------------

    def _hear(self, side: Side) -> None:
        try:
            heard = side.connection.heard()
        except ConfigError as error:
            side.connection.end(0.0)
            self._leave_out(side, str(error))
            return
        finally:
            self._fleet.listen(side)
        for said in heard:
            self._take_line(side, said)

    def _take_line(self, side: Side, said: Line) -> None:
        match said:
            case Ready():
                self._fleet.ready(side)
                if not self._is_refused(side, said.standing):
                    self._fleet.stands(side, said.standing)
                    self._keep(side, State.AT_WORK)
                    self._check(side)
            case RunMade() if side.doing is not None:
                self._as(side, RunFinished(side.doing.begun.cell, said.number, said.warmup, said.rate))
            case Note():
                self._as(side, Notice(said.text))
            case Away():
                side.is_ready, side.is_away = False, True
                self._keep(side, State.AWAY, said.reason)
                self._as(side, Waiting(said.reason, said.seconds))
            case Resting() | RunMade():
                pass
            case HandedIn():
                self._take(side, said.name)
            case Gone():
                side.why_gone = said

    def _is_refused(self, side: Side, now: Standing) -> bool:
        """With `same_version` a lane is left out that comes back with another version. It stands as it did before, so
        that surroundings which name all lanes are the same without it.
        """
        if not self.same_version or (side.standing is not None and side.standing.version == now.version):
            return False
        own = self.store.measured_by(self.sweep_id).get(side.lane.name)
        wanted = own.versions if own is not None else versions_in(self.store.measured_in(self.sweep_id) or {})
        version = now.fingerprint.get(VERSION, "")
        if not wanted or not version or version in wanted:
            return False
        if own is not None and own.fingerprint:
            self._fleet.stands(side, replace(now, fingerprint=own.fingerprint))
        self._leave_out(side, versions.other_lane(now.engine, version, wanted, is_own=own is not None))
        return True

    def _check(self, side: Side) -> None:
        """Another model under the same name, or another class of machine, measures something else."""
        assert side.standing is not None
        for model, digest in self.digests.items():
            other = side.standing.digests.get(model)
            if other != digest:
                self._leave_out(side, f"answers with another {model} ({_short(other)}, not {_short(digest)})")
                return
        if self._kind is not None and not self._is_mixed and (unlike := differences(side.standing.kind, self._kind)):
            self._leave_out(side, f"is of another class: {'; '.join(unlike)}")

    def _choose_class(self) -> None:
        """The one that the sweep was measured in before, as soon as a lane is of it; else, once every lane has answered
        or had its time, that of the most lanes. Until then no lane takes an order.
        """
        if self._kind is not None:
            return
        ready, before = [side for side in self.sides if side.is_free], self.store.surroundings_now(self.sweep_id)
        known = [side.standing.kind for side in ready if side.standing is not None and side.standing.kind == before]
        undecided = [side for side in self.sides if side.is_hoped_for and not side.is_free and side.outlived is None]
        is_early = undecided and REAL.monotonic_s() - self._began_s < TOGETHER_S
        if not ready or (is_early and not known):
            return
        kinds = [side.standing.kind for side in ready if side.standing is not None]
        self._kind = known[0] if known else max(kinds, key=lambda kind: (kinds.count(kind), -kinds.index(kind)))
        for side in ready:
            self._check(side)
        stands = {side.lane.name: side.standing for side in ready if side.standing is not None}
        unseen = [name for name, standing in stands.items() if ADDRESS in standing.fingerprint]
        if len(unseen) > 1:
            words = f"Note: what computers {', '.join(unseen)} are cannot be seen from here"
            self.emit(Notice(f"{words}; that they are alike is yours to know"))

    def _look_after(self, side: Side) -> None:
        """A process that has ended, one that takes too long, one that a dead run had left."""
        if side.outlived is not None:
            self._look_after_outlived(side)
            return
        if side.doing is not None and side.connection.is_running:
            limit_s = CUT_S if side.is_cut else side.doing.order.lease_s
            if REAL.monotonic_s() - side.doing.since_s > limit_s:
                label = side.doing.begun.cell.label()
                self._as(side, Notice(f"{label} takes longer than the {format_duration(limit_s)} that it may"))
                side.connection.end(0.0)
        if side.connection.is_running or (not side.is_hoped_for and side.doing is None):
            return
        for name in side.connection.names():
            self._take(side, name)
        self._look_at_end(side)

    def _look_at_end(self, side: Side) -> None:
        """Its process is gone: it was told to end, cannot go on, or died."""
        doing, side.is_ready = self._fleet.done(side), False
        if doing is not None:
            self.store.end_died(doing.begun.attempt_id)
            self._tried[self._key(doing.begun.turn)] = doing.begun.tried, side.lane.name
            how = side.connection.how_it_ended or "ended without a word"
            self._as(side, Notice(f"Warning: the process that measured {doing.begun.cell.label()} {_was(how)}; "
                                  "the cell is pending again"))  # fmt: skip
        if side.is_left_out or self.stopping.requested:
            return
        if side.why_gone is not None and side.why_gone.why and doing is None:
            self._leave_out(side, side.why_gone.why)
            return
        side.deaths += 1
        if side.deaths >= DEATHS_OF_A_LANE:
            self._leave_out(side, f"its process ended {side.deaths} times in a row; see its log")
            return
        self._begin(side)

    def _look_after_outlived(self, side: Side) -> None:
        """Once it has ended, its results are taken and the lane begins anew."""
        assert side.outlived is not None
        if side.outlived.is_running:
            return
        order = side.outlived.order
        self._fleet.ended(side)
        for name in side.connection.names():
            self._take(side, name)
        known = self.store.known_attempt(order.attempt_id)
        if order.database == self.database and known is not None and known.is_open:
            self.store.end_died(order.attempt_id)
            label = order.cell.label()
            text = f"Warning: the process that measured {label} for an earlier run has died; the cell is pending again"
            self._as(side, Notice(text))
        if not self.stopping.requested and not side.is_left_out:
            self._begin(side)

    # -- finish ----------------------------------------------------------------------------------------------------

    def _take(self, side: Side, name: str) -> None:
        """A finished attempt of its outbox: the second commit, then the file is removed."""
        try:
            handed = side.connection.read(name)
        except ConfigError as error:
            side.connection.set_aside(name)
            self._as(side, Notice(f"Warning: {error}; it is left as {name}.unreadable"))
            return
        if handed.order.database != self.database:
            return
        if (begun := self._begun_for(side, handed)) is None:
            taking.keep(self.store, handed, self.spec.retries)
        else:
            self._speaks = side.lane.name
            try:
                self._finish(side, begun, handed)
            finally:
                self._speaks = ""
        reached("result_taken")
        side.connection.remove(name)

    def _begun_for(self, side: Side, handed: Handed) -> Begun | None:
        """What it ends: what the lane has in hand, or what a dead run had begun; None where nobody waits for it."""
        number, doing = handed.order.attempt_id, side.doing
        if doing is not None and doing.order.attempt_id == number:
            self._fleet.done(side)
            return doing.begun
        known = self.store.known_attempt(number)
        if known is None or not known.is_open or (known.sweep_id, known.key) != (self.sweep_id, handed.order.key):
            return None
        turn = taking.turn_of(self.store, known, self.spec.timeout_s)
        return None if turn is None else Begun(turn, handed.order.cell, handed.order.tried, number, turn.beside())

    def _finish(self, side: Side, begun: Begun, handed: Handed) -> None:
        outcome, turn = handed.outcome, begun.turn
        side.deaths = 0
        if outcome.status is Status.INTERRUPTED:
            self._when_there_is_room(lambda: turn.give_up(begun.attempt_id, outcome.reason, outcome.error))
            self._tried[self._key(turn)] = begun.tried, side.lane.name
            return
        if isinstance(turn, ControlTurn):
            self._finish_control(turn, begun, outcome)
            return
        if self.memory is not None and side.memory is not None:
            free = FreeMemory(handed.gpu_free_bytes, handed.memory_free_bytes)
            side.memory.free = lambda: free
            self.memory = side.memory
        retry = self.finish(begun, outcome, handed.took_s, handed.engine_version, self._drifted())
        if retry:
            self._tried[self._key(turn)] = begun.tried + 1, side.lane.name
        else:
            self._tried.pop(self._key(turn), None)
        if self.drift is not None and not retry and self.drift.is_due():
            self._control_is_due = True

    def _drifted(self) -> frozenset[Flag]:
        is_drifted = self.drift is not None and self.drift.has_drifted
        return frozenset({Flag.DRIFTED} if is_drifted else ())

    def _finish_control(self, turn: ControlTurn, begun: Begun, outcome: Outcome) -> None:
        """A drift that is too large is waited for, and looked at again."""
        self._when_there_is_room(lambda: turn.finish(begun.attempt_id, outcome, retry=False))
        if self.drift is None:
            return
        self.drift.take(turn, begun.cell, outcome)
        if not self.drift.drift.is_too_far or not self.drift.pauses or self._pauses >= MOST_PAUSES:
            self._pauses = 0
            return
        self._pauses += 1
        self._control_is_due, self._held_until_s = True, REAL.monotonic_s() + PAUSE_S
        words = f"the speed has drifted by {self.drift.drift.share:+.1%}"
        self._held_for = f"{words}; looking again in {PAUSE_S / 60:.0f} min (--no-pause goes on)"

    # -- the end ---------------------------------------------------------------------------------------------------

    def _end_all(self) -> None:
        """Idle processes end; one that still measures, because something else went wrong, hands in for the next run."""
        for side in self.sides:
            if side.doing is not None:
                side.connection.leave()
            elif side.is_away or self.stopping.now:
                side.connection.cut()  # it waits for its engine, and hears nothing
            else:
                side.connection.dismiss()  # one that starts first clears what the one before it has left
        for side in self.sides:
            if side.connection.is_running:
                side.connection.end(END_S)
            if side.is_known_as is not None and not side.is_left_out:
                self._keep(side, State.ENDED)


def _was(how: str) -> str:
    return f"was {how}" if how.startswith("ended by") else f"ended ({how})" if how.startswith("exit") else how


def _short(digest: str | None) -> str:
    return "none" if not digest else digest[:19]
