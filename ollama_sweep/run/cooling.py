"""The rest between two cells: for a time, or until the GPUs are as cool as is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.events import GoingOn, Notice, OnHold
from ollama_sweep.core.units import format_duration, local_time
from ollama_sweep.machine import ports
from ollama_sweep.machine.clocks import REAL, Clock
from ollama_sweep.machine.sensing.thermometer import Thermometer
from ollama_sweep.run import claims
from ollama_sweep.run.stopping import StopNow, Stopping
from ollama_sweep.run.waiting import Emit, pause, stopped

if TYPE_CHECKING:
    from ollama_sweep.engines.base import EngineInfo
    from ollama_sweep.plan.spec import Cooldown, SweepSpec

MOST_S = 600.0
AGAIN_S = 2.0
Celsius = Callable[[], Mapping[str, float]]


def check(spec: SweepSpec) -> None:
    """Before anything is made: a GPU must say how warm it is, where that is what is waited for. Raises ConfigError."""
    if spec.cooldown.gpu_c is not None and not Thermometer(_settings(spec)).celsius():
        raise ConfigError(
            f"{{gpu_c: {spec.cooldown.gpu_c}}} needs a GPU that says its temperature, and none here does; "
            "write a time such as 30s",
            "cooldown",
        )


def celsius_of(spec: SweepSpec, info: EngineInfo) -> Celsius:
    """How warm the GPUs of an engine are. Raises ConfigError where they are those of another computer."""
    if spec.cooldown.gpu_c is None:
        return dict
    if claims.is_elsewhere(info):
        text = f"how warm the GPUs at {info.where} are cannot be seen from here; write a time such as 30s"
        raise ConfigError(text, "cooldown")
    port = urlsplit(info.where).port if "://" in info.where and info.details.get("server") != "own" else None
    return Thermometer({**_settings(spec), **(ports.server_settings(port) or {} if port else {})}).celsius


def _settings(spec: SweepSpec) -> dict[str, str]:
    return {**os.environ, **{name: str(value) for name, value in spec.server.items()}}


@dataclass
class CoolDown:
    """Rests before each cell but the first. `is_warm` says of the next cell that the GPUs are not as cool as asked."""

    wanted: Cooldown
    celsius: Celsius
    stopping: Stopping
    emit: Emit
    is_warm: bool = False
    clock: Clock = REAL
    _ended_at: float | None = None
    _known: frozenset[str] = frozenset()
    _is_lost: bool = False

    def after_cell(self) -> None:
        """The rest begins."""
        self._ended_at = self.clock.monotonic_s()

    def before_control(self) -> None:
        """Rest after the cell that has just ended, so that the control cell is as cool as any other."""
        self.after_cell()
        self.before_cell()

    def before_cell(self) -> None:
        """Rest. Raises Stopped as soon as that is asked for."""
        if self._ended_at is None:
            if self.wanted.gpu_c is not None:
                self._known = frozenset(self._read())
        elif self.wanted.seconds is not None:
            self._rest(self._ended_at + self.wanted.seconds - self.clock.monotonic_s())
        elif self.wanted.gpu_c is not None:
            self._wait_for_the_gpus(self.wanted.gpu_c)

    def _rest(self, seconds: float) -> None:
        if seconds <= 0:
            return
        until = local_time(self.clock.now_s() + seconds)
        self.emit(OnHold(f"resting {format_duration(self.wanted.seconds or seconds)} between cells (cooldown)", until))
        pause(seconds, self.stopping, self.clock)
        self.emit(GoingOn())

    def _wait_for_the_gpus(self, gpu_c: int) -> None:
        until, is_waiting = self.clock.monotonic_s() + MOST_S, False
        while True:
            found = self._read()
            warmest = max(found.values(), default=0.0)
            self.is_warm = self._lacks_some(found) or warmest > gpu_c
            if not self.is_warm or self._is_lost:
                break
            if self.clock.monotonic_s() >= until:
                waited = format_duration(MOST_S)
                self.emit(Notice(f"Warning: the GPU is at {warmest:.0f} °C after {waited} and not at {gpu_c} °C: "
                                 "the next cell is measured all the same, with the flag warm"))  # fmt: skip
                break
            if not is_waiting:
                self.emit(OnHold(f"the GPU cools down from {warmest:.0f} to {gpu_c} °C (cooldown)"))
                is_waiting = True
            pause(AGAIN_S, self.stopping, self.clock)
        if is_waiting:
            self.emit(GoingOn())

    def _lacks_some(self, found: Mapping[str, float]) -> bool:
        """A GPU that said how warm it is does so no more: nobody waits for it, and the person is told once."""
        was_lost, self._is_lost = self._is_lost, not found or not self._known <= found.keys()
        self._known |= found.keys()
        if self._is_lost and not was_lost:
            self.emit(Notice("Warning: the GPU no longer says how warm it is: cells are measured without a cool-down, "
                             "with the flag warm"))  # fmt: skip
        return self._is_lost

    def _read(self) -> Mapping[str, float]:
        try:
            with self.stopping.interruptible():
                return self.celsius()
        except StopNow:
            raise stopped(self.stopping) from None
