"""Which sensors this machine has."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator

from ollama_sweep.machine import amd, computer
from ollama_sweep.machine.sensing import nvidia, patience
from ollama_sweep.machine.sensing.amd_gpus import AmdCards, AmdPrograms, AmdTool
from ollama_sweep.machine.sensing.gauge import Sensor, Silent
from ollama_sweep.machine.sensing.other_gpus import AppleGpu, IntelCards
from ollama_sweep.machine.sensing.processor import Charge, Pressure, ProcessorHeat, Rapl

FIND_S = 20.0
"""A sensor that has not said by then whether it is there is left alone."""


@functools.cache
def find_sensors() -> tuple[Sensor, ...]:
    """The sensors that may be read here: processor, pressure, battery, GPUs. What hangs is left out, and told of."""
    return tuple(_found())


def _found() -> Iterator[Sensor]:
    for make in (Rapl, ProcessorHeat, Pressure, Charge):
        yield from _if_there(make, make.kind, make.name)
    has_nvidia = computer.has_nvidia()  # asks a program, which may hang without harm
    if has_nvidia:
        opened = list(_if_there(nvidia.open_nvml, nvidia.Nvml.kind, nvidia.Nvml.name))
        yield from opened
        if not any(isinstance(sensor, nvidia.Nvml) for sensor in opened):
            yield nvidia.NvidiaSmi()
    cards = list(_if_there(lambda: AmdCards(only_named=has_nvidia), AmdCards.kind, AmdCards.name))
    if not cards and not has_nvidia and any(amd.is_there(command[0]) for command in amd.TOOLS):
        cards = list(_if_there(AmdTool, AmdTool.kind, AmdTool.name))
    yield from cards
    if not has_nvidia and not cards:
        yield from _if_there(IntelCards, IntelCards.kind, IntelCards.name)
    if sys.platform == "darwin":
        yield from _if_there(AppleGpu, AppleGpu.kind, AppleGpu.name)
    if amd.can_tell():
        yield AmdPrograms()


def _if_there(make: Callable[[], Sensor | None], kind: str, name: str) -> Iterator[Sensor]:
    """The sensor, where it gives a reading now."""

    def tried() -> Sensor | None:
        sensor = make()
        return sensor if sensor is not None and sensor.read(frozenset()) else None

    try:
        found = patience.answer(tried, FIND_S)
    except patience.Hangs:
        found = Silent(kind, name)
    except Exception:  # a number less, not a sweep less
        return
    if found is not None:
        yield found
