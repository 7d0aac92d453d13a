"""What a machine's sensors say: energy of processor and GPU, memory of the GPU, lowered clocks."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ollama_sweep.machine import amd, computer, neighbours

EVERY_S = 0.5
SELDOM_S = 5.0
SMI_EVERY_S = 10.0
NVML_ERROR_NOT_FOUND = 6
"""What the driver says where no program has computed."""
POWERCAP = Path("/sys/class/powercap")
PROCESSORS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Gauge:
    """What one sensor says now: a counter of energy (J), or a power (W), and memory in use (bytes); None is unknown.

    `is_throttled`: heat or the supply holds the clock down, or has done so since the last reading. `is_shared`: a
    program of others computes on this GPU, which the engine uses as well.
    """

    energy_j: float | None = None
    power_w: float | None = None
    used_bytes: int | None = None
    is_throttled: bool | None = None
    is_shared: bool | None = None


class Sensor(Protocol):
    """Something that is read again and again; `every_s` is how often that is cheap enough.

    One that has failed `is_off` from then on, in later cells as well. One that `has_answered` before is told of.
    """

    every_s: float
    kind: str
    name: str
    is_off: bool
    has_answered: bool

    def read(self, pids: frozenset[int]) -> dict[str, Gauge]:
        """The gauges by name (a GPU, a processor). `pids` are the engine's. May raise anything."""


@functools.cache
def find_sensors() -> tuple[Sensor, ...]:
    """The sensors of this machine: the processor's energy and heat on Linux where they may be read; NVIDIA's GPUs; who
    computes on AMD's.
    """
    found: list[Sensor] = []
    for kind in (Rapl, ProcessorHeat):
        with contextlib.suppress(Exception):
            sensor = kind()
            if sensor.read(frozenset()):
                found.append(sensor)
    if computer.has_nvidia():
        found.append(_nvml() or NvidiaSmi())
    if amd.can_tell():
        found.append(AmdPrograms())
    return tuple(found)


class Rapl:
    """The energy of the processor's packages as Linux counts it (Intel and AMD); most systems show it to root only."""

    every_s = SELDOM_S
    kind = "cpu"
    name = "the processor's energy counter"
    is_off = has_answered = False

    def __init__(self, folder: Path = POWERCAP) -> None:
        self._zones = [zone for zone in sorted(folder.glob("intel-rapl:*")) if zone.name.count(":") == 1]
        self._zones = [zone for zone in self._zones if _line(zone / "name").startswith("package")]
        self._turns: dict[str, tuple[float, float]] = {}

    def read(self, pids: frozenset[int]) -> dict[str, Gauge]:
        return {zone.name: Gauge(energy_j=self._unrolled(zone)) for zone in self._zones}

    def _unrolled(self, zone: Path) -> float:
        """The counter in J, counted on where it began again at zero. Raises OSError where it may not be read."""
        value = float((zone / "energy_uj").read_text()) / 1e6
        before, added = self._turns.get(zone.name, (value, 0.0))
        if value < before:
            added += float((zone / "max_energy_range_uj").read_text()) / 1e6
        self._turns[zone.name] = value, added
        return value + added


class ProcessorHeat:
    """How often the processor's packages lowered their clocks for heat, as Linux counts it (Intel)."""

    every_s = EVERY_S
    kind = "cpu"
    name = "the processor's heat counter"
    is_off = has_answered = False

    def __init__(self, folder: Path = PROCESSORS) -> None:
        self._counters = sorted(folder.glob("cpu[0-9]*/thermal_throttle/package_throttle_count"))
        self._before: int | None = None

    def read(self, pids: frozenset[int]) -> dict[str, Gauge]:
        if not self._counters:
            return {}
        count = sum(int(counter.read_text()) for counter in self._counters)
        before, self._before = self._before, count
        return {"processor": Gauge(is_throttled=before is not None and count > before)}


class Nvml:
    """NVIDIA GPUs through the driver's own library; `library` is the module `pynvml`, ready to use.

    Where the driver names the engine's processes, only the GPUs they use count, else all of them. Memory is what is
    in use on these GPUs, by whomever.
    """

    every_s = EVERY_S
    kind = "gpu"
    name = "the NVIDIA driver"
    is_off = has_answered = False

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
        return Gauge(
            energy_j=None if millijoules is None else float(millijoules) / 1000,
            power_w=None if milliwatts is None else float(milliwatts) / 1000,
            used_bytes=None if memory is None else int(memory.used),
            is_throttled=computer.is_throttled(self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)),
        )

    def _ask(self, name: str, handle: Any) -> Any:
        """An answer of the library, or None: not every GPU has every sensor, nor every version every name."""
        try:
            return getattr(self._library, name)(handle)
        except (self._library.NVMLError, AttributeError):
            return None


class NvidiaSmi:
    """NVIDIA GPUs through `nvidia-smi`, seldom, because each call starts a program."""

    every_s = SMI_EVERY_S
    kind = "gpu"
    name = "nvidia-smi"
    is_off = has_answered = False

    def read(self, pids: frozenset[int]) -> dict[str, Gauge]:
        loads = computer.gpu_loads()
        programs = computer.gpu_programs([load.index for load in loads]) if pids else {}
        return {
            load.index: Gauge(
                power_w=load.power_w,
                used_bytes=load.used_bytes,
                is_throttled=load.is_throttled,
                is_shared=_is_shared(programs.get(load.index, frozenset()), pids),
            )
            for load in loads
        }


class AmdPrograms:
    """Who computes on AMD's GPUs, of the kernel's driver, else of AMD's tools."""

    kind = "gpu"
    name = "AMD's driver"
    is_off = has_answered = False

    def __init__(self) -> None:
        self.every_s = EVERY_S if amd.KFD_PROCESSES.is_dir() else SMI_EVERY_S

    def read(self, pids: frozenset[int]) -> dict[str, Gauge]:
        programs = amd.programs()
        if programs is None:
            return {}
        return {"amd": Gauge(), **{f"amd {gpu}": Gauge(is_shared=_is_shared(found, pids))
                                   for gpu, found in programs.items()}}  # fmt: skip


def _is_shared(programs: frozenset[int], pids: frozenset[int]) -> bool | None:
    """Whether others are among a GPU's programs. None where the engine is not: it uses another GPU, or the driver's ids
    are not this system's, as in a container.
    """
    return bool(neighbours.foreign(programs, pids)) if programs & pids else None


def _nvml() -> Nvml | None:
    """The GPUs through the driver's own library; None where it does not work."""
    try:
        import pynvml

        pynvml.nvmlInit()
        found = Nvml(pynvml)
        return found if found.read(frozenset()) else None
    except Exception:  # a number less, not a sweep less
        return None


def _line(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
