"""How many seconds a scouted sweep takes against every cell in full, and how near its map comes to the truth.

The simulated maps of planners.py: a load takes 90 s and a run about 30 s. The context swap loads the model once, and
once more for Ollama's rendering; a context takes 0.1 s. A context that fails costs another load of the model, as on a
GPU, where the process is a new one then. It has the true rates times a factor of its own for each map, and each cell
lies off that by 1 % (a standard deviation). Maps from number 30 on were never looked at.

    python benchmarks/scout.py --maps 12 --replays 3
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import _common
import planners
from planners import LOAD_S, Truth, simulated

from ollama_sweep.core.noise.spread import Sums, load_of, sums_of
from ollama_sweep.core.surface.goal import BEST, LARGEST, MAP, PER_CONTEXT, Goal
from ollama_sweep.core.surface.places import Found, Known, Noise
from ollama_sweep.core.surface.scouted import Scouted, all_expected, factors_of
from ollama_sweep.plan.memory.staircase import Staircase
from ollama_sweep.run.planners import scout
from ollama_sweep.run.planners.base import Next, Problem, Reached
from ollama_sweep.run.planners.steering import PLANNERS

CONTEXT_S, OWN = 0.1, 0.01
FACTORS = (0.93, 1.03)
PARTS = ("edge_s", "scout_s", "own_s")


@dataclass
class Played:
    """What a scouted sweep came to: seconds of the edge, of the scout, and of the sweep itself."""

    edge_s: float
    scout_s: float
    own_s: float
    cells: int
    ended: Reached
    rms: float
    holds: float

    @property
    def seconds(self) -> float:
        return self.edge_s + self.scout_s + self.own_s


def swapped(truth: Truth, chance: random.Random) -> Truth:
    """The same map as the context swap sees it."""
    factor = chance.uniform(*FACTORS)
    rates = [rate / factor * math.exp(chance.gauss(0, OWN)) for rate in truth.rates]
    known = [Known.FITS if how is Known.FITS else Known.FAILED for how in truth.known]
    return replace(truth, rates=rates, known=known, load_s=CONTEXT_S, loads_spread=0.5 * truth.loads_spread)


def edge(truth: Truth) -> tuple[float, frozenset[int]]:
    """What it takes to find what does not fit, by contexts alone, and which places that are."""
    contexts = sorted({place.num_ctx for place in truth.places})
    batches = sorted({place.num_batch for place in truth.places})
    at = {(contexts.index(place.num_ctx), batches.index(place.num_batch)): index
          for index, place in enumerate(truth.places)}  # fmt: skip
    stairs, seconds, left = Staircase(len(contexts), len(batches)), 2 * LOAD_S, len(contexts) + len(batches)
    while left and (place := stairs.next_place(left)) is not None:
        left -= 1
        holds = truth.known[at[place]] is Known.FITS
        seconds += CONTEXT_S if holds else 2 * LOAD_S
        stairs.learn(place, holds=holds)
    return seconds, frozenset(index for (column, row), index in at.items() if row >= stairs.fails[column])


def scouting(
    truth: Truth, goal: Goal, beyond: frozenset[int], chance: random.Random
) -> tuple[float, dict[int, Found], Noise]:
    """The scout with its own planner: its seconds, what it found, and how far its runs and loads differ."""
    results: dict[int, Found] = {index: Found(Known.FAILED) for index in beyond}
    seconds, sums = 0.0, Sums()
    while True:
        rest = frozenset(range(len(truth.places))) - results.keys()
        found = PLANNERS[goal.kind](Problem(truth.places, rest, dict(results), Noise.of(sums.spreads)), goal)
        if isinstance(found, Reached):
            return seconds, results, Noise.of(sums.spreads)
        results[found.position], rates = truth.loaded(found.position, found.runs, chance)
        seconds += results[found.position].seconds
        sums = sums.plus(sums_of([load_of(rates)])) if rates else sums


def play(truth: Truth, goal: Goal, seed: int) -> Played:
    """All stages of a scouted sweep."""
    chance = random.Random(seed)
    swap = swapped(truth, chance)
    edge_s, beyond = edge(swap)
    scout_s, found, noise = scouting(swap, goal, beyond, chance)
    told = Scouted(found, noise)
    results: dict[int, Found] = {}
    own_s, sums = 0.0, Sums()
    while True:
        rest = frozenset(range(len(truth.places))) - results.keys()
        own_noise = Noise.of(sums.spreads)
        step = scout.decide(Problem(truth.places, rest, dict(results), own_noise), goal, told)
        if isinstance(step, Reached):
            rms = _rms(truth, results, rest, told, own_noise)
            return Played(edge_s, scout_s, own_s, len(results), step, rms, planners._holds(truth, goal, step))
        assert isinstance(step, Next)
        results[step.position], rates = truth.loaded(step.position, step.runs, chance)
        own_s += results[step.position].seconds
        sums = sums.plus(sums_of([load_of(rates)])) if rates else sums


def _rms(truth: Truth, results: Mapping[int, Found], rest: frozenset[int], told: Scouted, noise: Noise) -> float:
    """How far the map lies from the true rates: measured cells and scouted ones, the root of the mean square."""
    known = factors_of(truth.places, results, rest, told, noise)
    likely = all_expected([place for place in truth.places if place.position in rest], told, known)
    errors = [math.log(found.rate / truth.rates[index]) for index, found in results.items() if found.rate]
    errors += [one.log - math.log(truth.rates[index]) for index, one in likely.items()]
    return math.sqrt(fmean(error**2 for error in errors)) if errors else 0.0


def row_of(words: str, goal: Goal, maps: Sequence[Truth], replays: int) -> list[str]:
    """A line of the table."""
    played = [(truth.exhaustive_s(), play(truth, goal, 1000 * number + at))
              for number, truth in enumerate(maps) for at in range(replays)]  # fmt: skip
    shares = [one.seconds / every_s for every_s, one in played]
    parts = [fmean(getattr(one, name) / every_s for every_s, one in played) for name in PARTS]
    return [
        words, f"{fmean(shares):.3f}", f"{_common.percentile(shares, 0.9):.3f}", *(f"{part:.3f}" for part in parts),
        f"{fmean(one.cells for _, one in played):.0f}", f"{100 * fmean(one.rms for _, one in played):.1f} %",
        f"{100 * fmean('not steady' not in one.ended.says for _, one in played):.0f} %",
        f"{100 * fmean(one.holds for _, one in played):.0f} %",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--maps", type=int, default=12, help="simulated maps")
    parser.add_argument("--replays", type=int, default=3, help="replays of each, with loads drawn anew")
    parser.add_argument("--first", type=int, default=planners.SEEN, help="the first map's number")
    given = parser.parse_args()
    _common.head(parser)
    began = time.monotonic()
    kinds: list[tuple[str, Goal, float | None]] = [
        ("map, 5 % not whole on the GPU", Goal(MAP), 0.05), ("map, 20 %", Goal(MAP), 0.2), ("best", Goal(BEST), None),
        ("per-context", Goal(PER_CONTEXT), None), ("largest", Goal(LARGEST), None),
    ]  # fmt: skip
    rows = []
    for words, goal, spilled in kinds:
        maps = [simulated(given.first + number, spilled=spilled, cells=624) for number in range(given.maps)]
        rows.append(row_of(words, goal, maps, given.replays))
    columns = ["goal, scouted", "seconds / exhaustive", "9 of 10", "edge", "scout", "own", "cells", "RMS", "steady",
               "answer holds"]  # fmt: skip
    _common.table(columns, rows)
    print(f"\nIt took {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
