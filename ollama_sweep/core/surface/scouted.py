"""A grid that another engine has scouted: which of its cells are measured to learn the factor, and what the others are
likely to be. Pure.

The factor is learnt of cells in an order that hangs on nothing that was measured: cells that were chosen because the
scout's rate was high there would say that it promises too much.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ollama_sweep.core.surface.factor import FEWEST, Factors, Pair, factors
from ollama_sweep.core.surface.places import Known, Noise, Place, Results

LEAST_SAMPLED = 2 * FEWEST
"""Of a map so many cells are measured both ways at least: two regions can be told apart."""
LEADING = 3
"""So many cells of a map that the scout calls the fastest are measured in full at least."""
MOST_CONTEXTS = 9
"""Of so many values of num_ctx a map looks for the fastest num_batch itself."""
MOST_SAMPLED = 24
"""So many cells are measured both ways at most: a factor that is not steady then will not become so."""
_STEPS = (0.7548776662466927, 0.5698402909980532)
"""Multiples of these, without their whole part, fill a square evenly (the plastic number's R2 sequence)."""


@dataclass(frozen=True)
class Scouted:
    """What the scout has found, by position in the plan of the sweep that it scouts for, and how far its runs and loads
    differ."""

    found: Results = field(default_factory=dict)
    noise: Noise = field(default_factory=Noise)

    def fits(self, place: Place) -> bool:
        """It has a rate beside the whole model."""
        found = self.found.get(place.position)
        return found is not None and found.known is Known.FITS and found.is_measured


@dataclass(frozen=True)
class Expected:
    """The logarithm of a rate, and how sure that is (a standard deviation)."""

    log: float
    deviation: float

    @property
    def rate(self) -> float:
        """In tokens/s."""
        return math.exp(self.log)

    @property
    def interval(self) -> tuple[float, float]:
        """It holds the true rate 19 times in 20."""
        reach = 1.96 * self.deviation
        return math.exp(self.log - reach), math.exp(self.log + reach)


def sample(places: Sequence[Place], scouted: Scouted) -> list[Place]:
    """The cells that are measured both ways, in their order: evenly over what fits."""
    fitting = {(place.num_ctx, place.num_batch): place for place in places if scouted.fits(place)}
    contexts = sorted({ctx for ctx, _ in fitting})
    batches = sorted({batch for _, batch in fitting})
    wanted, chosen = min(MOST_SAMPLED, len(fitting)), list[Place]()
    for number in range(1, 1 + 40 * MOST_SAMPLED):
        if len(chosen) == wanted:
            break
        along = [(number * step) % 1.0 for step in _STEPS]
        at = contexts[int(along[0] * len(contexts))], batches[int(along[1] * len(batches))]
        if at in fitting:
            chosen.append(fitting.pop(at))
    rest = sorted(fitting.values(), key=lambda place: place.position)
    return chosen + rest[: wanted - len(chosen)]


def pairs(
    order: Sequence[Place], results: Results, is_open: Collection[int], scouted: Scouted, noise: Noise
) -> list[Pair]:
    """Those of the sample that both have measured, as far as it has come; `noise` is that of `results`."""
    return list(_pairs(order, results, is_open, scouted, noise))


def _pairs(
    order: Sequence[Place], results: Results, is_open: Collection[int], scouted: Scouted, noise: Noise
) -> Iterator[Pair]:
    for place in order:
        own, other = results.get(place.position), scouted.found[place.position]
        if place.position in is_open:
            return
        if own is None or own.known is not Known.FITS or not own.rate or not other.rate:
            continue
        yield Pair(place, math.log(own.rate / other.rate), noise.variance(own) + scouted.noise.variance(other))


def factors_of(
    places: Sequence[Place], results: Results, is_open: Collection[int], scouted: Scouted, noise: Noise
) -> Factors:
    """The factor by which rates of this sweep differ from the scout's."""
    return factors(pairs(sample(places, scouted), results, is_open, scouted, noise))


def expected(place: Place, scouted: Scouted, known: Factors) -> Expected | None:
    """What a cell that only the scout has measured is likely to be; None without a rate of it, or without a factor."""
    found, factor = scouted.found.get(place.position), known.of(place)
    if found is None or factor is None or not scouted.fits(place) or not found.rate:
        return None
    variance = scouted.noise.variance(found) + factor.error**2 + factor.own**2
    return Expected(math.log(found.rate) + factor.log, math.sqrt(variance))


def all_expected(places: Sequence[Place], scouted: Scouted, known: Factors) -> Mapping[int, Expected]:
    """The same of every place of which something is known, by position."""
    found = ((place.position, expected(place, scouted, known)) for place in places)
    return {position: one for position, one in found if one is not None}
