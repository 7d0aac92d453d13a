"""Readings over time: as short as is said, whatever they are and however long it lasts, and true to what was read."""

from __future__ import annotations

import math
import random
import zlib

import pytest

from ollama_sweep.core.outcome import Line, Series
from ollama_sweep.machine.sensing.series import MOST_BYTES, MOST_POINTS, Collector, packed, unpacked

NAMES = ("rss_bytes", "used_bytes", "cpu_share", "cpu_power_w", "gpu_power_w", "gpu_used_bytes", "gpu_busy_share",
         "gpu_celsius", "gpu_clock_mhz", "battery_percent", "pressure_memory_share", "pressure_io_share",
         "pressure_cpu_share")  # fmt: skip
WIDE = {"_bytes": 9e10, "_share": 1.0, "_w": 700.0}


def collected(seconds: int, *, is_wild: bool) -> Series:
    """Readings each second of everything that there may be: wild ones, which no compression makes shorter, or calm."""
    chance, collector = random.Random(seconds), Collector()
    for at in range(seconds):
        width = {name: next((wide for end, wide in WIDE.items() if name.endswith(end)), 100.0) for name in NAMES}
        collector.add(at, {name: width[name] * (chance.random() if is_wild else 0.5) for name in NAMES})
    return collector.series()


def again(series: Series) -> Series:
    return unpacked(zlib.decompress(packed(series)).decode())


@pytest.mark.parametrize("is_wild", [True, False])
def test_it_is_never_longer_than_is_said(is_wild: bool) -> None:
    for seconds in (1, 2, 7, 119, 120, 121, 600, 5000):
        series = collected(seconds, is_wild=is_wild)
        assert len(packed(series)) <= MOST_BYTES == 2000
        kept = again(series)
        assert set(kept.lines) == set(NAMES)
        assert {len(line.points) for line in kept.lines.values()} <= set(range(1, MOST_POINTS + 1))
        covers_s = kept.step_s * max(len(line.points) for line in kept.lines.values())
        assert seconds <= covers_s < 2 * seconds + kept.step_s, "the points cover the whole attempt and no more"


def test_what_comes_back_is_what_was_read() -> None:
    collector = Collector()
    powers = [40.0, 61.25, 300.5, 299.0, 45.0]
    for at, power_w in enumerate(powers):
        collector.add(at, {"gpu_power_w": power_w, "rss_bytes": 5e9} | ({"gpu_celsius": 61.0} if at == 3 else {}))
    collector.counts_from_s, collector.runs_from_s = 1.234, None
    found = again(collector.series())
    assert (found.step_s, found.counts_from_s, found.runs_from_s) == (1.0, 1.23, None)
    power = found.lines["gpu_power_w"]
    assert (power.low, power.high) == (40.0, 300.5)
    assert list(power.points) == pytest.approx(powers, abs=0.3)
    assert found.lines["rss_bytes"] == Line(5e9, 5e9, (5e9,) * 5)
    assert found.lines["gpu_celsius"] == Line(61.0, 61.0, (None, None, None, 61.0, None)), "not read is not zero"


def test_many_points_become_means_and_the_ends_stay() -> None:
    collector = Collector()
    for at in range(1000):
        collector.add(at, {"gpu_power_w": 500.0 if at == 777 else 100.0})
    found = again(collector.series())
    line = found.lines["gpu_power_w"]
    assert (line.low, line.high, found.step_s) == (100.0, 500.0, 16.0)
    assert line.points[777 // 16] == pytest.approx(125.0, abs=0.5)
    assert {round(point or 0) for at, point in enumerate(line.points) if at != 777 // 16} == {100}


def test_what_is_no_number_is_not_there() -> None:
    collector = Collector()
    collector.add(0, {"gpu_power_w": math.nan, "gpu_celsius": math.inf})
    assert collector.series() == Series()
    assert again(Series()) == Series()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"form": 2}', '{"form": 1, "lines": {"a": [1, "b", [3]]}}'])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        unpacked(text)
