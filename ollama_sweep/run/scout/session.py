"""One measuring of a scouted sweep: its scout first, one process with the model, then what its own engine must measure.

Both stages go on where they were: the scout is a sweep of its own, and what is left of either follows from what is
stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

from ollama_sweep.core.crashpoints import reached
from ollama_sweep.core.events import Event, SweepFinished, of_part
from ollama_sweep.engines.base import Engine
from ollama_sweep.plan.goals import scouts
from ollama_sweep.plan.goals.scouts import WHOLE_MAP
from ollama_sweep.plan.opening import engine_name
from ollama_sweep.plan.survey import Survey
from ollama_sweep.run import cooling
from ollama_sweep.run.memory.scan import Scan
from ollama_sweep.run.planners.aiming import Aim, aim_of
from ollama_sweep.run.planners.steering import Steering
from ollama_sweep.run.scout.scouting import ByScout, WithoutBeyond
from ollama_sweep.run.session import Session
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.rows import SCOUT, SCOUT_OF, SweepRow, scout_of
from ollama_sweep.store.writer import Store

WORD = "scout"
SHARE_OF_TIME = 0.5
"""With a limit of time the scout may take so much of it."""


class ScoutSession(Session):
    """See `Session`; what the scout does is heard with its word."""

    @property
    def ties(self) -> Mapping[str, str]:
        return {SCOUT: scout_of(self.spec.name)}

    def check(self) -> None:
        super().check()
        self._swap.check()

    @cached_property
    def _swap(self) -> SwapSession:
        before = self._row(self.spec.name)
        engine = scouts.engine_of(engine_name(self.spec, self.settings(), before.engine if before else None))
        goal = self._aim(before).goal or WHOLE_MAP
        scouts.check(goal, self.spec)
        within_s = self.options.within_s
        options = replace(
            self.options, retry=(), second_look=False, scout=None,
            within_s=None if within_s is None else SHARE_OF_TIME * within_s,
        )  # fmt: skip
        made = SwapSession(
            scouts.scout_spec(self.spec, engine, goal), self.db, options, (self._hear,),
            say=self._say_of_scout, tell=self._tell, stopping=self._stopping,
        )  # fmt: skip
        made.scouted, made.clock = self.spec.name, self.clock
        return made

    def _row(self, name: str) -> SweepRow | None:
        if (reader := Reader.if_there(self.db)) is None:
            return None
        with reader:
            return reader.sweep_if_there(name)

    def _aim(self, before: SweepRow | None) -> Aim:
        """The goal of the sweep, or what its scout was begun for; without a goal a scouted sweep is for its map."""
        kept, row = None, before or self._row(scout_of(self.spec.name))
        if row is not None:
            with Reader.open(self.db) as reader:
                kept = reader.goal(row.sweep_id)
        found = aim_of(self.spec, kept, self.options.within_s)
        if found.goal is None or (found.goal.is_off and self.spec.goal is None):
            return replace(found, goal=WHOLE_MAP)
        return found

    def _say_of_scout(self, line: str) -> None:
        self._say(f"{WORD}: {line}")

    def _hear(self, event: Event) -> None:
        if not isinstance(event, SweepFinished) or event.stopped:  # where the scout is through, the sweep is not
            self._emit(of_part(event, WORD, self.spec.name))

    def _measure(self, store: Store) -> None:
        began_s = self.clock.monotonic_s()
        self._swap._measure(store)
        reached("scouted")
        if self.options.within_s is not None:
            took_s = self.clock.monotonic_s() - began_s
            self.options = replace(self.options, within_s=max(1.0, self.options.within_s - took_s))
        super()._measure(store)

    def _steering(self, store: Store, sweep_id: int, aim: Aim) -> Steering | None:
        found = super()._steering(store, sweep_id, aim)
        scout = self._swap.before()
        if found is not None and scout is not None:
            found.by = ByScout(store, scout.sweep_id, self._swap.beyond)
        return found


class SwapSession(Session):
    """The scout: the edge of memory by loads without a prompt, then the cells inside it."""

    scouted = ""
    """The name of the sweep that it scouts for."""
    beyond: frozenset[int] = frozenset()
    """Positions of its plan that are known not to fit."""

    @property
    def ties(self) -> Mapping[str, str]:
        return {SCOUT_OF: self.scouted}

    def _run(self, store: Store, engine: Engine, celsius: cooling.Celsius, found: Survey) -> None:
        self._is_scan = True
        scan = self.execution(store, engine, celsius, found)
        assert isinstance(scan, Scan)
        scan.run()
        self._is_scan, self.beyond = False, scan.beyond
        super()._run(store, engine, celsius, found)

    def _steering(self, store: Store, sweep_id: int, aim: Aim) -> Steering | None:
        found = super()._steering(store, sweep_id, aim)
        if found is not None:
            found.by = WithoutBeyond(self.beyond)
        return found
