"""Places of a grid of num_ctx and num_batch, and what is known of them. Words only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ollama_sweep.core.noise.spread import MEDIAN_VARIANCE, Spreads


class Known(StrEnum):
    """What a measured place has shown. `TRIED` says nothing of memory or speed: a time limit, a crash."""

    FITS = "fits"
    SPILLED = "spilled"
    FAILED = "out of memory"
    TRIED = "failed"


@dataclass(frozen=True)
class Place:
    """A cell of the grid by its position in the plan."""

    position: int
    num_ctx: int
    num_batch: int


@dataclass(frozen=True)
class Found:
    """What is known of a place: how it ended, its rate in tokens/s, of how many runs in how many loads.

    `seconds` is what all its loads took, of which `load_s` each for the load; `count` the tokens of its prompt.
    `ttft_s`: until the first token, as far as that was measured. `warming` is the logarithm of the first run before the
    counted ones divided by these; negative where the first was slower.
    """

    known: Known
    rate: float | None = None
    runs: int = 0
    loads: int = 0
    size_bytes: int | None = None
    seconds: float = 0.0
    load_s: float | None = None
    count: int | None = None
    ttft_s: float | None = None
    warming: float | None = None

    @property
    def is_measured(self) -> bool:
        """It has a rate."""
        return self.rate is not None and self.rate > 0


Results = Mapping[int, Found]
"""What is known, by position; a place without an entry was not tried."""


@dataclass(frozen=True)
class Noise:
    """How far logarithms of rates differ by chance: of runs in a load, and of loads. None is not known."""

    runs: float | None = None
    loads: float | None = None

    @classmethod
    def of(cls, spreads: Spreads | None) -> Noise:
        """What a sweep knows of it."""
        if spreads is None:
            return cls()
        runs = spreads.runs.sigma if spreads.runs.df else None
        return cls(runs, spreads.loads.sigma if spreads.are_loads_known else None)

    def variance(self, found: Found) -> float:
        """Of a place's value; where a spread is not known, as much as is usual."""
        runs, loads = self._spreads
        of_median = MEDIAN_VARIANCE if found.runs > 2 else 1.0  # the median of one or two runs is their mean
        return of_median * runs**2 / max(1, found.runs) + loads**2 / max(1, found.loads)

    @property
    def of_one_run(self) -> float:
        """How far single runs in different loads differ; where a spread is not known, as much as is usual."""
        return math.hypot(*self._spreads)

    @property
    def _spreads(self) -> tuple[float, float]:
        """A spread of 0 is known: all were alike."""
        return USUAL_RUNS if self.runs is None else self.runs, USUAL_LOADS if self.loads is None else self.loads

    @property
    def is_known(self) -> bool:
        """Both were measured."""
        return self.runs is not None and self.loads is not None


USUAL_RUNS, USUAL_LOADS = 0.02, 0.02
"""Spreads that a machine in use has, until its own are known."""


def coordinates(places: Sequence[Place], grid: Sequence[Place]) -> list[tuple[float, float]]:
    """Each place as (octaves of num_batch, 0 to 1 along num_ctx): half by its size, half by its logarithm."""
    sizes = sorted({place.num_ctx for place in grid})
    low, high = sizes[0], sizes[-1]
    return [(math.log2(place.num_batch), along(place.num_ctx, low, high)) for place in places]


def along(num_ctx: int, low: int, high: int) -> float:
    """0 for the smallest, 1 for the largest."""
    if low == high:
        return 0.5
    by_size = (num_ctx - low) / (high - low)
    by_octave = math.log(num_ctx / low) / math.log(high / low)
    return (by_size + by_octave) / 2
