"""What the loads of the control cell say of the machine's drift: simulated machines whose drift is known."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from statistics import fmean, stdev

import pytest

from ollama_sweep.core.noise.drift import Point, drift_of, line_of
from ollama_sweep.core.noise.spread import Spread, Spreads, half_width, load_of, spreads_of


def controls(draw: random.Random, count: int, *, drift: float = 0.0, noise: float = 0.015) -> list[Point]:
    """Loads of a machine whose speed changes by `drift` in all, evenly."""
    return [
        Point(60.0 * n, 300.0 * (1 + drift * n / (count - 1)) * math.exp(draw.gauss(0, noise))) for n in range(count)
    ]


def test_a_steady_machine_is_rarely_flagged_and_never_waited_for() -> None:
    draw = random.Random(1)
    found = [drift_of(controls(draw, count)) for count in (8, 12, 25) for _ in range(200)]
    assert sum(one.is_flagged for one in found) / len(found) < 0.06
    assert not any(one.is_too_far for one in found)


def test_a_drift_of_8_percent_is_seen_and_a_noisy_machine_needs_more_to_be_called_drifted() -> None:
    draw = random.Random(2)
    found = [drift_of(controls(draw, 25, drift=-0.08)) for _ in range(100)]
    assert sum(one.is_flagged for one in found) >= 95
    assert sum(one.share for one in found) / 100 == pytest.approx(-0.075, abs=0.01)
    noisy = drift_of(controls(draw, 25, noise=0.16))
    assert noisy.limit > 0.10


def test_one_jump_of_the_machine_is_a_drift_and_no_noise() -> None:
    found = drift_of([Point(60.0 * n, rate) for n, rate in enumerate([300.0, 300.0, 300.0, 285.0, 285.0, 285.0])])
    assert found.share == pytest.approx(-0.05)
    assert found.is_flagged


def test_of_few_controls_the_noise_is_that_of_all_loads() -> None:
    points = [Point(0.0, 300.0), Point(60.0, 285.0)]
    assert drift_of(points).is_flagged
    assert not drift_of(points, Spreads(Spread(0.01, 50), Spread(0.05, 10))).is_flagged
    assert drift_of(points[:1]).share == 0.0


def test_where_loads_are_not_known_two_controls_differ_by_as_much_as_their_runs_do() -> None:
    two = [Point(0.0, 107.0), Point(26.0, 88.0)]
    noisy = drift_of(two, Spreads(Spread(0.09, 5), Spread(0.14, 1)))
    assert noisy.error is not None
    assert 0.08 < noisy.error < 0.11
    assert not noisy.is_flagged
    assert drift_of(two, Spreads(Spread(0.01, 5), Spread(0.14, 1))).is_too_far


@pytest.mark.parametrize("spreads", [None, Spreads(Spread(), Spread())])
def test_where_nothing_is_known_of_chance_a_drift_is_not_said_to_be_sure(spreads: Spreads | None) -> None:
    found = drift_of([Point(0.0, 107.0), Point(26.0, 88.0)], spreads)
    assert found.words == "-17.8% (error not known)"
    assert found.is_flagged


def off_by(rates: dict[float, float], truth: float) -> float:
    return math.sqrt(sum(math.log(rate / truth) ** 2 for rate in rates.values()) / len(rates))


def test_a_corrected_map_is_nearer_to_the_truth_and_a_steady_one_is_left_alone() -> None:
    draw = random.Random(3)
    line = line_of(controls(draw, 25, drift=-0.08))
    assert line.is_better
    times = [14.4 * n for n in range(100)]
    measured = {at: 300.0 * (1 - 0.08 * at / 1440) * math.exp(draw.gauss(0, 0.01)) for at in times}
    corrected = {at: rate / (1 + line.correction(at)) for at, rate in measured.items()}
    middle = 300.0 * 0.96
    assert off_by(corrected, middle) < 0.7 * off_by(measured, middle)
    steady = [line_of(controls(draw, 25)).is_better for _ in range(100)]
    assert sum(steady) <= 10


@pytest.mark.parametrize(
    "shape", [lambda x: -0.08 * x, lambda x: -0.08 * (x > 0.5), lambda x: -0.08 * math.sin(3.14 * x)]
)
def test_a_drift_of_8_percent_is_taken_off_a_map_and_its_intervals_hold(shape: Callable[[float], float]) -> None:
    """A small form of benchmarks/believed.py: cells of equal speed, one load each, the control after every twelfth."""
    draw, raw, better, held = random.Random(5), [], [], []
    for _ in range(10):
        level = [math.log1p(shape(n / 200)) + draw.gauss(0, 0.01) for n in range(200)]
        loads = [load_of([math.exp(one + draw.gauss(0, 0.01)) for _ in range(3)]) for one in level]
        control = [load_of([math.exp(math.log1p(shape(n / 200)) + draw.gauss(0, 0.015)) for _ in range(3)])
                   for n in range(0, 200, 12)]  # fmt: skip
        line = line_of([Point(12.0 * n, math.exp(one.log_median)) for n, one in enumerate(control)])
        half = half_width(spreads_of([[one] for one in loads] + [control]), runs=3, loads=1)
        assert line.is_better
        assert half is not None
        logs = [one.log_median for one in loads]
        corrected = [log - math.log1p(line.correction(n)) for n, log in enumerate(logs)]
        raw.append(stdev(logs))
        better.append(stdev(corrected))
        held += [abs(log - fmean(corrected)) <= half for log in corrected]
    assert fmean(better) < 0.65 * fmean(raw)
    assert fmean(held) > 0.95


def test_the_line_is_level_before_the_first_and_after_the_last_control() -> None:
    line = line_of([Point(0.0, 100.0), Point(10.0, 100.0), Point(20.0, 100.0), Point(30.0, 200.0)])
    assert line.at(-5.0) == line.at(0.0)
    assert line.at(99.0) == line.at(30.0)
    assert line.at(20.0) < line.at(25.0) < line.at(30.0)
