"""How fast each lane is beside the others: what is put in comes out, and its error is that of the loads."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from ollama_sweep.core.lanes.factors import factors


def test_without_noise_the_factors_are_those_of_the_lanes() -> None:
    found = factors({"a": [110.0, 110.0], "b": [100.0], "c": [90.0, 90.0, 90.0]})
    middle = (110 * 100 * 90) ** (1 / 3)
    assert {name: round(one.factor, 6) for name, one in found.items()} == {
        "a": round(110 / middle, 6), "b": round(100 / middle, 6), "c": round(90 / middle, 6),
    }  # fmt: skip
    assert [one.loads for one in found.values()] == [2, 1, 3]
    assert all(one.error == pytest.approx(0, abs=1e-9) for one in found.values())


def test_one_lane_has_no_factor_and_single_loads_no_error() -> None:
    assert factors({"a": [1.0, 2.0]}) == {}
    assert factors({"a": [1.0], "b": []}) == {}
    assert {one.error for one in factors({"a": [1.0], "b": [2.0]}).values()} == {None}


def test_the_error_is_how_far_factors_scatter() -> None:
    chance = random.Random(3)
    logs, errors = [], []
    for _ in range(3000):
        rates = {name: [math.exp(chance.gauss(0, 0.03)) for _ in range(loads)] for name, loads in (("a", 3), ("b", 5))}
        one = factors(rates)["a"]
        logs.append(math.log(one.factor))
        errors.append(one.error or 0.0)
    assert statistics.fmean(errors) == pytest.approx(statistics.stdev(logs), rel=0.1)
