"""The processor's energy and heat, what waits for memory, disk and cores, and the battery."""

from __future__ import annotations

from pathlib import Path

from ollama_sweep.machine import computer
from ollama_sweep.machine.sensing.gauge import SELDOM_S, Base, Gauge, line

POWERCAP = Path("/sys/class/powercap")
PROCESSORS = Path("/sys/devices/system/cpu")
PRESSURE_FOLDER = Path("/proc/pressure")
PRESSURES = ("memory", "io", "cpu")


class Rapl(Base):
    """The energy of the processor's packages as Linux counts it (Intel and AMD); most systems show it to root only."""

    kind = "cpu"
    name = "the processor's energy counter"

    def __init__(self, folder: Path = POWERCAP) -> None:
        self._zones = [zone for zone in sorted(folder.glob("intel-rapl:*")) if zone.name.count(":") == 1]
        self._zones = [zone for zone in self._zones if line(zone / "name").startswith("package")]
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


class ProcessorHeat(Base):
    """How often the processor's packages lowered their clocks for heat, as Linux counts it (Intel)."""

    kind = "cpu"
    name = "the processor's heat counter"

    def __init__(self, folder: Path = PROCESSORS) -> None:
        self._counters = sorted(folder.glob("cpu[0-9]*/thermal_throttle/package_throttle_count"))
        self._before: int | None = None

    def read(self, pids: frozenset[int]) -> dict[str, Gauge]:
        if not self._counters:
            return {}
        count = sum(int(counter.read_text()) for counter in self._counters)
        before, self._before = self._before, count
        return {"processor": Gauge(is_throttled=before is not None and count > before)}


class Pressure(Base):
    """For how long some task had to wait for memory, for the disk, for a core, as Linux counts it (PSI)."""

    kind = "pressure"
    name = "the kernel's count of pressure"

    def __init__(self, folder: Path = PRESSURE_FOLDER) -> None:
        self._files = {kind: folder / kind for kind in PRESSURES}

    def read(self, pids: frozenset[int]) -> dict[str, Gauge]:
        found = {kind: _waited_s(file) for kind, file in self._files.items()}
        return {kind: Gauge(waited_s=seconds) for kind, seconds in found.items() if seconds is not None}


def _waited_s(file: Path) -> float | None:
    """Of `some avg10=0.00 avg60=0.00 avg300=0.00 total=1234567`, in microseconds."""
    total = line(file).partition("\n")[0].rpartition("total=")[2]
    return int(total) / 1e6 if total.isdigit() else None


class Charge(Base):
    """The battery's charge."""

    every_s = SELDOM_S
    kind = "battery"
    name = "the battery"

    def read(self, pids: frozenset[int]) -> dict[str, Gauge]:
        found = computer.battery()
        return {} if found is None else {"battery": Gauge(percent=found.percent)}
