"""The factor between two engines: by cells that both have measured, robust, and split only where regions differ."""

from __future__ import annotations

import math
import random

import pytest

from ollama_sweep.core.surface.factor import FEWEST, Factors, Pair, factors
from ollama_sweep.core.surface.places import Found, Known, Noise, Place
from ollama_sweep.core.surface.scouted import MOST_SAMPLED, Scouted, expected, factors_of, sample

GRID = [(ctx, batch) for ctx in range(1024, 9217, 1024) for batch in (16, 64, 256, 1024)]
PLACES = [Place(number, *sizes) for number, sizes in enumerate(GRID)]
LARGE = 256


def pairs(count: int, spread: float, seed: int = 0, *, above: float = 0.97, up_to: float = 0.97) -> list[Pair]:
    chance = random.Random(seed)
    chosen = chance.sample(PLACES, count)
    return [
        Pair(place, math.log(above if place.num_batch >= LARGE else up_to) + chance.gauss(0, spread), spread**2)
        for place in chosen
    ]


def test_the_interval_holds_the_true_factor_as_often_as_it_says() -> None:
    parts = [part for seed in range(300) for part in factors(pairs(12, 0.02, seed)).parts]
    held = sum(abs(part.log - math.log(0.97)) <= math.log1p(part.half) for part in parts)
    assert 0.92 <= held / len(parts) <= 0.99


def test_one_cell_that_a_neighbour_disturbed_does_not_rule_it() -> None:
    quiet = pairs(12, 0.01)
    odd = [*quiet[:-1], Pair(quiet[-1].place, math.log(5.2))]
    (before,), (after,) = factors(quiet).parts, factors(odd).parts
    assert after.value == pytest.approx(before.value, rel=0.02)
    assert after.is_steady


def test_of_too_few_cells_there_is_none_and_a_wide_one_is_not_steady() -> None:
    few = factors(pairs(FEWEST - 1, 0.01))
    assert few == Factors((), FEWEST - 1)
    assert not few.is_steady
    assert f"{FEWEST} are needed" in few.words
    assert not factors(pairs(8, 0.2)).is_steady


def test_regions_that_differ_have_a_factor_each_and_those_that_do_not_have_one() -> None:
    found = factors(pairs(20, 0.01, above=0.9, up_to=1.0))
    low, high = found.parts
    assert (low.region.dimension, low.region.border) == ("num_batch", 64)
    assert low.value == pytest.approx(1.0, abs=0.02)
    assert high.value == pytest.approx(0.9, abs=0.02)
    assert found.of(Place(0, 1024, 16)) == low
    assert found.of(Place(0, 1024, 1024)) == high
    assert "num_batch up to 64" in found.words
    split = sum(len(factors(pairs(20, 0.02, seed)).parts) > 1 for seed in range(200))
    assert split <= 8, "chance alone seldom makes two of one"


# -- what is measured both ways ----------------------------------------------------------------------------------------


def scouted(rates: dict[int, float]) -> Scouted:
    return Scouted({position: Found(Known.FITS, rate, 1, 1) for position, rate in rates.items()}, Noise(0.01, 0.01))


def test_the_sample_lies_evenly_over_what_fits_and_hangs_on_no_rate() -> None:
    fits = [place for place in PLACES if place.num_ctx * place.num_batch < 4_000_000]
    slow = sample(PLACES, scouted({place.position: 100.0 for place in fits}))
    fast = sample(PLACES, scouted({place.position: 100.0 * (1 + place.position) for place in fits}))
    assert slow == fast
    assert len(slow) == len(set(slow)) == MOST_SAMPLED
    assert {*slow} <= {*fits}
    first = slow[:8]
    assert len({place.num_ctx for place in first}) >= 5
    assert len({place.num_batch for place in first}) >= 3


def test_leaders_that_were_chosen_for_their_rate_do_not_bend_the_factor() -> None:
    chance = random.Random(4)
    rates = {place.position: 100 * math.exp(chance.gauss(0, 0.03)) for place in PLACES}
    told = scouted(rates)
    order = sample(PLACES, told)
    fastest = sorted(PLACES, key=lambda place: -rates[place.position])[:10]
    here = {place.position: Found(Known.FITS, 100.0, 3, 1) for place in (*fastest, *order[:8])}
    is_open = {place.position for place in PLACES} - here.keys()
    found = factors_of(PLACES, here, is_open, told, Noise(0.01, 0.01))
    taken = next((number for number, place in enumerate(order) if place.position in is_open), len(order))
    assert found.cells == taken >= 8
    assert found.parts[0].value == pytest.approx(1.0, abs=0.03)
    naive = [math.log(100 / rates[place.position]) for place in fastest]
    assert math.exp(sum(naive) / len(naive)) < 0.97, "what those ten alone would say"


def test_what_only_the_scout_has_measured_is_its_rate_times_the_factor_with_an_interval() -> None:
    told = scouted({place.position: 200.0 for place in PLACES})
    known = factors([Pair(place, math.log(0.95)) for place in PLACES[:8]])
    found = expected(PLACES[-1], told, known)
    assert found is not None
    assert found.rate == pytest.approx(190.0)
    low, high = found.interval
    assert 0.9 * 190 < low < 190 < high < 1.1 * 190
    assert expected(PLACES[-1], told, Factors()) is None
    assert expected(PLACES[-1], Scouted(), known) is None
