"""Why no cell may start now: a pause that was asked for, quiet hours, no mains power, a busy GPU."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from ollama_sweep.machine import conditions
from ollama_sweep.run.control import POLL_S
from ollama_sweep.store.beside import db_words, paused_since


class Hold:
    """Asked before each cell: what a sweep on this database waits for, None where the cell may start.

    `sees_gpu`: the GPUs of this computer are those that are measured.
    """

    def __init__(
        self, db: Path, when: conditions.Conditions, say: Callable[[str], None], *, sees_gpu: bool = True
    ) -> None:
        self._db, self._when, self._say = db, when, say
        self._gpu = conditions.IdleGpu() if sees_gpu else conditions.IdleGpu(shares=list)

    def __call__(self) -> conditions.Wait | None:
        paused = paused_since(self._db)
        if paused is not None:
            since = conditions.clock(paused, datetime.now())
            return conditions.Wait(
                f"paused since {since}; go on with: ollama-sweep continue{db_words(self._db)}", None, POLL_S
            )
        could_tell = self._gpu.can_tell
        wait = conditions.when_may_i_run(datetime.now(), self._when, conditions.on_battery, self._gpu.is_busy)
        if could_tell and not self._gpu.can_tell:
            self._say("Warning: no GPU here says how busy it is, so wait_for_idle_gpu waits for nothing")
        return wait
