"""NVIDIA's GPUs: by the driver's own library, else by `nvidia-smi`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ollama_sweep.machine import computer, neighbours
from ollama_sweep.machine.sensing.gauge import EVERY_S, PATIENCE_WITH_PROGRAMS_S, SELDOM_S, Base, Gauge

NVML_ERROR_NOT_FOUND = 6
"""What the driver says where no program has computed."""
OF_THE_GPU, OF_THE_CORES = 0, 1
"""NVML's numbers of the sensor that every card has, and of the clock of its cores."""


class Nvml(Base):
    """NVIDIA GPUs through the driver's own library; `library` is the module `pynvml`, ready to use.

    Where the driver names the engine's processes, only the GPUs they use count, else all of them. Memory is what is
    in use on these GPUs, by whomever.
    """

    kind = "gpu"
    name = "the NVIDIA driver"

    def __init__(self, library: Any) -> None:
        self._library = library
        self._handles = dict(self._working_cards(int(library.nvmlDeviceGetCount())))
        self._ours: list[int] = []
        self._looked_for: frozenset[int] = frozenset()
        self._asked_from: dict[int, int] = {}
        self._tells_who: set[int] = set()

    def _working_cards(self, count: int) -> Iterator[tuple[int, Any]]:
        """A card that has failed has no handle; the others are read all the same."""
        for index in range(count):
            with contextlib.suppress(self._library.NVMLError):
                yield index, self._library.nvmlDeviceGetHandleByIndex(index)

    def read(self, pids: frozenset[int]) -> dict[str, Gauge]:
        programs = {index: self._programs(handle) for index, handle in self._handles.items()}
        ours = [index for index, found in programs.items() if pids & found]
        if ours or pids != self._looked_for:
            self._ours, self._looked_for = ours, pids
        shared = {index: self._is_shared(index, programs[index], pids) for index in ours}
        chosen = self._ours or list(self._handles)
        return {str(index): replace(self._gauge(self._handles[index]), is_shared=shared.get(index)) for index in chosen}

    def _programs(self, handle: Any) -> frozenset[int]:
        names = ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetMPSComputeRunningProcesses")
        return frozenset(int(program.pid) for name in names for program in self._ask(name, handle) or ())

    def _is_shared(self, index: int, programs: frozenset[int], pids: frozenset[int]) -> bool | None:
        """Whether others compute on a GPU of the engine. A program that only holds memory there computes nothing.

        Where the driver says who computes, it is believed once it has said so of the engine.
        """
        others = neighbours.foreign(programs, pids)
        computing = self._computing(index)
        if not others or computing is None:
            return bool(others)
        if computing & pids:
            self._tells_who.add(index)
        return bool(others & computing) if index in self._tells_who else None

    def _computing(self, index: int) -> frozenset[int] | None:
        """The programs that have computed on a GPU since they were asked for last; None where the driver cannot say."""
        since = self._asked_from.get(index, round((time.time() - EVERY_S) * 1e6))
        try:
            samples = self._library.nvmlDeviceGetProcessUtilization(self._handles[index], since)
        except AttributeError:
            return None
        except self._library.NVMLError as error:
            return frozenset() if getattr(error, "value", None) == NVML_ERROR_NOT_FOUND else None
        self._asked_from[index] = max((int(sample.timeStamp) for sample in samples), default=since)
        return frozenset(int(sample.pid) for sample in samples if int(sample.smUtil) > 0)

    def _gauge(self, handle: Any) -> Gauge:
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption", handle)
        milliwatts = None if millijoules is not None else self._ask("nvmlDeviceGetPowerUsage", handle)
        memory = self._ask("nvmlDeviceGetMemoryInfo", handle)
        busy = self._ask("nvmlDeviceGetUtilizationRates", handle)
        return Gauge(
            energy_j=None if millijoules is None else float(millijoules) / 1000,
            power_w=None if milliwatts is None else float(milliwatts) / 1000,
            used_bytes=None if memory is None else int(memory.used),
            is_throttled=computer.is_throttled(self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)),
            busy_share=None if busy is None else int(busy.gpu) / 100,
            celsius=_float(self._ask("nvmlDeviceGetTemperature", handle, OF_THE_GPU)),
            clock_mhz=_float(self._ask("nvmlDeviceGetClockInfo", handle, OF_THE_CORES)),
        )

    def _ask(self, name: str, *words: Any) -> Any:
        """An answer of the library, or None: not every GPU has every sensor, nor every version every name."""
        try:
            return getattr(self._library, name)(*words)
        except (self._library.NVMLError, AttributeError):
            return None


class NvidiaSmi(Base):
    """NVIDIA GPUs through `nvidia-smi`, seldom, because each call starts a program."""

    every_s = SELDOM_S
    patience_s = PATIENCE_WITH_PROGRAMS_S
    kind = "gpu"
    name = "nvidia-smi"

    def read(self, pids: frozenset[int]) -> dict[str, Gauge]:
        loads = computer.gpu_loads()
        programs = computer.gpu_programs([load.index for load in loads]) if pids else {}
        return {
            load.index: Gauge(
                power_w=load.power_w,
                used_bytes=load.used_bytes,
                is_throttled=load.is_throttled,
                is_shared=neighbours.is_shared(programs.get(load.index, frozenset()), pids),
                busy_share=load.busy_share,
                celsius=load.celsius,
                clock_mhz=load.clock_mhz,
            )
            for load in loads
        }


def open_nvml() -> Nvml | None:
    """The GPUs through the driver's own library; None where it does not work."""
    try:
        import pynvml

        pynvml.nvmlInit()
        found = Nvml(pynvml)
        return found if found.read(frozenset()) else None
    except Exception:  # a number less, not a sweep less
        return None


def _float(value: Any) -> float | None:
    return None if value is None else float(value)
