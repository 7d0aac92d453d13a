"""The planner of a scouted grid, on maps with a known truth: what its own engine measures, and what it names."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, replace

import pytest
from surfaces import Truth, smooth_rate

from ollama_sweep.core.surface.factor import factors
from ollama_sweep.core.surface.goal import BEST, FULL, LARGEST, MAP, PER_CONTEXT, Goal, Runs
from ollama_sweep.core.surface.places import Found, Known, Noise, Place
from ollama_sweep.core.surface.scouted import MOST_SAMPLED, Scouted, pairs, sample
from ollama_sweep.run.planners import scout
from ollama_sweep.run.planners.base import Next, Problem, Reached

CONTEXTS, BATCHES = tuple(range(4096, 32769, 4096)), (16, 32, 64, 128, 256, 384, 512, 1024)
PEAKED = Truth(CONTEXTS, BATCHES, lambda ctx, batch: smooth_rate(ctx, batch) * (1 if batch < 400 else 400 / batch))
SPILLING = replace(PEAKED, spills=60_000, fails=80_000)
FALLING = Truth(CONTEXTS, BATCHES, lambda ctx, batch: smooth_rate(ctx, batch) * math.exp(-0.4 * ctx / 32768))
NOISE = Noise(0.01, 0.01)


def scouted(truth: Truth, seed: int = 0, factor: float = 1.04, odd: float = 0.0) -> Scouted:
    """What a context swap finds: nothing beyond the whole model; `odd`: so far its cells differ for reasons of their
    own."""
    chance = random.Random(1000 + seed)
    found = {}
    for place in truth.places:
        one = truth.measured(place, Runs(most=1, warmup=False), chance)
        if truth.known(place) is not Known.FITS:
            found[place.position] = Found(Known.FAILED)
        else:
            assert one.rate is not None
            found[place.position] = replace(one, rate=one.rate * factor * math.exp(chance.gauss(0, odd)))
    return Scouted(found, NOISE)


@dataclass
class Played:
    ended: Reached
    steps: list[Next]
    results: dict[int, Found] = field(default_factory=dict)


def play(truth: Truth, goal: Goal, told: Scouted, seed: int = 0, left_s: float | None = None) -> Played:
    chance = random.Random(seed)
    results: dict[int, Found] = {}
    steps: list[Next] = []
    while True:
        open_ones = frozenset(range(len(truth.places))) - results.keys()
        found = scout.decide(Problem(truth.places, open_ones, dict(results), NOISE, left_s), goal, told)
        if isinstance(found, Reached):
            return Played(found, steps, results)
        assert found.position in open_ones
        results[found.position] = truth.measured(truth.places[found.position], found.runs, chance)
        steps.append(found)
        if left_s is not None:
            left_s -= results[found.position].seconds


def answers(truth: Truth, played: Played) -> list[Place]:
    assert {*played.ended.answers} <= played.results.keys(), "an answer was always measured here"
    return [truth.places[position] for position in played.ended.answers]


def best_rate(truth: Truth) -> float:
    return max(truth.true(place) for place in truth.places if truth.known(place) is Known.FITS)


def test_a_map_is_scouted_but_for_its_edge_all_beyond_it_the_leaders_and_some_at_random() -> None:
    played = play(SPILLING, Goal(MAP), scouted(SPILLING))
    assert not played.ended.failed
    beyond = {place.position for place in SPILLING.places if SPILLING.known(place) is not Known.FITS}
    assert beyond <= played.results.keys()
    inside = len(played.results) - len(beyond)
    assert inside < 0.4 * (len(SPILLING.places) - len(beyond))
    (best,) = answers(SPILLING, played)
    assert SPILLING.true(best) > 0.95 * best_rate(SPILLING)
    full = {step.position for step in played.steps if step.runs == FULL}
    assert full, "leaders are measured in full"
    for ctx in {SPILLING.places[position].num_ctx for position in beyond}:
        fits = [place for place in SPILLING.places if place.num_ctx == ctx and place.position not in beyond]
        assert max(fits, key=lambda place: place.num_batch).position in played.results
    assert all(played.results[step.position].runs <= 1 for step in played.steps if step.position in beyond)


def test_the_factor_that_a_map_ends_with_holds_the_true_one() -> None:
    for seed in range(3):
        told = scouted(PEAKED, seed)
        played = play(PEAKED, Goal(MAP), told, seed)
        rest = frozenset(range(len(PEAKED.places))) - played.results.keys()
        found = factors(pairs(sample(PEAKED.places, told), played.results, rest, told, NOISE))
        assert found.is_steady
        assert all(part.value == pytest.approx(1 / 1.04, rel=0.03) for part in found.parts)


def test_where_this_engine_spills_before_the_scout_says_so_the_edge_moves_inwards() -> None:
    told = scouted(replace(SPILLING, spills=None, fails=70_000))
    played = play(SPILLING, Goal(MAP), told)
    spilled = {place.position for place in SPILLING.places if SPILLING.known(place) is Known.SPILLED}
    assert spilled <= played.results.keys()
    (best,) = answers(SPILLING, played)
    assert SPILLING.known(best) is Known.FITS


def test_a_factor_that_is_not_steady_is_the_answer() -> None:
    told = scouted(PEAKED, odd=0.3)
    played = play(PEAKED, Goal(MAP), told)
    assert played.ended.failed
    assert "not steady" in played.ended.says
    both = {place.position for place in sample(PEAKED.places, told)}
    assert len(both) == MOST_SAMPLED
    assert both <= played.results.keys(), "it was tried with all of the sample"


@pytest.mark.parametrize("seed", range(3))
def test_best_takes_few_cells(seed: int) -> None:
    played = play(PEAKED, Goal(BEST), scouted(PEAKED, seed), seed)
    (best,) = answers(PEAKED, played)
    assert PEAKED.true(best) > 0.95 * best_rate(PEAKED)
    assert len(played.results) <= 14


def test_per_context_names_a_measured_cell_of_each_num_ctx() -> None:
    played = play(PEAKED, Goal(PER_CONTEXT), scouted(PEAKED))
    named = answers(PEAKED, played)
    assert {place.num_ctx for place in named} == {*CONTEXTS}
    near = 0
    for place in named:
        column = [PEAKED.true(other) for other in PEAKED.places if other.num_ctx == place.num_ctx]
        near += PEAKED.true(place) > 0.95 * max(column)
    assert near >= len(CONTEXTS) - 1
    assert len(played.results) < 0.25 * len(PEAKED.places)


def test_largest_keeps_the_rate_does_not_spill_and_answers_in_time() -> None:
    (spill,) = answers(SPILLING, play(SPILLING, Goal(LARGEST), scouted(SPILLING)))
    fast = 0.9 * best_rate(SPILLING)
    good = [one for one in SPILLING.places if SPILLING.known(one) is Known.FITS and SPILLING.true(one) > fast]
    assert abs(spill.num_ctx - max(place.num_ctx for place in good)) <= 4096
    (late,) = answers(FALLING, play(FALLING, Goal(LARGEST, 0.5, ttft_s=17.0), scouted(FALLING)))
    assert FALLING.count / FALLING.true(late) == pytest.approx(17.0, rel=0.06)
    none = play(FALLING, Goal(LARGEST, ttft_s=0.001), scouted(FALLING))
    assert none.ended.failed
    assert not none.ended.answers


def test_it_keeps_nothing_so_that_a_killed_sweep_goes_on_alike() -> None:
    told = scouted(SPILLING)
    whole = play(SPILLING, Goal(MAP), told)
    for cut in (3, 20, len(whole.steps) - 2):
        results = {step.position: whole.results[step.position] for step in whole.steps[:cut]}
        rest = frozenset(range(len(SPILLING.places))) - results.keys()
        found = scout.decide(Problem(SPILLING.places, rest, results, NOISE), Goal(MAP), told)
        assert isinstance(found, Next)
        assert found.position == whole.steps[cut].position


def test_a_limit_of_time_ends_with_what_leads_so_far() -> None:
    played = play(PEAKED, Goal(MAP), scouted(PEAKED), left_s=700.0)
    assert played.ended.failed
    assert "the time is over" in played.ended.says
    assert "so far" in played.ended.says


def test_a_scout_that_found_nothing_says_how_to_go_on() -> None:
    nothing = Scouted({place.position: Found(Known.FAILED) for place in PEAKED.places}, NOISE)
    played = play(PEAKED, Goal(MAP), nothing)
    assert played.ended.failed
    assert "--no-scout" in played.ended.says
    assert not played.results
