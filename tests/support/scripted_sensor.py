"""A sensor that says what a test wants it to say, and stands still where the test wants that."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from ollama_sweep.machine.sensing.gauge import Gauge


@dataclass
class ScriptedSensor:
    """It gives these readings one after the other, the last one again and again; an exception is raised.

    At a step that is an event (`threading.Event`) it stands still until that is set, and from then on has the patience
    `stands_patience_s`, where that is given: no earlier reading is too slow for it, however busy the machine is.
    """

    steps: list[Any]
    kind: str = "gpu"
    every_s: float = 0.0
    patience_s: float = 600.0
    stands_patience_s: float | None = None
    name: str = "a script"
    is_off: bool = False
    has_answered: bool = False
    pids: list[frozenset[int]] = field(default_factory=list)

    def read(self, pids: frozenset[int]) -> dict[str, Gauge]:
        self.pids.append(pids)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, Exception):
            raise step
        if isinstance(step, threading.Event):
            if self.stands_patience_s is not None:
                self.patience_s = self.stands_patience_s
            step.wait()
            return {"0": Gauge()}
        return dict(step)
