"""What planners are told and what they answer. A planner is a pure function `decide(problem) -> Next | Reached`.

It keeps nothing: asked twice with the same results it answers the same, so a sweep that was killed goes on with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Protocol

from ollama_sweep.core.surface.goal import FULL, Runs
from ollama_sweep.core.surface.memory import Fitting, fitting
from ollama_sweep.core.surface.places import Found, Known, Noise, Place, Results
from ollama_sweep.core.surface.smooth import Smooth

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

USUAL = Noise()
CLOSE = 0.05
"""So near to the best one is as good."""
DOUBT = 0.05
"""A goal is reached where it is missed so rarely."""
STILL = 0.15
"""One that was reached stays so as long as it is missed no more often than this: a further load says a little more."""
DRAWN = 400
"""So many surfaces are drawn to say how likely something is."""
AT_ONCE = 400
"""Of so many places at most, the most promising ones."""
USUAL_RUNS = 3.0
FULL_AT_FIRST = 4
"""So many cells are run in full, so that it is known how far runs differ."""
WARM_FROM, NO_DIFFERENCE = 4, 0.01
"""Runs before the counted ones are left out where so many cells show that they differ by no more."""


@dataclass(frozen=True)
class Next:
    """The cell that comes next, and why; `how_far` says in words what the goal still lacks."""

    position: int
    why: str
    how_far: str
    runs: Runs = FULL


@dataclass(frozen=True)
class Reached:
    """The goal is reached, or it is not (`failed`): it cannot be, or the time is over.

    `answers` are the positions that it names; where the time is over, what leads so far.
    """

    says: str
    answers: tuple[int, ...] = ()
    failed: bool = False


@dataclass(frozen=True)
class Problem:
    """A grid of num_ctx and num_batch: all its places in the order of the plan, those that may be measured, and what is
    known. `left_s`: so much time is left, None for as long as it takes. `doubt`: so often may the goal be missed."""

    places: tuple[Place, ...]
    open: frozenset[int]
    results: Results = field(default_factory=dict)
    noise: Noise = USUAL
    left_s: float | None = None
    doubt: float = DOUBT

    @cached_property
    def known(self) -> list[tuple[Place, Found]]:
        """Places that were tried, in the order of the plan."""
        return [(place, self.results[place.position]) for place in self.places if place.position in self.results]

    @cached_property
    def index(self) -> dict[int, int]:
        """Where each position stands in `places`."""
        return {place.position: number for number, place in enumerate(self.places)}

    @cached_property
    def at(self) -> dict[tuple[int, int], int]:
        """The index of each (num_ctx, num_batch)."""
        return {(place.num_ctx, place.num_batch): number for number, place in enumerate(self.places)}

    @cached_property
    def contexts(self) -> list[int]:
        """The values of num_ctx, ascending."""
        return sorted({place.num_ctx for place in self.places})

    @cached_property
    def batches(self) -> list[int]:
        """The values of num_batch, ascending."""
        return sorted({place.num_batch for place in self.places})

    @cached_property
    def columns(self) -> dict[int, list[int]]:
        """By num_ctx, ascending: the indices of its places in the order of the plan."""
        found: dict[int, list[int]] = {ctx: [] for ctx in self.contexts}
        for number, place in enumerate(self.places):
            found[place.num_ctx].append(number)
        return found

    @cached_property
    def is_open(self) -> NDArray[np.bool_]:
        """Which places may be measured, and have time."""
        import numpy as np

        return np.array([place.position in self.open for place in self.places])

    @cached_property
    def close(self) -> float:
        """How near to the best one is as good, as a share: 5 %, or what a cell measured in full is unsure by."""
        full = Found(Known.FITS, 1.0, round(USUAL_RUNS), 1)
        return max(CLOSE, math.sqrt(self.noise.variance(full)))

    @property
    def faster(self) -> str:
        """`a cell more than 5 % faster`, and why that is not 5 % where cells differ by more by chance."""
        why = "" if self.close == CLOSE else ", which is what a cell may be off by chance here"
        return f"a cell more than {percent(self.close)} faster{why}"

    @cached_property
    def fitting(self) -> Fitting:
        """How likely each place fits."""
        return fitting(self.places, self.known)

    def of(self, *known: Known) -> list[tuple[Place, Found]]:
        """The measured places of these kinds."""
        return [(place, found) for place, found in self.known if found.known in known and found.is_measured]

    @cached_property
    def rated(self) -> list[tuple[Place, Found]]:
        """The measured places that have a rate, spilled ones among them."""
        return self.of(Known.FITS, Known.SPILLED)

    # -- costs ---------------------------------------------------------------------------------------------------------

    @cached_property
    def load_s(self) -> float:
        """What a load takes here."""
        return median([found.load_s for _, found in self.known if found.load_s] or [1.0])

    @cached_property
    def each_run_s(self) -> float:
        """Seconds of a run, times its rate: the tokens of a prompt."""
        return median([float(found.count) for _, found in self.known if found.count] or [1000.0])

    def seconds(self, rates: Numbers, runs: float = USUAL_RUNS) -> Numbers:
        """What places with these logarithms of rates will take."""
        import numpy as np

        found: Numbers = self.load_s + runs * self.each_run_s / np.exp(rates)
        return found

    @cached_property
    def usual_s(self) -> float:
        """What a place took so far: the median; 0 for not known."""
        took = [found.seconds / max(1, found.loads) for _, found in self.known if found.seconds]
        return median(took) if took else 0.0

    def has_time(self, seconds: float | None = None) -> bool:
        """Whether another place, or one that takes so long, still ends in time."""
        return self.left_s is None or (seconds if seconds is not None else self.usual_s) <= self.left_s


class Planner(Protocol):
    """A file of this folder."""

    def decide(self, problem: Problem) -> Next | Reached:
        """What comes next."""
        ...


@dataclass(frozen=True)
class Surface:
    """What the rates are likely to be, of the part of the grid that is not spilled, or of all where all is."""

    problem: Problem
    smooth: Smooth
    mean: Numbers
    deviation: Numbers
    chance: Numbers
    """How likely a place belongs to this part at all."""
    measured: tuple[int, ...]
    """Indices of its measured places."""

    @cached_property
    def best(self) -> int:
        """The index of the measured place that is likely the fastest."""
        return max(self.measured, key=lambda index: (self.mean[index], -index))


def surface(problem: Problem) -> Surface:
    """Raises ValueError as long as no place has a rate."""
    fits = problem.of(Known.FITS)
    used = fits or problem.rated
    chance = problem.fitting.chance if fits else problem.fitting.loads
    smooth = Smooth(problem.places, used, problem.noise)
    mean, deviation = smooth.said()
    measured = tuple(problem.index[place.position] for place, _ in used)
    return Surface(problem, smooth, mean, deviation, chance, measured)


def chance_of_faster(smooth: Smooth, chance: Numbers, named: int, others: list[int], by: float,
                     times: int = DRAWN) -> float:  # fmt: skip
    """How likely one of these places fits and is faster than the one that is named by more than this share."""
    drawn = smooth.draws([named, *others], times)
    better = (drawn[:, 1:] > drawn[:, :1] + math.log(1 + by)) & that_fit(chance[others], times)
    return float(better.any(axis=1).mean())


def that_fit(chance: Numbers, times: int) -> NDArray[np.bool_]:
    """Which places fit, in each of so many drawn surfaces: memory decides for all places at once."""
    import numpy as np

    luck = (np.arange(times) * 0.618034) % 1.0
    fits: NDArray[np.bool_] = chance[None, :] > luck[:, None]
    return fits


STARTS = ((0.2, 0.7), (0.2, 1.0), (0.65, 0.45), (0.0, 0.25))
"""The first places, as shares of the way along num_ctx and num_batch: far apart, and likely to fit."""
FIRST = "one of the first cells, far from each other"


def start(problem: Problem, wanted: int = len(STARTS)) -> int | None:
    """A first place that is still to be measured, and may fit; None where enough was measured."""
    for along_ctx, along_batch in STARTS[:wanted]:
        ctx = problem.contexts[round(along_ctx * (len(problem.contexts) - 1))]
        batch = problem.batches[round(along_batch * (len(problem.batches) - 1))]
        near = _nearest(problem, ctx, batch)
        if problem.places[near].position in problem.results:
            continue
        if problem.is_open[near] and problem.fitting.chance[near] > 0.25:
            return near
    if not any(found.is_measured for _, found in problem.known):
        return smallest(problem)
    return None


def _nearest(problem: Problem, ctx: int, batch: int) -> int:
    """Of the grid: cells may be left out by `exclude`."""
    if (ctx, batch) in problem.at:
        return problem.at[ctx, batch]

    def way(place: Place) -> float:
        return abs(math.log(place.num_ctx / ctx)) + abs(math.log(place.num_batch / batch))

    found = min(problem.places, key=way)
    return problem.index[found.position]


def smallest(problem: Problem) -> int | None:
    """The open place that most likely can be loaded at all."""
    chance = problem.fitting.loads
    places = [index for index in range(len(problem.places)) if problem.is_open[index]]
    if not places:
        return None
    size = {index: problem.places[index].num_ctx * problem.places[index].num_batch for index in places}
    return max(places, key=lambda index: (round(float(chance[index]), 2), -size[index], -index))


def is_warm(problem: Problem) -> bool:
    """The run before the counted ones has made no difference in several cells: neither in each nor in all together."""
    seen = [found.warming for _, found in problem.known if found.warming is not None]
    if len(seen) < WARM_FROM:
        return False
    error = stdev(seen) / math.sqrt(len(seen))
    return fmean(seen) > -NO_DIFFERENCE - error and error < 2 * NO_DIFFERENCE and min(seen) > -0.15


def once(problem: Problem) -> Runs:
    """For a cell that is measured to learn something of others: a single run, once it is known how far runs differ."""
    full = [found for _, found in problem.known if found.is_measured and found.runs > 1]
    if len(full) < FULL_AT_FIRST:
        return Runs(is_once_where_spilled=True)
    return Runs(most=1, warmup=not is_warm(problem))


def words(place: Place) -> str:
    """`num_ctx 4096, num_batch 64`."""
    return f"num_ctx {place.num_ctx}, num_batch {place.num_batch}"


def percent(share: float) -> str:
    """`12 %`, `0.4 %`."""
    return f"{100 * share:.1f} %" if share < 0.01 else f"{100 * share:.0f} %"


def spread_out(values: Sequence[int]) -> Iterator[int]:
    """First, last, middle, quarters, and so on: what is interpolated lies between known ones as soon as possible."""
    if not values:
        return
    seen: set[int] = set()
    parts = 1
    while len(seen) < len(values):
        for number in range(parts + 1):
            index = round(number * (len(values) - 1) / parts)
            if index not in seen:
                seen.add(index)
                yield values[index]
        parts *= 2


def opening(problem: Problem, wanted: int = len(STARTS)) -> Next | Reached | None:
    """One of the first cells, or one that most likely fits while none has a rate; None where enough was measured."""
    first = start(problem, wanted)
    if first is not None and problem.has_time():
        return Next(problem.places[first].position, FIRST, "the first cells", once(problem))
    if problem.rated:
        return None
    index = smallest(problem)
    if index is None or not problem.has_time():
        return Reached("no cell has given a rate", failed=True)
    why = "no cell has given a rate yet; this one most likely fits"
    return Next(problem.places[index].position, why, "no cell has given a rate")
