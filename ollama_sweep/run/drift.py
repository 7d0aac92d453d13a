"""Has the machine become faster or slower since the sweep began? One cell is measured again now and then.

The control cell is the first one that was measured in the surroundings at hand. `core/noise/drift` says what its loads
tell: beyond one limit the cells that follow carry the flag `drifted`, beyond another the sweep pauses and looks again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import EngineUnavailable, StorageError
from ollama_sweep.core.events import Drifted, GoingOn, Notice, OnHold
from ollama_sweep.core.loading.controls import due
from ollama_sweep.core.noise.drift import Drift, drift_of
from ollama_sweep.core.noise.spread import Spreads
from ollama_sweep.core.outcome import Outcome, Purpose
from ollama_sweep.core.summary import PROMPT_RATE
from ollama_sweep.machine.clocks import REAL, Clock
from ollama_sweep.plan.spec import Interim
from ollama_sweep.run.attempt import Measuring
from ollama_sweep.run.stopping import StopNow, Stopping
from ollama_sweep.run.turns import ControlTurn
from ollama_sweep.run.waiting import Emit, pause
from ollama_sweep.store.writer import Store

PAUSE_S = 600.0
MOST_PAUSES = 3
MORE_TO_CORRECT = 1.05
"""All loads are corrected anew, so that is done when there are so many times more of them: it stays cheap."""


@dataclass
class DriftWatch:
    """Counts cells and time since the last control measurement, and makes the next one when it is due."""

    store: Store
    sweep_id: int
    measuring: Measuring
    stopping: Stopping
    emit: Emit
    every: Interim | None
    pauses: bool = True
    passes: int = 1
    rest: Callable[[], None] = lambda: None
    drift: Drift = field(default_factory=Drift)
    clock: Clock = REAL
    _cells: int = 0
    _since: float = 0.0
    _made: int | None = None
    _loads: int = 0
    _corrected: int = 0
    _has_said_why_not: bool = False

    @property
    def has_drifted(self) -> bool:
        """Cells measured now are off by more than may be."""
        return self.drift.is_flagged

    def after_cell(self) -> None:
        """Count a finished cell; measure the control cell where that is due. Raises StopNow, EngineUnavailable."""
        if not self.is_due():
            return
        for left in range(MOST_PAUSES, -1, -1):
            self._measure()
            self._count()
            if not self.drift.is_too_far or not self.pauses or not left:
                break
            words = f"the speed has drifted by {self.drift.share:+.1%}"
            self.emit(OnHold(f"{words}; looking again in {PAUSE_S / 60:.0f} min (--no-pause goes on)"))
            pause(PAUSE_S, self.stopping, self.clock)
            self.emit(GoingOn())
        self._cells, self._since = 0, self.clock.monotonic_s()

    def is_due(self) -> bool:
        """Count a finished cell; whether a control is due now."""
        self._cells += 1
        self._since = self._since or self.clock.monotonic_s()
        return self._is_due()

    def next_control(self) -> ControlTurn | None:
        """The load of the control cell that is due, for who has others measure it; None where there is no such cell."""
        self._count()
        self._cells, self._since = 0, self.clock.monotonic_s()
        control = self.store.control_cell(self.sweep_id)
        if control is None:
            self._say_why_not()
            return None
        return ControlTurn(self.store, self.sweep_id, control, self.measuring.spec.timeout_s)

    def _count(self) -> None:
        self._made = (self._made or 0) + 1
        self._correct_more()

    def correct(self) -> None:
        """Keep by how much each load was off, by all controls so far; trouble with the database is for whoever meets it
        first.
        """
        with contextlib.suppress(StorageError):
            self.store.correct(self.sweep_id)

    def _correct_more(self) -> None:
        """At a control, so that a sweep that runs, or whose session never ends, has them as well."""
        made = sum(self.store.loads_made(self.sweep_id).values())
        if made >= MORE_TO_CORRECT * self._corrected:
            self.correct()
            self._corrected = made

    def _is_due(self) -> bool:
        if self.every is None:
            return self._is_next()
        if self.every.cells is not None and self._cells >= self.every.cells:
            return True
        return self.every.seconds is not None and self.clock.monotonic_s() - self._since >= self.every.seconds

    def _is_next(self) -> bool:
        """By themselves controls lie at the start, at the end and evenly between."""
        total = self.passes * sum(self.store.counts(self.sweep_id).values())
        if self._made is None:
            self._made = self.store.loads_made(self.sweep_id).get(Purpose.CONTROL, 0)
            self._loads = self._done()
        else:
            self._loads += 1
        return self._made < due(self._loads, total)

    def _done(self) -> int:
        """Cells that have a final state, and their loads in further passes."""
        done = sum(count for status, count in self.store.counts(self.sweep_id).items() if status.is_final)
        return done + self.store.loads_made(self.sweep_id).get(Purpose.PASS, 0)

    def _measure(self) -> None:
        control = self.store.control_cell(self.sweep_id)
        if control is None:
            return self._say_why_not()
        cell = self.store.planned(self.sweep_id, control.position).cell
        self.rest()
        turn = ControlTurn(self.store, self.sweep_id, control, self.measuring.spec.timeout_s)
        return self.take(turn, cell, self._load(turn, cell))

    def take(self, turn: ControlTurn, cell: Cell, outcome: Outcome) -> None:
        """What a stored load of the control cell says of the machine."""
        if turn.rate_of(outcome) is None:
            self.emit(Notice(f"The control cell could not be measured ({outcome.status}): drift is not known"))
            return
        self.drift = drift_of(self.store.control_points(self.sweep_id), self._spreads())
        self.emit(Drifted(cell, self.drift.share, has_drifted=self.has_drifted, limit=self.drift.limit))

    def _spreads(self) -> Spreads | None:
        return self.store.spreads(self.sweep_id).get(PROMPT_RATE)

    def _load(self, turn: ControlTurn, cell: Cell) -> Outcome:
        """A fresh load of the control cell, stored with its runs; the cell's own numbers stay what they are."""
        attempt_id = None
        try:
            with self.stopping.interruptible():
                self.measuring.engine.release(failed=False)
            attempt_id = turn.begin()
            with self.stopping.interruptible():
                outcome = self.measuring.outcome(cell, turn.beside())
        except (StopNow, EngineUnavailable) as error:
            if attempt_id is not None:
                turn.give_up(attempt_id, "stopped" if isinstance(error, StopNow) else "engine_unavailable")
            raise
        turn.finish(attempt_id, outcome, retry=False)
        return outcome

    def _say_why_not(self) -> None:
        if not self._has_said_why_not:
            self.emit(
                Notice("Drift is not watched: no cell of this sweep has measured the prompt's rate (prompt_eval)")
            )
        self._has_said_why_not = True
