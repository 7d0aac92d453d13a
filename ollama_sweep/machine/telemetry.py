"""What the engine's processes take while a cell is measured: memory, energy, memory of the GPU; what spoils numbers
meanwhile: lowered clocks, programs of others on the GPU and on the processor; and all of it over time.

A thread looks at memory every half second, and at the tree of processes every five, because that costs more. Each
second it notes what the sensors say; they are read by threads of their own, so that one that hangs costs its own
numbers only.
A sensor that is absent gives no number, never zero. Nothing here ever raises: a number less, not a cell less.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ollama_sweep.core.outcome import Series
from ollama_sweep.machine import neighbours
from ollama_sweep.machine.crew import start
from ollama_sweep.machine.neighbours import CoreTime
from ollama_sweep.machine.sensing.find import find_sensors
from ollama_sweep.machine.sensing.gauge import Sensor
from ollama_sweep.machine.sensing.meter import Meter, together
from ollama_sweep.machine.sensing.series import STEP_S, Collector

EVERY_S = 0.5
TREE_EVERY_S = 5.0
STOP_S = 5.0

Pids = Callable[[], tuple[int, ...]]
Cores = Callable[[Sequence[int]], CoreTime | None]


def _core_time(pids: Sequence[int]) -> CoreTime | None:
    return neighbours.core_time(pids)


class Watch(Protocol):
    """What a cell is watched with."""

    def begin_load(self) -> None:
        """A load begins: `series` counts from here, numbers do not."""

    def start(self) -> None:
        """The engine is loaded: numbers count from here."""

    def begin_runs(self) -> None:
        """The runs that count begin, after those that warm up: what others take of the processor counts from here."""

    def mark(self) -> None:
        """A run begins: `peak_since_mark` counts from here."""

    def peak_since_mark(self) -> int | None:
        """The largest memory of the engine's processes since the mark, in bytes; None where it is not known."""

    def stop(self) -> dict[str, float]:
        """End it. What is known of peak_rss_bytes, peak_vram_bytes, energy_j with its parts cpu_ and gpu_energy_j,
        mean_power_w, peak_gpu_celsius, and throttled_s, the time with lowered clocks; gpu_shared_s, the time in which a
        program of others computed on the engine's GPU; others_cpu_share, the share of all cores that others used since
        `begin_runs`.

        Calling it again gives the same.
        """

    def series(self) -> Series:
        """What was seen over time; empty where nothing was."""

    def newly_lost(self) -> tuple[str, ...]:
        """The names of sensors that have failed and were not told of before."""


class NoTelemetry:
    """Watches nothing."""

    def begin_load(self) -> None:
        return None

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

    def series(self) -> Series:
        return Series()

    def newly_lost(self) -> tuple[str, ...]:
        return ()


class Telemetry:
    """Watches the processes that `pids` names, with all their children, from `start` to `stop`, and the sensors and the
    computer as a whole from `begin_load` on.

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
        step_s: float = STEP_S,
        cores: Cores | None = _core_time,
    ) -> None:
        self._pids = pids
        self._every_s, self._tree_every_s, self._step_s = every_s, tree_every_s, step_s
        found = find_sensors() if sensors is None else sensors
        self._meters = [Meter(sensor, every_s, self._watched) for sensor in found]
        self._cores = cores
        self._at_begin: CoreTime | None = None
        self._others_cpu_share: float | None = None
        self._roots: tuple[int, ...] = ()
        self._family: dict[int, Any] = {}
        self._tree_at = -float("inf")
        self._peak: int | None = None
        self._run_peak: int | None = None
        self._now_rss: int | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_started = False
        self._began_at = self._sampled_at = 0.0
        self._usage = neighbours.Usage()
        self._collector = Collector(step_s)

    def begin_load(self) -> None:
        """Begin to look at sensors and computer. Calling it again changes nothing."""
        if self._thread is None:
            self._begin(counts=False)

    def _begin(self, *, counts: bool) -> None:
        self._began_at = time.monotonic()
        self._sample()
        for meter in self._meters:
            meter.start(counts=counts)
        self._thread = threading.Thread(target=self._watch, name="telemetry", daemon=True)
        with contextlib.suppress(RuntimeError):  # no room for another thread: marks still look
            start(self._thread)

    def start(self) -> None:
        """Begin to watch. Calling it again changes nothing."""
        if self._is_started:
            return
        self._is_started = True
        self._find_roots()
        self._look()
        if self._thread is None:
            self._begin(counts=True)
        else:
            for meter in self._meters:
                meter.count_anew()
        self._collector.counts_from_s = time.monotonic() - self._began_at

    def begin_runs(self) -> None:
        self._at_begin = self._core_time()
        self._collector.runs_from_s = time.monotonic() - self._began_at

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
            self._sample()
        self._ended.set()
        self._wait_for_threads()
        found: dict[str, float] = {}
        if self._peak is not None:
            found["peak_rss_bytes"] = float(self._peak)
        if self._is_started:
            found.update(_of_sensors(self._meters))
        if self._others_cpu_share is not None:
            found["others_cpu_share"] = self._others_cpu_share
        return found

    def _wait_for_threads(self) -> None:
        for meter in self._meters:
            meter.end()
        until = time.monotonic() + STOP_S
        for meter in self._meters:
            meter.wait(until)
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(STOP_S)

    def series(self) -> Series:
        with self._lock:
            return self._collector.series()

    def newly_lost(self) -> tuple[str, ...]:
        lost = [meter.sensor for meter in self._meters if meter.sensor.is_off and meter.sensor.has_answered]
        for sensor in lost:
            sensor.has_answered = False
        return tuple(sensor.name for sensor in lost)

    # -- the thread ----------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._ended.wait(min(self._every_s, self._step_s)):
            self._look()
            for meter in self._meters:
                meter.give_up_if_it_hangs()
            if time.monotonic() - self._sampled_at >= self._step_s - self._every_s / 2:
                self._sample()

    def _sample(self) -> None:
        """Note what everything says now."""
        with contextlib.suppress(Exception):
            now = time.monotonic()
            lines = [pair for meter in self._meters for pair in meter.lines().items()]
            readings = {**self._usage.now(), **together(lines)}
            with self._lock:
                if self._now_rss is not None:
                    readings["rss_bytes"] = float(self._now_rss)
                self._collector.add(now - self._began_at, readings)
            self._sampled_at = now

    def _watched(self) -> frozenset[int]:
        with self._lock:
            return frozenset(self._family)

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
            self._now_rss = sum(sizes) if sizes else None
            if self._now_rss is not None:
                self._peak = max(self._peak or 0, self._now_rss)
                self._run_peak = max(self._run_peak or 0, self._now_rss)

    def _size(self, pid: int) -> int | None:
        import psutil

        try:
            return int(self._family[pid].memory_info().rss)
        except (psutil.Error, OSError):
            del self._family[pid]
            return None


def _of_sensors(meters: Sequence[Meter]) -> dict[str, float]:
    """What the sensors have come to."""
    found: dict[str, float] = {}
    used = [meter.used_bytes for meter in meters if meter.used_bytes is not None]
    if used:
        found["peak_vram_bytes"] = float(max(used))
    counted = [(meter.sensor.kind, one) for meter in meters for one in meter.counted.values()]
    energies = [(kind, one.energy_j, one.energy_s) for kind, one in counted if one.energy_j is not None]
    for kind, energy_j, energy_s in energies:
        for name, part in ((f"{kind}_energy_j", energy_j), ("energy_j", energy_j)):
            found[name] = found.get(name, 0.0) + part
        if energy_s > 0:
            found["mean_power_w"] = found.get("mean_power_w", 0.0) + energy_j / energy_s
    heats = [meter.peak_celsius for meter in meters if meter.peak_celsius is not None and meter.sensor.kind == "gpu"]
    throttled = [one.throttled_s for _, one in counted if one.throttled_s is not None]
    shared = [one.shared_s for _, one in counted if one.shared_s is not None]
    for name, values in (("peak_gpu_celsius", heats), ("throttled_s", throttled), ("gpu_shared_s", shared)):
        if values:
            found[name] = max(values)
    return found
