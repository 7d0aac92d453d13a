"""`doctor --lanes`: the control cell on one lane, alone and with its neighbours at work, several times in turn.

It measures in a folder of its own that is removed again: the folders of the sweep's lanes are not touched, and its
database gets what was found, once it is known.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ollama_sweep.core.errors import ConfigError, EngineUnavailable, Stopped, SweepError
from ollama_sweep.core.finding import Finding, of_error, ok, warning
from ollama_sweep.core.lanes.disturbance import Compared
from ollama_sweep.core.lanes.order import Line, RunMade
from ollama_sweep.core.outcome import Outcome, Status
from ollama_sweep.machine.clocks import REAL
from ollama_sweep.plan.spec import SweepSpec
from ollama_sweep.plan.survey import Survey
from ollama_sweep.run.lanes.coordinator import END_S, LOOK_S, Coordinator
from ollama_sweep.run.lanes.session import LanesSession
from ollama_sweep.run.lanes.side import Doing, Side
from ollama_sweep.run.loop import Begun, Execution
from ollama_sweep.run.planners.aiming import Aim
from ollama_sweep.run.planners.steering import Steering
from ollama_sweep.run.session import SessionOptions
from ollama_sweep.run.turns import ControlTurn, OwnTurn
from ollama_sweep.store.writer import Store

CHECK = "lanes"
TURNS = (False, True, True, False, False, True, True, False)
"""With neighbours or without: a machine that slowly warms up is no neighbour."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """What was measured, and the lanes that were left out, with why."""

    compared: Compared
    left_out: tuple[tuple[str, str], ...]


@dataclass
class Neighbours(Coordinator):
    """Lanes that measure one cell again and again; nothing of it is stored."""

    is_done: Callable[[Measured], None] = lambda measured: None
    say: Say = lambda line: None
    _at_work: list[Side] = field(default_factory=list)
    _running: set[str] = field(default_factory=set)
    """Lanes of which a run was heard in this turn."""
    _failures: dict[str, str] = field(default_factory=dict)
    _handed: Outcome | None = None
    _first: Side | None = None
    _orders: int = 0

    def run(self) -> None:
        """Raises EngineUnavailable, ConfigError, Stopped."""
        self._began_s = REAL.monotonic_s()
        turn = self.own_turn()
        if turn is None:
            raise ConfigError("the sweep has no cell to measure")
        try:
            self._start(self.sides)
            self.is_done(self._measured(turn))
        finally:
            self._end_all()

    def _measured(self, turn: OwnTurn) -> Measured:
        there = [side for side in self.sides if side.is_hoped_for]
        left_out = tuple(
            (one.lane.name, one.is_known_as[1]) for one in self.sides if one.is_left_out and one.is_known_as
        )
        if len(there) < 2:
            why = "".join(f"; {name}: {words}" for name, words in left_out)
            raise EngineUnavailable(f"fewer than two lanes can measure{why}")
        self._first = first = there[0]
        others = there[1:]
        rates: dict[bool, list[float]] = {False: [], True: []}
        for number, beside in enumerate(TURNS, 1):
            words = f"beside {', '.join(one.lane.name for one in others)}" if beside else "alone"
            self.say(f"lanes: {number} of {len(TURNS)}: {first.lane.name} {words}")
            rates[beside].append(self._rate(turn, first, others if beside else []))
        where = dict(self.cell_at(turn.position).coordinates)
        lanes = tuple(one.lane for one in there)
        return Measured(Compared(lanes, where, tuple(rates[False]), tuple(rates[True])), left_out)

    def _rate(self, turn: OwnTurn, first: Side, others: Sequence[Side]) -> float:
        """One load of the cell on the first lane, while the others measure it without a pause."""
        for side in self.sides:
            if side is not first and side not in others and side.connection.is_running:
                side.connection.end(END_S)
                self._fleet.listen(side)
        self._start([first, *others])
        self._running, self._handed = set(), None
        for side in others:
            self._order_again(turn, side, is_fresh=False)
        self._until(lambda: all(one.lane.name in self._running or one.doing is None for one in others))
        self._order_again(turn, first, is_fresh=True)
        while first.doing is not None:
            self._round()
            for side in others:
                if side.is_free and first.doing is not None:
                    self._order_again(turn, side, is_fresh=False)
        self._until(lambda: all(side.doing is None for side in others))
        for side in (first, *others):
            if side.is_left_out:
                raise EngineUnavailable(
                    f"lane {side.lane.name} is gone: {side.is_known_as[1] if side.is_known_as else ''}"
                )
        for name, why in self._failures.items():
            raise EngineUnavailable(f"the control cell cannot be measured on {name} beside other lanes ({why})")
        return self._rate_of(first, self._handed)

    @staticmethod
    def _rate_of(first: Side, outcome: Outcome | None) -> float:
        rate = ControlTurn.rate_of(outcome) if outcome is not None else None
        if outcome is None or not rate:
            why = _why(outcome) if outcome is not None else "its process died"
            raise EngineUnavailable(f"the control cell cannot be measured on {first.lane.name} ({why})")
        return rate

    def _start(self, sides: Sequence[Side]) -> None:
        """Their processes are there, and ready or left out; only these are looked after."""
        self._at_work = list(sides)
        for side in sides:
            if side.is_hoped_for and not side.connection.is_running:
                self._begin(side)
        self._until(lambda: all(side.is_ready or not side.is_hoped_for for side in sides))

    def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            self._round()

    def _round(self) -> None:
        if self.stopping.requested:
            self._stop()
        self._fleet.heard(LOOK_S)
        for side in self._at_work:
            self._hear(side)
            self._look_after(side)
        self._choose_class()

    def _end_all(self) -> None:
        """Nothing goes on behind: what is in hand is cut short, and every process has ended."""
        for side in self.sides:
            if side.doing is not None or side.is_away:
                side.connection.cut()
            else:
                side.connection.dismiss()
        for side in self.sides:
            if side.connection.is_running:
                side.connection.end(END_S)

    def _order_again(self, turn: OwnTurn, side: Side, *, is_fresh: bool) -> None:
        self._orders += 1
        begun = Begun(turn, self.cell_at(turn.position), 0, self._orders, turn.beside())
        order = replace(self._order(side, begun), fresh=is_fresh)
        self._fleet.give(side, Doing(begun, order, REAL.monotonic_s()))
        side.connection.give(order)

    def _take_line(self, side: Side, said: Line) -> None:
        if isinstance(said, RunMade):
            self._running.add(side.lane.name)
            return
        super()._take_line(side, said)

    def _take(self, side: Side, name: str) -> None:
        """What is handed in is heard, and belongs to nobody."""
        handed = side.connection.read(name)
        side.connection.remove(name)
        if side.doing is not None and side.doing.order.attempt_id == handed.order.attempt_id:
            self._fleet.done(side)
            side.deaths = 0
            if side is self._first:
                self._handed = handed.outcome
            elif handed.outcome.status is not Status.OK:
                self._failures[side.lane.name] = _why(handed.outcome)


class NeighboursSession(LanesSession):
    """See `Neighbours`; its database is one that is thrown away."""

    measured: Measured | None = None

    def _kind(self, store: Store, found: Survey) -> Callable[..., Execution]:
        lanes = super()._kind(store, found)
        assert isinstance(lanes, partial)
        return partial(Neighbours, **lanes.keywords, is_done=self._take_measured, say=self._say)

    def _take_measured(self, measured: Measured) -> None:
        self.measured = measured

    def _steering(self, store: Store, sweep_id: int, aim: Aim) -> Steering | None:
        return None


def findings(spec: SweepSpec, db: Path, options: SessionOptions, say: Say) -> Iterator[Finding]:
    """What `doctor` says of the lanes of a sweep, which is kept in its database from then on. Raises Stopped."""
    try:
        measured = _measured(spec, replace(options, no_pause=True), say)
    except Stopped:
        raise
    except SweepError as error:
        yield of_error(CHECK, error)
        return
    for name, why in measured.left_out:
        yield warning(CHECK, f"{name} is left out: {why}")
    yield _finding(measured.compared)
    if not measured.compared.disturbance.is_told:
        return
    try:
        _keep(db, spec.name, measured.compared, options, say)
    except SweepError as error:
        yield warning(CHECK, f"this could not be kept in {db}, so no cell will be flagged for it: {error}")


def _measured(spec: SweepSpec, options: SessionOptions, say: Say) -> Measured:
    kind: type[NeighboursSession] = NeighboursSession
    if options.cluster:
        from ollama_sweep.run.cluster.neighbours import ClusterNeighboursSession  # through Dask

        kind = ClusterNeighboursSession
    with tempfile.TemporaryDirectory(prefix="ollama-sweep-lanes-") as folder:
        session = kind(spec, Path(folder) / "lanes.db", options, say=say)
        ended = session.run()
    if ended.stopped is not None:
        raise Stopped("stopped before it was known; nothing of it is kept", ended.stopped.exit_code - 128)
    assert session.measured is not None
    return session.measured


def _keep(db: Path, sweep: str, found: Compared, options: SessionOptions, say: Say) -> None:
    """It counts from now on, also where the sweep, or the database, is not there yet. Raises SweepError."""
    is_new = not db.exists()
    store = Store.open(db, allow_network=options.allow_network_db, say=say)
    try:
        store.keep_disturbance(sweep, found)
    except SweepError:
        if is_new:
            store.discard()
        raise
    finally:
        store.close()


def _why(outcome: Outcome) -> str:
    return f"{outcome.status}: {outcome.error or outcome.reason}"


def _finding(compared: Compared) -> Finding:
    if not compared.disturbance.is_told:
        hint = "More repeats and a computer that does nothing else make it smaller; nothing of this is kept"
        return warning(CHECK, f"{compared.words}: too much chance to say whether neighbours disturb each other", hint)
    if not compared.disturbance.is_there:
        return ok(CHECK, f"{compared.words}: neighbours do not disturb each other by more than chance")
    hint = "Use fewer lanes, or some that share neither processor, memory nor power; else compare cells of this sweep"
    return warning(CHECK, f"{compared.words}: neighbours disturb each other", f"{hint} with each other only")
