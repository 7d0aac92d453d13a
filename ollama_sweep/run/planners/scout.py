"""A grid that another engine has scouted: which of its cells this engine must measure itself.

First some cells in an order that hangs on no rate: they give the factor by which the scout's rates are off. For a map
then what the scout cannot say: the last cell of each num_ctx that fits beside the whole model, and all beyond it, once
each. Then the leading group in full, and the fastest num_batch of each num_ctx (of a map: first, last, middle, quarters
…). A largest num_ctx is looked for from the top. What an answer names was always measured here.

What a cell is likely to be is the scout's surface times the factor; where the factor is not steady, that is the answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from ollama_sweep.core.surface.factor import FEWEST, NOT_STEADY, Factor, Factors, Region, factors
from ollama_sweep.core.surface.goal import BEST, FULL, LARGEST, MAP, PER_CONTEXT, Goal, Runs
from ollama_sweep.core.surface.memory import fitting
from ollama_sweep.core.surface.places import Found, Known, Noise, Place
from ollama_sweep.core.surface.scouted import (
    LEADING,
    LEAST_SAMPLED,
    MOST_CONTEXTS,
    MOST_SAMPLED,
    Scouted,
    pairs,
    sample,
)
from ollama_sweep.core.surface.smooth import Smooth
from ollama_sweep.run.planners import base
from ollama_sweep.run.planners.base import CLOSE, DRAWN, Next, Problem, Reached

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

UNKNOWN = 0.1
"""How far a factor may be off as long as none is known."""
LIKELY = 0.5
MOST_POINTS = 120
"""The surface goes through so many scouted cells; the others have their own rate, weighted with it."""


def decide(problem: Problem, goal: Goal, scouted: Scouted) -> Next | Reached:
    """The next cell that this engine measures itself, or what came of the goal."""
    return _Planning(problem, goal, scouted).decide()


class _Planning:
    """One decision: what is known, and the steps in their order."""

    def __init__(self, problem: Problem, goal: Goal, scouted: Scouted) -> None:
        self.problem, self.goal, self.scouted = problem, goal, scouted
        self._order = sample(problem.places, scouted)
        self._pairs = pairs(self._order, problem.results, problem.open, scouted, problem.noise)
        self.factors: Factors = factors(self._pairs)

    def decide(self) -> Next | Reached:
        if not any(map(self.scouted.fits, self.problem.places)):
            return Reached("the scout has found no cell that fits: measure without it (--no-scout)", failed=True)
        for step in self._steps():
            found = step()
            if found is not None:
                has_time = self.problem.has_time()
                return found if has_time else self._end(f"the time is over; {found.how_far}", is_over=True)
        if self.factors.cells >= FEWEST and not self.factors.is_steady:
            return Reached(
                f"{NOT_STEADY}, so the scout is no map: {self.factors.words}. "
                "Every cell with: --no-scout",
                self._answers(), failed=True,
            )  # fmt: skip
        return self._end("")

    def _steps(self) -> Iterator[Callable[[], Next | None]]:
        kind = self.goal.kind
        yield self._both_ways
        if kind == MAP:
            yield self._not_scouted
        if kind in (MAP, BEST, LARGEST):
            yield self._leading
        if kind in (MAP, PER_CONTEXT):
            yield self._fastest_of_contexts
        if kind == LARGEST:
            yield self._largest_holding
        yield self._steadier

    def _next(self, index: int, why: str, runs: Runs) -> Next:
        return Next(self.problem.places[index].position, why, self._how_far, runs)

    @property
    def _how_far(self) -> str:
        return f"factor measured / scouted: {self.factors.words}"

    # -- the factor ----------------------------------------------------------------------------------------------------

    def _both_ways(self) -> Next | None:
        """The first of the sample."""
        return self._of_sample(LEAST_SAMPLED if self.goal.kind == MAP else FEWEST)

    def _steadier(self) -> Next | None:
        """More of it, as long as the factor is not steady."""
        return None if self.factors.is_steady else self._of_sample(MOST_SAMPLED)

    def _of_sample(self, wanted: int) -> Next | None:
        if self.factors.cells >= wanted:
            return None
        place = next((place for place in self._order if place.position in self.problem.open), None)
        if place is None:
            return None
        why = "one of those measured both ways, by an order that hangs on no rate: they give the factor"
        return self._next(self.problem.index[place.position], why, base.once(self.problem))

    # -- memory --------------------------------------------------------------------------------------------------------

    @cached_property
    def beyond(self) -> frozenset[int]:
        """Indices of places that do not fit beside the whole model, by the scout or by what was measured here."""
        here = [(place, found) for place, found in self.problem.known
                if found.known in (Known.SPILLED, Known.FAILED)]  # fmt: skip
        return frozenset(
            index for index, place in enumerate(self.problem.places)
            if not self._may_fit(place) or any(_is_beyond(place, other) for other, _ in here)
        )  # fmt: skip

    def _may_fit(self, place: Place) -> bool:
        found = self.scouted.found.get(place.position)
        if found is None:
            return bool(self._chances[self.problem.index[place.position]] >= LIKELY)
        return self.scouted.fits(place)

    @cached_property
    def _chances(self) -> Numbers:
        """How likely places fit that nobody has scouted."""
        known = [(place, found) for place in self.problem.places if (found := self.scouted.found.get(place.position))]
        return fitting(self.problem.places, known).chance

    def _not_scouted(self) -> Next | None:
        """The edge of memory and what lies beyond it, the smallest first: once each."""
        edge = [(index, "the last that fits at its num_ctx by the scout") for index in self._edge()]
        beyond = [(index, "the scout has no rate of it: beyond the edge of memory") for index in self.beyond]
        found = [pair for pair in (*edge, *beyond) if self.problem.is_open[pair[0]]]
        if not found:
            return None
        places = self.problem.places
        index, why = min(found, key=lambda pair: (places[pair[0]].num_ctx * places[pair[0]].num_batch, pair[0]))
        return self._next(index, why, Runs(most=1, warmup=False, is_once_where_spilled=True))

    def _edge(self) -> Iterator[int]:
        """The last that fits of each num_ctx at which not all does, and of the largest num_ctx at which all does."""
        places = self.problem.places
        cut = {places[index].num_ctx for index in self.beyond}
        whole = [ctx for ctx in self.problem.contexts if ctx not in cut]
        for ctx in cut | set(whole[-1:]):
            inside = [index for index in self._inside if places[index].num_ctx == ctx]
            if inside:
                yield max(inside, key=lambda index: places[index].num_batch)

    # -- rates ---------------------------------------------------------------------------------------------------------

    @cached_property
    def _inside(self) -> list[int]:
        """Places that may have a rate beside the whole model."""
        return [index for index in range(len(self.problem.places)) if index not in self.beyond]

    @cached_property
    def _surface(self) -> _Surface:
        return _surface(self.problem.places, tuple(self.scouted.found.items()), self.scouted.noise)

    @cached_property
    def _expected(self) -> tuple[Numbers, Numbers, Numbers]:
        """Logarithms of rates, their deviations, and the part of these that all cells of a region share."""
        import numpy as np

        log, own = self._surface.log.copy(), self._surface.deviation.copy()
        shared = np.full(len(log), UNKNOWN)
        for index, place in enumerate(self.problem.places):
            factor = self.factors.of(place)
            if factor is not None:
                factor_log, shared[index] = self._sharpened[factor.region]
                log[index] += factor_log
                own[index] = math.hypot(own[index], factor.own)
        for place, found in self.problem.of(Known.FITS):
            index = self.problem.index[place.position]
            log[index], own[index] = self._measured(found, log[index], math.hypot(own[index], shared[index]))
            shared[index] = 0.0
        return log, own, shared

    @cached_property
    def _sharpened(self) -> dict[Region, tuple[float, float]]:
        """The logarithm of each factor and its error by what else was measured here as well.

        Those cells were chosen for their rate, so the factor that is told leaves them out. Held against the surface,
        which luck has little part in, they say enough to end a search.
        """
        counted = {pair.place.position for pair in self._pairs}
        known = {factor.region: [1 / factor.error**2, factor.log / factor.error**2] for factor in self.factors.parts
                 if factor.error}  # fmt: skip
        for place, found in self.problem.of(Known.FITS):
            factor, index = self.factors.of(place), self.problem.index[place.position]
            if place.position in counted or factor is None or factor.region not in known or not found.rate:
                continue
            variance = self.problem.noise.variance(found) + self._surface.deviation[index] ** 2 + factor.own**2
            known[factor.region][0] += 1 / variance
            known[factor.region][1] += (math.log(found.rate) - self._surface.log[index]) / variance
        return {
            factor.region: (known[factor.region][1] / known[factor.region][0], known[factor.region][0] ** -0.5)
            if factor.region in known else (factor.log, factor.error)
            for factor in self.factors.parts
        }  # fmt: skip

    def _measured(self, found: Found, log: float, deviation: float) -> tuple[float, float]:
        """Of a place that was measured here, by that and by what was expected of it."""
        assert found.rate is not None
        weights = 1 / max(self.problem.noise.variance(found), 1e-8), 1 / max(deviation, 1e-4) ** 2
        middle = (weights[0] * math.log(found.rate) + weights[1] * log) / sum(weights)
        return middle, math.sqrt(1 / sum(weights))

    @cached_property
    def _drawn(self) -> Numbers:
        """Surfaces that agree with all that is known: shape (DRAWN, places). The same for the same results.

        Neighbours of a smooth surface are wrong together: drawn one by one, the luckiest of hundreds would be much too
        fast.
        """
        import numpy as np

        log, own, shared = self._expected
        random = np.random.default_rng(len(self.problem.results))
        alone = np.array([self._is_rated(index) for index in range(len(log))])
        unlike = np.array([self._unlike(part) for part in map(self.factors.of, self.problem.places)])
        together = np.where(alone, 0.0, self._surface.wrong)
        found: Numbers = log + together + np.where(alone, own, unlike) * random.standard_normal((DRAWN, len(log)))
        parts = self.factors.parts or (None,)
        for part in parts:
            holds = np.array([part is None or part.region.holds(place) for place in self.problem.places])
            found += random.standard_normal((DRAWN, 1)) * (shared * holds)
        return found

    def _unlike(self, factor: Factor | None) -> float:
        """How far a single cell may differ between both. As long as nobody knows how far loads differ, that is what
        cells that differ are taken for: one more of them would say no more."""
        if factor is None or self.problem.noise.loads is None:
            return 0.0
        return factor.own

    @cached_property
    def _named(self) -> int | None:
        """The measured place that is likely the fastest, of those that fit whole."""
        return self._fastest(self.problem.index[place.position] for place, _ in self.problem.of(Known.FITS))

    def _fastest(self, indices: Iterator[int] | Sequence[int]) -> int | None:
        log = self._expected[0]
        return max(indices, key=lambda index: (log[index], -index), default=None)

    def _leading(self) -> Next | None:
        """A cell that may be more than 5 % faster than the best one measured; of a map the scout's fastest as well."""
        inside = [index for index in self._inside if self.problem.is_open[index]]
        if not inside:
            return None
        log, drawn = self._expected[0], self._drawn
        if self._named is None:
            first = self._fastest(inside)
            assert first is not None
            return self._next(first, "the scout calls it the fastest", FULL)
        faster = drawn[:, inside] > drawn[:, [self._named]] + math.log(1 + CLOSE)
        chance = float(faster.any(axis=1).mean())
        if chance > self.problem.doubt:
            each = faster.mean(axis=0)
            at = max(range(len(inside)), key=lambda number: (each[number], log[inside[number]]))
            why = f"more than 5 % faster than the best one measured with {base.percent(float(each[at]))}"
            return self._next(inside[at], f"{why}, as scouted", FULL)
        if self.goal.kind == MAP:
            first_ones = sorted(self._inside, key=lambda index: (-log[index], index))[:LEADING]
            index = next((index for index in first_ones if self.problem.is_open[index]), None)
            return None if index is None else self._next(index, "among the fastest, as scouted", FULL)
        return None

    def _fastest_of_contexts(self) -> Next | None:
        """The fastest num_batch of a num_ctx, as scouted, where none that may be as fast was measured."""
        contexts = list(base.spread_out(self.problem.contexts))
        log = self._expected[0]
        for ctx in contexts[:MOST_CONTEXTS] if self.goal.kind == MAP else contexts:
            column = [index for index in self._inside if self.problem.places[index].num_ctx == ctx]
            fastest = self._fastest([index for index in column if self.problem.is_open[index]])
            done = self._fastest([index for index in column if self._is_rated(index)])
            if fastest is None or (done is not None and log[done] >= log[fastest] - math.log(1 + CLOSE)):
                continue
            return self._next(fastest, f"the fastest num_batch of num_ctx {ctx}, as scouted", base.once(self.problem))
        return None

    def _is_rated(self, index: int) -> bool:
        found = self.problem.results.get(self.problem.places[index].position)
        return found is not None and found.known is Known.FITS and found.is_measured

    # -- the largest num_ctx -------------------------------------------------------------------------------------------

    def _largest_holding(self) -> Next | None:
        """From the top: the cell of a num_ctx that most likely holds what is asked for, until one does."""
        for ctx in reversed(self.problem.contexts):
            column = [index for index in self._inside if self.problem.places[index].num_ctx == ctx]
            if any(self._holds(index) for index in column):
                return None
            chance = {index: self._chance_to_hold(index) for index in column if self.problem.is_open[index]}
            if not chance:
                continue
            index = max(chance, key=lambda one: (chance[one], -one))
            if chance[index] > self.problem.doubt:
                why = f"holds what is asked for with {base.percent(chance[index])}, as scouted"
                return self._next(index, f"{why}; no larger num_ctx does", base.once(self.problem))
        return None

    def _least_log(self) -> float:
        """What a rate must be for the first token to come in time."""
        limit = self.goal.ttft_s
        return -math.inf if limit is None else math.log(self.problem.each_run_s / limit)

    def _holds(self, index: int) -> bool:
        """Of a place that was measured here."""
        if not self._is_rated(index) or self._named is None:
            return False
        log, found = self._expected[0], self.problem.results[self.problem.places[index].position]
        limit = self.goal.ttft_s
        in_time = limit is None or (found.ttft_s or self.problem.each_run_s / (found.rate or 1.0)) <= limit
        return in_time and bool(log[index] >= log[self._named] + math.log(self.goal.rate))

    def _chance_to_hold(self, index: int) -> float:
        if self._named is None:
            return 1.0
        drawn = self._drawn
        enough = drawn[:, index] >= drawn[:, self._named] + math.log(self.goal.rate)
        return float((enough & (drawn[:, index] >= self._least_log())).mean())

    # -- the end -------------------------------------------------------------------------------------------------------

    def _answers(self) -> tuple[int, ...]:
        places = self.problem.places
        if self.goal.kind == LARGEST:
            held = [index for index in self._inside if self._holds(index)]
            top = max((places[index].num_ctx for index in held), default=0)
            best = self._fastest([index for index in held if places[index].num_ctx == top])
            return () if best is None else (places[best].position,)
        if self.goal.kind == PER_CONTEXT:
            columns = (
                self._fastest([index for index in self._inside
                               if places[index].num_ctx == ctx and self._is_rated(index)])
                for ctx in self.problem.contexts
            )  # fmt: skip
            return tuple(places[index].position for index in columns if index is not None)
        return () if self._named is None else (places[self._named].position,)

    def _end(self, says: str, *, is_over: bool = False) -> Reached:
        problem, answers = self.problem, self._answers()
        if self.goal.kind == LARGEST and not answers:
            return Reached(says or "no num_ctx holds what is asked for", failed=True)
        named = {
            MAP: "the map is whole", BEST: "is the best", LARGEST: "is the largest that holds what is asked for",
            PER_CONTEXT: "the fastest num_batch of each num_ctx",
        }[self.goal.kind]  # fmt: skip
        if self.goal.kind in (BEST, LARGEST) and answers:
            named = f"{base.words(problem.places[problem.index[answers[0]]])} {named}"
        here = len(problem.rated)
        scouted = sum(problem.is_open[index] and self.scouted.fits(place)
                      for index, place in enumerate(problem.places))  # fmt: skip
        counted = f"{here} cells measured, {scouted} scouted, {self._how_far}"
        so_far = " so far" if is_over else ""
        return Reached(f"{named}{so_far} ({'; '.join(filter(None, [says, counted]))})", answers, failed=is_over)


def _is_beyond(place: Place, other: Place) -> bool:
    """At least as large as one that does not fit."""
    return place.num_ctx >= other.num_ctx and place.num_batch >= other.num_batch


@dataclass(frozen=True)
class _Surface:
    """The scout's: logarithms of rates, their deviations, and how wrong they are in drawn surfaces: (DRAWN, places)."""

    log: Numbers
    deviation: Numbers
    wrong: Numbers


@lru_cache(maxsize=4)
def _surface(places: tuple[Place, ...], known: tuple[tuple[int, Found], ...], noise: Noise) -> _Surface:
    """What the scout's rates are likely to be, of every place: the same for every decision about a grid."""
    found = dict(known)
    rated = [(place, one) for place in places
             if (one := found.get(place.position)) and one.known is Known.FITS and one.is_measured]  # fmt: skip
    step = max(1.0, len(rated) / MOST_POINTS)
    used = [rated[int(number * step)] for number in range(min(len(rated), MOST_POINTS))]
    smooth = Smooth(places, used, noise)
    log, deviation = smooth.said()
    wrong = smooth.draws(range(len(places)), DRAWN) - log
    seen = {place.position for place, _ in used}
    at = {place.position: index for index, place in enumerate(places)}
    for place, one in rated:
        if place.position not in seen and one.rate:
            index = at[place.position]
            weights = 1 / max(noise.variance(one), 1e-8), 1 / deviation[index] ** 2
            log[index] = (weights[0] * math.log(one.rate) + weights[1] * log[index]) / sum(weights)
            wrong[:, index] *= math.sqrt(weights[1] / sum(weights))
            deviation[index] = math.sqrt(1 / sum(weights))
    return _Surface(log, deviation, wrong)
