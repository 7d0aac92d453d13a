"""What a machine's sensors say: energy of processor and GPU, memory of the GPU, lowered clocks."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ollama_sweep.machine import computer

EVERY_S = 0.5
SELDOM_S = 5.0
SMI_EVERY_S = 10.0
POWERCAP = Path("/sys/class/powercap")
PROCESSORS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Gauge:
    """What one sensor says now: a counter of energy (J), or a power (W), and memory in use (bytes); None is unknown.

    `is_throttled`: heat or the supply holds the clock down, or has done so since the last reading.
    """

    energy_j: float | None = None
    power_w: float | None = None
    used_bytes: int | None = None
    is_throttled: bool | None = None


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
    """The sensors of this machine: the processor's energy and heat on Linux where they may be read, and NVIDIA GPUs."""
    found: list[Sensor] = []
    for kind in (Rapl, ProcessorHeat):
        with contextlib.suppress(Exception):
            sensor = kind()
            if sensor.read(frozenset()):
                found.append(sensor)
    if computer.has_nvidia():
        found.append(_nvml() or NvidiaSmi())
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
        self._handles = [
            library.nvmlDeviceGetHandleByIndex(index) for index in range(int(library.nvmlDeviceGetCount()))
        ]
        self._ours: list[int] = []
        self._looked_for: frozenset[int] = frozenset()

    def read(self, pids: frozenset[int]) -> dict[str, Gauge]:
        if pids != self._looked_for:
            self._ours = [index for index, handle in enumerate(self._handles) if pids & self._programs(handle)]
            self._looked_for = pids if self._ours else frozenset()
        chosen = self._ours or range(len(self._handles))
        return {str(index): self._gauge(self._handles[index]) for index in chosen}

    def _programs(self, handle: Any) -> frozenset[int]:
        found = self._ask("nvmlDeviceGetComputeRunningProcesses", handle)
        return frozenset(int(program.pid) for program in found or ())

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
        return {
            load.index: Gauge(power_w=load.power_w, used_bytes=load.used_bytes, is_throttled=load.is_throttled)
            for load in computer.gpu_loads()
        }


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
