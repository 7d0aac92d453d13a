"""One measuring of a pair: two sweeps with one database, one lock, one stop, and an engine each."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from ollama_sweep.core.crashpoints import reached
from ollama_sweep.core.errors import ConfigError, EngineUnavailable, Stopped
from ollama_sweep.core.events import Event, of_part
from ollama_sweep.core.outcome import Status
from ollama_sweep.engines.base import Engine
from ollama_sweep.plan.goals import scouts
from ollama_sweep.plan.goals.scouts import WHOLE_MAP
from ollama_sweep.plan.opening import engine_name, open_engine
from ollama_sweep.plan.pairs.arms import in_words
from ollama_sweep.plan.pairs.matching import joined
from ollama_sweep.plan.spec import SweepSpec
from ollama_sweep.plan.survey import Survey
from ollama_sweep.run import cooling
from ollama_sweep.run.listeners import WaitingNote
from ollama_sweep.run.loop import ShieldedLedger
from ollama_sweep.run.pairs.turns import TakingTurns, order_of
from ollama_sweep.run.session import Ended, Session
from ollama_sweep.run.stopping import StopNow
from ollama_sweep.run.waiting import stopped
from ollama_sweep.store.writer import Store


@dataclass(frozen=True)
class _Open:
    """An arm with its engine."""

    arm: Session
    name: str
    engine: Engine


class PairSession(Session):
    """See `Session`; what happens in an arm is heard with its letter."""

    @cached_property
    def _arms(self) -> tuple[Session, ...]:
        return tuple(self._arm(arm, _letter(arm)) for arm in self.spec.arms)

    def _arm(self, arm: SweepSpec, letter: str) -> Session:
        hear, say = partial(self._hear, letter), partial(self._say_of, letter)
        made = Session(arm, self.db, self.options, (hear,), say=say, tell=self._tell, stopping=self._stopping)
        made.clock = self.clock
        return made

    def _hear(self, letter: str, event: Event) -> None:
        self._emit(of_part(event, letter, self.spec.name))

    def _say_of(self, letter: str, line: str) -> None:
        self._say(f"{letter}: {line}")

    def check(self) -> None:
        if self.options.within_s is not None:
            raise ConfigError(
                f"{self.spec.name} is a pair, and no planner can choose the cells of its turns", "--within"
            )
        if self.options.scan:
            raise ConfigError(f"{self.spec.name} is a pair; scan its sweeps one by one, without the pair", "--scan")
        if self.options.scout:
            scouts.check(WHOLE_MAP, self.spec)
        for arm in self._arms:
            arm.check()

    def _ended(self, stopped: Stopped | None) -> Ended:
        arms = tuple(arm._ended(stopped) for arm in self._arms)
        counts: Counter[Status] = Counter()
        for arm in arms:
            counts.update(arm.counts)
        return Ended(arms[0].sweep, dict(counts), stopped, arms=arms)

    def _measure(self, store: Store) -> None:
        self._emit.add(WaitingNote(store.note))
        with contextlib.ExitStack() as opened:
            both = [self._open(arm, store, opened) for arm in self._arms]
            opened.callback(reached, "before_close")
            self._clear_all(store, both)
            infos = [(one.arm.spec, one.arm.wait_for(one.engine.describe)) for one in both]
            celsius = [cooling.celsius_of(spec, info) for spec, info in infos]
            with self.alone(infos):
                self._take_turns(store, both, celsius)

    @staticmethod
    def _open(arm: Session, store: Store, opened: contextlib.ExitStack) -> _Open:
        settings = arm.settings(ShieldedLedger(store, arm._stopping))
        before = arm.before()
        name = engine_name(arm.spec, settings, before.engine if before else None)
        arm.tell_choice(name)
        engine = open_engine(name, settings)
        opened.callback(engine.close)
        arm._set_clock(store, name)
        return _Open(arm, name, engine)

    def _clear_all(self, store: Store, both: Sequence[_Open]) -> None:
        """What a killed session left on a server is removed by the arm that uses it."""
        hosts = {leftover.details.get("host") for leftover in store.leftovers()} - {None}
        for one in both[1:] if hosts else ():
            with contextlib.suppress(EngineUnavailable):
                where = one.engine.describe().where
                one.arm.clear_leftovers(store, one.engine, at=where)
        both[0].arm.clear_leftovers(store, both[0].engine)

    def _take_turns(self, store: Store, both: Sequence[_Open], celsius: Sequence[cooling.Celsius]) -> None:
        found = [self._survey(store, one) for one in both]
        a, b, places = joined(*found)
        self._tell(f"Pair {self.spec.name}: {in_words(self.spec)}; {places.matched} cells of both, in turns A B B A")
        executions = [
            one.arm.execution(store, one.engine, of_arm, survey, order_of(places, number))
            for number, (one, of_arm, survey) in enumerate(zip(both, celsius, (a, b), strict=True))
        ]
        TakingTurns(self.spec.name, (executions[0], executions[1]), places, self._emit).run()

    def _survey(self, store: Store, one: _Open) -> Survey:
        """What must be known of an arm; what was loaded to count a prompt gives way to the other one."""
        found = one.arm.survey(store, one.name, one.engine)
        with contextlib.suppress(EngineUnavailable):
            try:
                with self._stopping.interruptible():
                    one.engine.release(failed=False)
            except StopNow:
                raise stopped(self._stopping) from None
        return found


def _letter(arm: SweepSpec) -> str:
    assert arm.arm is not None
    return arm.arm.letter
