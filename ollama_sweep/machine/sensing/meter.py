"""One sensor while an attempt lasts: read by a thread of its own, so that one that hangs costs its own numbers only."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ollama_sweep.machine.crew import start
from ollama_sweep.machine.sensing.gauge import SELDOM_S, Gauge, Sensor

FRESH_S = 3.0
"""A reading is that of now for so long, or for as long as the next two would take."""
_standing: dict[int, float] = {}
"""Since when which sensor is being read, by its id; a reading that hangs outlives the attempt that began it."""
_turn = threading.Lock()


@dataclass
class Counted:
    """What one gauge has come to since what counts began."""

    energy_j: float | None = None
    energy_s: float = 0.0
    throttled_s: float | None = None
    shared_s: float | None = None


@dataclass
class Meter:
    """One sensor from its first to its last reading; it is read no more once it has failed.

    `pids` gives the engine's processes. What a caller asks for may be asked at any time.
    """

    sensor: Sensor
    every_s: float
    pids: Callable[[], frozenset[int]]
    counted: dict[str, Counted] = field(default_factory=dict)
    used_bytes: int | None = None
    peak_celsius: float | None = None
    _last: dict[str, tuple[float, Gauge]] = field(default_factory=dict)
    _lines: dict[str, float] = field(default_factory=dict)
    _read_at: float = -float("inf")
    _ended: threading.Event = field(default_factory=threading.Event)
    _now: threading.Event = field(default_factory=threading.Event)
    _to_begin: bool = False
    _thread: threading.Thread | None = None

    def start(self, *, counts: bool) -> None:
        """Begin to read, unless the sensor is off or somebody's reading still stands in it.

        Where nothing counts yet, a sensor that is read seldom is not read at once.
        """
        if self.sensor.is_off or self.stands_for() is not None:
            return
        self._to_begin = counts
        self._thread = threading.Thread(target=self._run, name=f"sensor {self.sensor.name}", daemon=True)
        with contextlib.suppress(RuntimeError):  # no room for another thread: a number less
            start(self._thread)

    def count_anew(self) -> None:
        """What counts begins now, with a reading of now."""
        with _turn:
            self._to_begin = True
        self._now.set()

    def end(self) -> None:
        """Read once more, then no more; `wait` for it."""
        self._ended.set()
        self._now.set()

    def wait(self, until: float) -> None:
        """Until the thread has ended, at most until that moment (`time.monotonic`); not for a reading that hangs."""
        self.give_up_if_it_hangs()
        hangs = self.sensor.is_off and self.stands_for() is not None
        if self._thread is not None and self._thread.is_alive() and not hangs:
            self._thread.join(max(0.0, until - time.monotonic()))

    def stands_for(self) -> float | None:
        """For how many seconds the sensor has been read by now; None where nobody reads it."""
        with _turn:
            since = _standing.get(id(self.sensor))
        return None if since is None else time.monotonic() - since

    def give_up_if_it_hangs(self) -> None:
        """A sensor whose reading does not end is off, and told of."""
        stands_s = self.stands_for()
        if stands_s is not None and stands_s > self.sensor.patience_s and not self.sensor.is_off:
            self.sensor.is_off = self.sensor.has_answered = True

    def lines(self) -> dict[str, float]:
        """What the sensor says now, by quantity; empty where that is not known."""
        age_s = time.monotonic() - self._read_at
        return {} if self.sensor.is_off or age_s > max(FRESH_S, 2 * self.sensor.every_s) else self._lines

    # -- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        if not self._to_begin and self.sensor.every_s >= SELDOM_S:
            self._now.wait(self.sensor.every_s)
        while not self.sensor.is_off:
            is_last = self._ended.is_set() and not self._to_begin  # what counts has a first and a last reading
            self._now.clear()
            self._look()
            if is_last:
                return
            self._now.wait(0 if self._ended.is_set() else max(self.every_s, self.sensor.every_s))

    def _look(self) -> None:
        with _turn:
            if id(self.sensor) in _standing:
                return
            _standing[id(self.sensor)] = time.monotonic()
            begins, self._to_begin = self._to_begin, False
        try:
            gauges = self.sensor.read(self.pids())
        except Exception:  # a driver's library raises what it likes
            gauges = {}
        finally:
            with _turn:
                del _standing[id(self.sensor)]
        if self.sensor.is_off:  # it took too long, and nobody waits any more
            return
        self.sensor.is_off = not gauges
        self.sensor.has_answered |= bool(gauges)
        if begins:
            self.counted, self._last, self.used_bytes, self.peak_celsius = {}, {}, None, None
        self._take(time.monotonic(), gauges)

    def _take(self, now: float, gauges: dict[str, Gauge]) -> None:
        lines: list[tuple[str, float]] = []
        for name, gauge in gauges.items():
            then, before = self._last.get(name, (now, Gauge()))
            spent = _spent(before, gauge, now - then)
            self._count(name, before, gauge, now - then, spent)
            lines += _lines_of(self.sensor.kind, name, before, gauge, now - then, spent)
            self._last[name] = (now, gauge)
        used = [gauge.used_bytes for gauge in gauges.values() if gauge.used_bytes is not None]
        if used:
            self.used_bytes = max(self.used_bytes or 0, sum(used))
            lines.append((f"{self.sensor.kind}_used_bytes", float(sum(used))))
        heats = [gauge.celsius for gauge in gauges.values() if gauge.celsius is not None]
        if heats:
            self.peak_celsius = max(self.peak_celsius or max(heats), *heats)
        self._lines, self._read_at = together(lines), now

    def _count(self, name: str, before: Gauge, gauge: Gauge, seconds: float, spent: float | None) -> None:
        counted = self.counted.setdefault(name, Counted())
        if name not in self._last:
            return
        if spent is not None:
            counted.energy_j = (counted.energy_j or 0.0) + spent
            counted.energy_s += seconds
        if gauge.is_throttled is not None:
            counted.throttled_s = (counted.throttled_s or 0.0) + (seconds if gauge.is_throttled else 0.0)
        if before.is_shared is not None or gauge.is_shared is not None:  # seen at either end, it was there between
            is_shared = before.is_shared or gauge.is_shared
            counted.shared_s = (counted.shared_s or 0.0) + (seconds if is_shared else 0.0)


def _spent(before: Gauge, gauge: Gauge, seconds: float) -> float | None:
    """The energy between two readings: of the counter, else of the mean power. A counter that fell is left out."""
    spent: float | None = None
    if before.energy_j is not None and gauge.energy_j is not None:
        spent = gauge.energy_j - before.energy_j
    elif before.power_w is not None and gauge.power_w is not None:
        spent = (before.power_w + gauge.power_w) / 2 * seconds
    return spent if spent is not None and spent >= 0 else None


LEAST_S = 0.2
"""A counter that is read again sooner tells no power: drivers count in steps."""


def _lines_of(
    kind: str, name: str, before: Gauge, gauge: Gauge, seconds: float, spent: float | None
) -> list[tuple[str, float]]:
    """What a gauge says now, by quantity."""
    power_w = gauge.power_w
    if power_w is None and gauge.energy_j is not None and spent is not None and seconds >= LEAST_S:
        power_w = spent / seconds
    waited_share = None
    if gauge.waited_s is not None and before.waited_s is not None and seconds >= LEAST_S:
        waited_share = min(1.0, max(0.0, (gauge.waited_s - before.waited_s) / seconds))
    found = {
        f"{kind}_power_w": power_w, f"{kind}_busy_share": gauge.busy_share, f"{kind}_celsius": gauge.celsius,
        f"{kind}_clock_mhz": gauge.clock_mhz, f"{kind}_percent": gauge.percent, f"{kind}_{name}_share": waited_share,
    }  # fmt: skip
    return [(quantity, value) for quantity, value in found.items() if value is not None]


def together(lines: list[tuple[str, float]]) -> dict[str, float]:
    """Of several gauges or sensors: powers and memory are added, of anything else the largest counts."""
    found: dict[str, float] = {}
    for name, value in lines:
        if name not in found:
            found[name] = value
        else:
            found[name] = found[name] + value if name.endswith(("_w", "_bytes")) else max(found[name], value)
    return found
