"""How many times as fast one engine is as another: the factor, of cells that both have measured. Pure.

It is a trimmed mean of logarithms (a fifth is left out at either end) with the interval of Yuen for such a mean: a cell
that a neighbour has disturbed does not rule it. Where it differs between small and large num_ctx or num_batch there is
one for each of the two regions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, median_low

from ollama_sweep.core.noise.spread import quantile
from ollama_sweep.core.surface.places import Place

FEWEST = 6
"""Of fewer cells there is no factor."""
STEADY = 0.05
"""A factor is steady where half of its interval is no wider than this share of it."""
TRIMMED = 0.2
DIFFER = 0.01
"""Two regions have a factor each where chance alone makes them differ so much more rarely than this."""
DIMENSIONS = ("num_ctx", "num_batch")
NOT_STEADY = "the factor measured / scouted is not steady"


@dataclass(frozen=True)
class Pair:
    """A cell that both have measured: the logarithm of the rate of the one divided by that of the other, and the
    variance that chance alone gives that."""

    place: Place
    log_ratio: float
    chance: float = 0.0


@dataclass(frozen=True)
class Region:
    """Where a factor holds: everywhere, or at values of a dimension `above` some value or up to it."""

    dimension: str = ""
    border: int = 0
    above: bool = False

    def holds(self, place: Place) -> bool:
        """The place lies in it."""
        return not self.dimension or (getattr(place, self.dimension) > self.border) == self.above

    @property
    def words(self) -> str:
        """` with num_batch up to 128`; "" for everywhere."""
        if not self.dimension:
            return ""
        return f" with {self.dimension} {'above' if self.above else 'up to'} {self.border}"


EVERYWHERE = Region()


@dataclass(frozen=True)
class Factor:
    """`log` is the logarithm of the factor, `error` its standard error with so many degrees of freedom, `cells` of how
    many. `own`: so far single cells lie from it beyond what chance makes (a standard deviation of logarithms)."""

    log: float
    error: float
    df: int
    own: float
    cells: int
    region: Region = EVERYWHERE

    @property
    def value(self) -> float:
        """Rate of the one divided by that of the other."""
        return math.exp(self.log)

    @property
    def half(self) -> float:
        """Half of the interval of 95 %, as a share of the factor."""
        return math.expm1(self.error * quantile(self.df))

    @property
    def is_steady(self) -> bool:
        """It is known well enough to say of one engine what the other does."""
        return self.half <= STEADY

    @property
    def words(self) -> str:
        """`0.995 ± 1.2 % (12 cells)`."""
        return f"{self.value:.3f} ± {100 * self.half:.1f} % ({self.cells} cells{self.region.words})"

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        reach = self.error * quantile(self.df)
        return {
            "factor": self.value, "low": math.exp(self.log - reach), "high": math.exp(self.log + reach),
            "cells": self.cells, "own_spread": self.own, "region": self.region.words.removeprefix(" with "),
        }  # fmt: skip


@dataclass(frozen=True)
class Factors:
    """One factor, or one for each of two regions; none as long as too few cells were measured both ways."""

    parts: tuple[Factor, ...] = ()
    cells: int = 0

    def of(self, place: Place) -> Factor | None:
        """The one that holds at a place."""
        return next((part for part in self.parts if part.region.holds(place)), None)

    @property
    def is_steady(self) -> bool:
        """Each of them is."""
        return bool(self.parts) and all(part.is_steady for part in self.parts)

    @property
    def words(self) -> str:
        """`0.995 ± 1.2 % (12 cells)`, and of both regions where they differ."""
        if not self.parts:
            return f"not known ({self.cells} cells measured both ways, {FEWEST} are needed)"
        return ", ".join(part.words for part in self.parts)


def factors(pairs: Sequence[Pair]) -> Factors:
    """The factor of these cells, or two where regions differ."""
    if len(pairs) < FEWEST:
        return Factors((), len(pairs))
    return Factors(_split(pairs) or (_factor(pairs, EVERYWHERE),), len(pairs))


def _factor(pairs: Sequence[Pair], region: Region) -> Factor:
    logs = sorted(pair.log_ratio for pair in pairs)
    cut = int(TRIMMED * len(logs))
    kept = logs[cut : len(logs) - cut]
    held = [kept[0]] * cut + kept + [kept[-1]] * cut
    spread = _deviation(held)
    error = spread / ((1 - 2 * cut / len(logs)) * math.sqrt(len(logs)))
    chance = sum(pair.chance for pair in pairs) / len(pairs)
    own = math.sqrt(max(0.0, _scatter(logs) ** 2 - chance))
    return Factor(sum(kept) / len(kept), error, len(kept) - 1, own, len(logs), region)


def _deviation(values: Sequence[float]) -> float:
    middle = sum(values) / len(values)
    return math.sqrt(sum((value - middle) ** 2 for value in values) / (len(values) - 1))


def _scatter(logs: Sequence[float]) -> float:
    """By the median distance from the median: odd cells do not rule it."""
    middle = median(logs)
    return 1.4826 * median(abs(value - middle) for value in logs)


def _split(pairs: Sequence[Pair]) -> tuple[Factor, Factor] | None:
    """The two regions that differ most, each with enough cells; None where chance alone may make them differ so."""
    found: list[tuple[float, tuple[Factor, Factor]]] = []
    for dimension in DIMENSIONS:
        border = median_low(getattr(pair.place, dimension) for pair in pairs)
        regions = Region(dimension, border), Region(dimension, border, above=True)
        sides = [[pair for pair in pairs if region.holds(pair.place)] for region in regions]
        if min(map(len, sides)) < FEWEST:
            continue
        low, high = (_factor(side, region) for side, region in zip(sides, regions, strict=True))
        found.append((_chance(low, high), (low, high)))
    chance, parts = min(found, key=lambda pair: pair[0], default=(1.0, None))
    return parts if chance < DIFFER / len(DIMENSIONS) else None


def _chance(one: Factor, other: Factor) -> float:
    """How often chance alone makes two regions differ so much (Welch)."""
    from scipy.special import stdtr

    squares = one.error**2, other.error**2
    if not sum(squares):
        return 1.0 if one.log == other.log else 0.0
    df = sum(squares) ** 2 / (squares[0] ** 2 / one.df + squares[1] ** 2 / other.df)
    return 2 * float(stdtr(df, -abs(one.log - other.log) / math.sqrt(sum(squares))))
