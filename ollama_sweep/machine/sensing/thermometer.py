"""How warm the GPUs are while nothing is measured: asked seldom, so programs may be started for it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

from ollama_sweep.machine import computer
from ollama_sweep.machine.sensing import patience
from ollama_sweep.machine.sensing.amd_gpus import AmdCards, AmdTool
from ollama_sweep.machine.sensing.gauge import PATIENCE_S, Gauge, Sensor
from ollama_sweep.machine.sensing.other_gpus import IntelCards

T = TypeVar("T")
AMD_VISIBLE = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


class Thermometer:
    """The temperatures of the GPUs that an engine with these settings of the environment may use.

    A driver that hangs is not asked a second time.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = settings
        self._is_nvidia = computer.has_nvidia()
        makers: tuple[type[Sensor], ...] = () if self._is_nvidia else (AmdCards, AmdTool, IntelCards)
        self._sensors: list[Sensor] = [make() for make in makers]

    def celsius(self) -> dict[str, float]:
        """By name; a GPU that does not say it is left out, and so is all of a driver that hangs."""
        if self._is_nvidia:
            states = computer.visible(computer.gpu_states(), self._settings)
            return {f"GPU {state.index}": state.celsius for state in states if state.celsius is not None}
        for sensor in list(self._sensors):
            found = self._read(sensor)
            heats = {name: gauge.celsius for name, gauge in found.items() if gauge.celsius is not None}
            if heats:
                self._sensors = [sensor]
                return heats
        return {}

    def _read(self, sensor: Sensor) -> Mapping[str, Gauge]:
        try:
            found = patience.answer(lambda: sensor.read(frozenset()), max(PATIENCE_S, sensor.patience_s))
        except patience.Hangs:
            self._sensors.remove(sensor)
            return {}
        except Exception:  # no reading
            return {}
        if isinstance(sensor, IntelCards):
            return found
        names = list(found)
        for variable in AMD_VISIBLE:
            names = _chosen(names, self._settings.get(variable))
        return {name: found[name] for name in names}


def _chosen(names: Sequence[str], numbers: str | None) -> list[str]:
    """Those of the names that a list of numbers leaves; all of them where it is none."""
    with contextlib.suppress(ValueError):
        chosen = [int(word) for word in (numbers or "").split(",")]
        return [names[number] for number in chosen if 0 <= number < len(names)]
    return list(names)
