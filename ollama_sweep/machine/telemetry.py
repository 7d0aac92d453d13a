"""What the engine's processes take while a cell is measured: memory, energy, memory of the GPU; and what spoils numbers
meanwhile: lowered clocks, programs of others on the GPU and on the processor.

A thread looks every half second; the tree of processes and the energy counters only every five, because they cost
more. A sensor that is absent gives no number, never zero. Nothing here ever raises: a number less, not a cell less.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ollama_sweep.machine import neighbours
from ollama_sweep.machine.neighbours import CoreTime
from ollama_sweep.machine.sensors import EVERY_S, Gauge, Sensor, find_sensors

TREE_EVERY_S = 5.0
STOP_S = 2.0

Pids = Callable[[], tuple[int, ...]]
Cores = Callable[[Sequence[int]], CoreTime | None]


def _core_time(pids: Sequence[int]) -> CoreTime | None:
    return neighbours.core_time(pids)


class Watch(Protocol):
    """What a cell is watched with."""

    def start(self) -> None:
        """Begin to watch."""

    def begin_runs(self) -> None:
        """The runs that count begin, after those that warm up: what others take of the processor counts from here."""

    def mark(self) -> None:
        """A run begins: `peak_since_mark` counts from here."""

    def peak_since_mark(self) -> int | None:
        """The largest memory of the engine's processes since the mark, in bytes; None where it is not known."""

    def stop(self) -> dict[str, float]:
        """End it. What is known of peak_rss_bytes, peak_vram_bytes, energy_j with its parts cpu_ and gpu_energy_j, and
        throttled_s, the time with lowered clocks; gpu_shared_s, the time in which a program of others computed on the
        engine's GPU; others_cpu_share, the share of all cores that others used since `begin_runs`.

        Calling it again gives the same.
        """

    def newly_lost(self) -> tuple[str, ...]:
        """The names of sensors that have failed and were not told of before."""


class NoTelemetry:
    """Watches nothing."""

    def start(self) -> None:
        return None

    def begin_runs(self) -> None:
        return None

    def mark(self) -> None:
        return None

    def peak_since_mark(self) -> int | None:
        return None

    def stop(self) -> dict[str, float]:
        return {}

    def newly_lost(self) -> tuple[str, ...]:
        return ()


class Telemetry:
    """Watches the processes that `pids` names, with all their children, from `start` to `stop`.

    `pids` is called in the thread of the caller only: at the start, and at a mark where none of them lives any more.
    Resident memory counts pages that several processes share (a mapped model file) once for each of them. `cores` says
    what the cores have done until now, for the engine's processes; None where nobody wants to know.
    """

    def __init__(
        self,
        pids: Pids,
        *,
        sensors: Sequence[Sensor] | None = None,
        every_s: float = EVERY_S,
        tree_every_s: float = TREE_EVERY_S,
        cores: Cores | None = _core_time,
    ) -> None:
        self._pids = pids
        self._every_s, self._tree_every_s = every_s, tree_every_s
        self._sensors = [_Meter(sensor) for sensor in (find_sensors() if sensors is None else sensors)]
        self._cores = cores
        self._at_begin: CoreTime | None = None
        self._others_cpu_share: float | None = None
        self._roots: tuple[int, ...] = ()
        self._family: dict[int, Any] = {}
        self._tree_at = -float("inf")
        self._peak: int | None = None
        self._run_peak: int | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch. Calling it again changes nothing."""
        if self._thread is not None:
            return
        self._find_roots()
        self._look()
        self._thread = threading.Thread(target=self._watch, name="telemetry", daemon=True)
        with contextlib.suppress(RuntimeError):  # no room for another thread: marks still look
            self._thread.start()

    def begin_runs(self) -> None:
        self._at_begin = self._core_time()

    def _core_time(self) -> CoreTime | None:
        with contextlib.suppress(Exception):
            return self._cores(self._roots) if self._cores is not None else None
        return None

    def mark(self) -> None:
        with self._lock:
            self._run_peak = None
        self._look()
        if not self._family:
            self._find_roots()
            self._look()

    def peak_since_mark(self) -> int | None:
        self._look()
        with self._lock:
            return self._run_peak

    def stop(self) -> dict[str, float]:
        if not self._ended.is_set():
            self._others_cpu_share = neighbours.others_share(self._at_begin, self._core_time())
            self._look()
        self._ended.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(STOP_S)
        found: dict[str, float] = {}
        if self._peak is not None:
            found["peak_rss_bytes"] = float(self._peak)
        used = [meter.used_bytes for meter in self._sensors if meter.used_bytes is not None]
        if used:
            found["peak_vram_bytes"] = float(max(used))
        for meter in self._sensors:
            if meter.energy_j is not None:
                found[f"{meter.kind}_energy_j"] = meter.energy_j
                found["energy_j"] = found.get("energy_j", 0.0) + meter.energy_j
        throttled = [seconds for meter in self._sensors for seconds in meter.throttled_s.values()]
        if throttled:
            found["throttled_s"] = max(throttled)
        shared = [seconds for meter in self._sensors for seconds in meter.shared_s.values()]
        if shared:
            found["gpu_shared_s"] = max(shared)
        if self._others_cpu_share is not None:
            found["others_cpu_share"] = self._others_cpu_share
        return found

    def newly_lost(self) -> tuple[str, ...]:
        lost = [meter.sensor for meter in self._sensors if meter.sensor.is_off and meter.sensor.has_answered]
        for sensor in lost:
            sensor.has_answered = False
        return tuple(sensor.name for sensor in lost)

    # -- the thread ----------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        self._read_sensors()
        while not self._ended.wait(self._every_s):
            self._look()
            self._read_sensors()
        self._read_sensors(last=True)

    def _read_sensors(self, *, last: bool = False) -> None:
        now = time.monotonic()
        with self._lock:
            pids = frozenset(self._family)
        for meter in self._sensors:
            meter.look(now, pids, last=last)

    def _find_roots(self) -> None:
        roots: tuple[int, ...] = ()
        with contextlib.suppress(Exception):
            roots = tuple(self._pids())
        with self._lock:
            self._roots = roots
            self._tree_at = -float("inf")

    def _look(self) -> None:
        """One look at the memory of the whole family."""
        with self._lock, contextlib.suppress(Exception):
            now = time.monotonic()
            if now - self._tree_at >= self._tree_every_s:
                self._family = neighbours.family(self._roots)
                self._tree_at = now
            sizes = [size for pid in list(self._family) if (size := self._size(pid)) is not None]
            if sizes:
                together = sum(sizes)
                self._peak = max(self._peak or 0, together)
                self._run_peak = max(self._run_peak or 0, together)

    def _size(self, pid: int) -> int | None:
        import psutil

        try:
            return int(self._family[pid].memory_info().rss)
        except (psutil.Error, OSError):
            del self._family[pid]
            return None


class _Meter:
    """One sensor from its first to its last reading; it is read no more once it has failed."""

    def __init__(self, sensor: Sensor) -> None:
        self.sensor = sensor
        self._last: dict[str, tuple[float, Gauge]] = {}
        self._read_at = -float("inf")
        self.kind = sensor.kind
        self.energy_j: float | None = None
        self.used_bytes: int | None = None
        self.throttled_s: dict[str, float] = {}
        self.shared_s: dict[str, float] = {}

    def look(self, now: float, pids: frozenset[int], *, last: bool = False) -> None:
        if self.sensor.is_off or (not last and now - self._read_at < self.sensor.every_s):
            return
        try:
            gauges = self.sensor.read(pids)
        except Exception:  # a driver's library raises what it likes
            gauges = {}
        self.sensor.is_off = not gauges
        self.sensor.has_answered |= bool(gauges)
        self._read_at = now
        now = time.monotonic()
        for name, gauge in gauges.items():
            if name in self._last:
                self._add(*self._last[name], now, gauge)
                then, before = self._last[name]
                self._add_throttled(name, now - then, gauge)
                self._add_shared(name, now - then, before, gauge)
            self._last[name] = (now, gauge)
        used = [gauge.used_bytes for gauge in gauges.values() if gauge.used_bytes is not None]
        if used:
            self.used_bytes = max(self.used_bytes or 0, sum(used))

    def _add(self, then: float, before: Gauge, now: float, gauge: Gauge) -> None:
        """The energy between two readings: of the counter, else of the mean power. A counter that fell is left out."""
        spent: float | None = None
        if before.energy_j is not None and gauge.energy_j is not None:
            spent = gauge.energy_j - before.energy_j
        elif before.power_w is not None and gauge.power_w is not None:
            spent = (before.power_w + gauge.power_w) / 2 * (now - then)
        if spent is not None and spent >= 0:
            self.energy_j = (self.energy_j or 0.0) + spent

    def _add_throttled(self, name: str, seconds: float, gauge: Gauge) -> None:
        if gauge.is_throttled is not None:
            self.throttled_s[name] = self.throttled_s.get(name, 0.0) + (seconds if gauge.is_throttled else 0.0)

    def _add_shared(self, name: str, seconds: float, before: Gauge, gauge: Gauge) -> None:
        """Seen at either end, it was there for the time between."""
        if before.is_shared is None and gauge.is_shared is None:
            return
        is_shared = before.is_shared or gauge.is_shared
        self.shared_s[name] = self.shared_s.get(name, 0.0) + (seconds if is_shared else 0.0)
