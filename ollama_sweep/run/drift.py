"""Has the machine become faster or slower since the sweep began? One cell is measured again now and then.

The control cell is the first one that was measured in the surroundings at hand. Its new rate over its first is the
drift: beyond 3 % the cells that follow carry the flag `drifted`, beyond 8 % the sweep pauses and looks again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from ollama_sweep.core.events import Drifted, GoingOn, Notice, OnHold
from ollama_sweep.core.outcome import Status
from ollama_sweep.plan.spec import Interim
from ollama_sweep.run.attempt import Measuring
from ollama_sweep.run.stopping import Stopping
from ollama_sweep.run.waiting import Emit, pause
from ollama_sweep.store.writer import Store

FLAGGED = 0.03
PAUSED = 0.08
PAUSE_S = 600.0
MOST_PAUSES = 3


@dataclass
class DriftWatch:
    """Counts cells and time since the last control measurement, and makes the next one when it is due."""

    store: Store
    sweep_id: int
    measuring: Measuring
    stopping: Stopping
    emit: Emit
    every: Interim
    pauses: bool = True
    drift: float = 0.0
    _cells: int = 0
    _since: float = 0.0
    _has_said_why_not: bool = False

    @property
    def has_drifted(self) -> bool:
        """Cells measured now are off by more than 3 %."""
        return abs(self.drift) > FLAGGED

    def after_cell(self) -> None:
        """Count a finished cell; measure the control cell where that is due. Raises StopNow, EngineUnavailable."""
        self._cells += 1
        self._since = self._since or time.monotonic()
        if not self._is_due():
            return
        for left in range(MOST_PAUSES, -1, -1):
            self._measure()
            if abs(self.drift) <= PAUSED or not self.pauses or not left:
                break
            words = f"the speed has drifted by {self.drift:+.1%}"
            self.emit(OnHold(f"{words}; looking again in {PAUSE_S / 60:.0f} min (--no-pause goes on)"))
            pause(PAUSE_S, self.stopping)
            self.emit(GoingOn())
        self._cells, self._since = 0, time.monotonic()

    def _is_due(self) -> bool:
        if self.every.cells is not None and self._cells >= self.every.cells:
            return True
        return self.every.seconds is not None and time.monotonic() - self._since >= self.every.seconds

    def _measure(self) -> None:
        control = self.store.control_cell(self.sweep_id)
        if control is None:
            return self._say_why_not()
        cell = self.store.planned(self.sweep_id, control.position).cell
        with self.stopping.interruptible():
            outcome = self.measuring.outcome(cell, ())
        rate = outcome.summary.prompt_eval_rate
        if outcome.status is not Status.OK or rate is None:
            self.emit(Notice(f"The control cell could not be measured ({outcome.status}): drift is not known"))
            return None
        self.drift = rate / control.prompt_eval_rate - 1
        self.store.save_control(self.sweep_id, control.cell_id, rate, self.drift)
        self.emit(Drifted(cell, self.drift, has_drifted=self.has_drifted))
        return None

    def _say_why_not(self) -> None:
        if not self._has_said_why_not:
            self.emit(
                Notice("Drift is not watched: no cell of this sweep has measured the prompt's rate (prompt_eval)")
            )
        self._has_said_why_not = True
