"""Two spreads and the interval of both: against made-up loads whose truth is known."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_sweep.core.noise.spread import (
    Load,
    Spread,
    Spreads,
    Sums,
    half_width,
    load_of,
    quantile,
    spreads_of,
    sums_of,
    value_of,
)

RATES = st.lists(st.floats(1.0, 1e5), min_size=1, max_size=6)


def load(draw: random.Random, truth: float, runs: float, loads: float, count: int = 3) -> Load:
    """A load of a cell: its runs lie about the load's own middle, which lies about the truth."""
    middle = math.log(truth) + draw.gauss(0, loads)
    return load_of([math.exp(middle + draw.gauss(0, runs)) for _ in range(count)])


def test_the_quantile_is_that_of_the_tables() -> None:
    assert [round(quantile(df), 3) for df in (1, 3, 7, 20, 1000)] == [12.706, 3.182, 2.365, 2.086, 1.962]


def test_one_load_is_worth_its_median_and_several_the_geometric_mean_of_theirs() -> None:
    assert value_of([load_of([90.0, 100.0, 140.0])]) == pytest.approx(100.0)
    assert value_of([load_of([90.0, 160.0])]) == pytest.approx(120.0)
    assert value_of([load_of([100.0]), load_of([144.0])]) == pytest.approx(120.0)


@pytest.mark.parametrize("broken", [[], [0.0], [1.0, -1.0]])
def test_a_load_needs_runs_above_zero(broken: list[float]) -> None:
    with pytest.raises(ValueError, match="above zero"):
        load_of(broken)


@pytest.mark.parametrize("loads", [0.0, 0.01, 0.05, 0.16])
def test_both_spreads_are_told_apart(loads: float) -> None:
    draw = random.Random(1)
    found = spreads_of([[load(draw, 300.0, 0.015, loads) for _ in range(8)] for _ in range(100)])
    assert found.runs.sigma == pytest.approx(0.015, rel=0.05)
    assert found.loads.sigma == pytest.approx(loads, rel=0.08, abs=0.004)
    assert (found.runs.df, found.loads.df) == (1600, 700)


def test_loads_are_known_from_three_degrees_of_freedom_on() -> None:
    two, four = ([load_of([100.0 + n, 101.0]) for n in range(count)] for count in (3, 4))
    assert not spreads_of([two]).are_loads_known
    assert half_width(spreads_of([two]), runs=6, loads=3) is None
    assert spreads_of([two]).words.endswith("loads not known")
    assert spreads_of([four]).are_loads_known
    assert half_width(spreads_of([four]), runs=8, loads=4) is not None
    assert Spreads(Spread(0.012, 9), Spread(0.03, 5)).words == "runs ± 1.2 %, loads ± 3 %"
    assert Spreads(loads=Spread(0.16, 5)).words == "loads ± 16 %", "runs that nobody repeated are not spoken of"


@given(st.lists(st.lists(RATES, min_size=1, max_size=4), min_size=1, max_size=4))
def test_sums_of_loads_that_come_one_by_one_are_those_of_all_at_once(cells: list[list[list[float]]]) -> None:
    made = [[load_of(runs) for runs in cell] for cell in cells]
    step = Sums()
    for cell in made:
        for count in range(1, len(cell) + 1):
            step = step.plus(sums_of(cell[:count])).plus(sums_of(cell[: count - 1]), -1)
    found, whole = step.spreads, spreads_of(made)
    assert (found.runs.df, found.loads.df) == (whole.runs.df, whole.loads.df)
    assert found.runs.sigma == pytest.approx(whole.runs.sigma, abs=1e-6)
    assert found.loads.sigma == pytest.approx(whole.loads.sigma, abs=1e-5)


def held(draw: random.Random, spreads: Spreads, loads: float, cells: Sequence[float]) -> float:
    """The share of cells whose interval holds the truth."""
    wide = half_width(spreads, runs=3, loads=1)
    assert wide is not None
    return sum(abs(load(draw, cell, 0.015, loads).log_median - math.log(cell)) <= wide for cell in cells) / len(cells)


@pytest.mark.parametrize("loads", [0.0, 0.01, 0.05, 0.16])
def test_intervals_hold_the_truth(loads: float) -> None:
    """The full simulation is `benchmarks/believed.py`."""
    draw, shares = random.Random(2), []
    for _ in range(30):
        control = [load(draw, 300.0, 0.015, loads) for _ in range(8)]
        others = [[load(draw, 300.0, 0.015, loads)] for _ in range(60)]
        shares.append(held(draw, spreads_of([control, *others]), loads, [200.0 + n for n in range(60)]))
    assert sum(shares) / len(shares) >= 0.93
