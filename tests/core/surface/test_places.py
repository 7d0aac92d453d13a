"""What chance does to a place's value, as far as it is known."""

from __future__ import annotations

import pytest

from ollama_sweep.core.noise.spread import Spread, Spreads
from ollama_sweep.core.surface.places import USUAL_LOADS, USUAL_RUNS, Found, Known, Noise

ONCE = Found(Known.FITS, 100.0, runs=1, loads=1)


def test_a_spread_that_was_measured_as_none_is_not_taken_for_unknown() -> None:
    """Runs that are all alike leave the spread of loads, loads that are all alike that of runs."""
    assert Noise(runs=0.0, loads=0.1).variance(ONCE) == pytest.approx(0.01)
    assert Noise(runs=0.0, loads=0.0).variance(ONCE) == 0.0
    alike = Noise.of(Spreads(Spread(0.0, 8), Spread(0.0, 4)))
    assert (alike.is_known, alike.of_one_run) == (True, 0.0)


def test_where_a_spread_is_not_known_the_usual_one_stands_for_it() -> None:
    assert Noise(loads=0.0).variance(ONCE) == Noise(USUAL_RUNS, 0.0).variance(ONCE)
    assert Noise(runs=0.0).variance(ONCE) == Noise(0.0, USUAL_LOADS).variance(ONCE)
    assert Noise.of(None).of_one_run == Noise(USUAL_RUNS, USUAL_LOADS).of_one_run > 0
