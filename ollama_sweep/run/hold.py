"""Why no cell may start now: a pause that was asked for, quiet hours, no mains power, a busy GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ollama_sweep.core.units import local_time
from ollama_sweep.machine import conditions
from ollama_sweep.machine.clocks import REAL, Clock
from ollama_sweep.run.control import POLL_S
from ollama_sweep.store.beside import db_words, paused_since


class Hold:
    """Asked before each cell: what a sweep on this database waits for, None where the cell may start.

    `sees_gpu`: the GPUs of this computer are those that are measured. On a clock of its own only the hours count.
    """

    def __init__(
        self,
        db: Path,
        when: conditions.Conditions,
        say: Callable[[str], None],
        *,
        sees_gpu: bool = True,
        clock: Clock = REAL,
    ) -> None:
        self._db, self._when, self._say, self._clock = db, when, say, clock
        if not clock.is_real:
            self._when = conditions.Conditions(when.quiet)
        self._gpu = conditions.IdleGpu() if sees_gpu else conditions.IdleGpu(shares=list)

    def __call__(self) -> conditions.Wait | None:
        paused = paused_since(self._db)
        if paused is not None:
            since = conditions.clock(paused, local_time(REAL.now_s()))
            return conditions.Wait(
                f"paused since {since}; go on with: ollama-sweep continue{db_words(self._db)}",
                None,
                POLL_S,
                is_for_others=True,
            )
        could_tell = self._gpu.can_tell
        wait = conditions.when_may_i_run(
            local_time(self._clock.now_s()), self._when, conditions.on_battery, self._gpu.is_busy
        )
        if could_tell and not self._gpu.can_tell:
            self._say("Warning: no GPU here says how busy it is, so wait_for_idle_gpu waits for nothing")
        return wait
