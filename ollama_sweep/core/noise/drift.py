"""A machine gets faster and slower over hours: what the control cell's loads say of that, apart from their noise. Pure.

One load more or less says little, so the drift is a smoothed line through all of them. Their noise is told by what one
load differs from the next by, which a slow drift hardly touches.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ollama_sweep.core.noise.spread import Spread, Spreads, standard_error
from ollama_sweep.core.stats import MEDIAN_TO_SIGMA, median

FLAGGED, FLAGGED_ERRORS = 0.03, 2.0
PAUSED, PAUSED_ERRORS = 0.08, 3.0
FEWEST_POINTS = 4
BETTER = 3.0
"""A line corrects where it varies by so much more than it is uncertain (as variances)."""


@dataclass(frozen=True)
class Point:
    """A load of the control cell: when, in seconds from the first one, and its rate."""

    at_s: float
    rate: float


@dataclass(frozen=True)
class Drift:
    """How much faster (+) or slower (-) the machine is now than at the start, as a share, and how uncertain that is.

    `error` is None where nothing is known of chance yet.
    """

    share: float = 0.0
    error: float | None = None

    @property
    def is_flagged(self) -> bool:
        """Cells measured now are off by more than may be."""
        return abs(self.share) > self.limit

    @property
    def limit(self) -> float:
        """From here on cells are flagged."""
        return max(FLAGGED, FLAGGED_ERRORS * (self.error or 0.0))

    @property
    def is_too_far(self) -> bool:
        """So far that it is better to wait."""
        return abs(self.share) > self.pause_limit

    @property
    def pause_limit(self) -> float:
        """From here on it is better to wait."""
        return max(PAUSED, PAUSED_ERRORS * (self.error or 0.0))

    @property
    def words(self) -> str:
        """`-4.1% ± 1.2%`."""
        return f"{self.share:+.1%} " + ("(error not known)" if self.error is None else f"± {self.error:.1%}")


@dataclass(frozen=True)
class Line:
    """The smoothed logarithms of the rates at each point, and the standard error of one of them."""

    points: tuple[Point, ...]
    logs: tuple[float, ...]
    error: float

    def at(self, at_s: float) -> float:
        """The logarithm at a moment, straight between two points, and level before the first and after the last."""
        after = bisect_right([point.at_s for point in self.points], at_s)
        if after == 0 or after == len(self.points):
            return self.logs[max(0, after - 1)]
        first, second = self.points[after - 1], self.points[after]
        share = (at_s - first.at_s) / (second.at_s - first.at_s) if second.at_s > first.at_s else 1.0
        return self.logs[after - 1] + share * (self.logs[after] - self.logs[after - 1])

    @property
    def middle(self) -> float:
        return math.fsum(self.logs) / len(self.logs)

    @property
    def is_better(self) -> bool:
        """To correct by it takes off more than its own error adds."""
        spread = math.fsum((log - self.middle) ** 2 for log in self.logs) / len(self.logs)
        return len(self.logs) >= 3 and spread > BETTER * self.error**2

    def correction(self, at_s: float) -> float:
        """By what share a cell measured then was faster (+) than on the average of the sweep."""
        return math.expm1(self.at(at_s) - self.middle)


def line_of(points: Sequence[Point]) -> Line:
    """The line through at least one load of the control cell, in the order of time: means of three neighbours."""
    logs = [math.log(point.rate) for point in points]
    smooth = [_mean(logs[max(0, n - 1) : n + 2]) for n in range(len(logs))]
    return Line(tuple(points), tuple(smooth), _noise(logs) / math.sqrt(min(3, len(logs))))


def drift_of(points: Sequence[Point], spreads: Spreads | None = None) -> Drift:
    """How the last loads stand against the first one; of too few points the noise is that of all loads, if known."""
    if len(points) < 2:
        return Drift()
    logs = [math.log(point.rate) for point in points]
    count = max(1, min(3, len(logs) // 4))
    share = math.expm1(_mean(logs[-count:]) - logs[0])
    noise = _noise(logs) if len(logs) >= FEWEST_POINTS else _known_noise(spreads)
    return Drift(share, None if noise is None else noise * math.sqrt(1 + 1 / count))


def _known_noise(spreads: Spreads | None) -> float | None:
    """Of one load; where it is not known how far loads differ, as much as its runs alone make it differ."""
    if spreads is None or not (spreads.are_loads_known or spreads.runs.df):
        return None
    known = spreads if spreads.are_loads_known else replace(spreads, loads=Spread())
    return standard_error(known, runs=3, loads=1)


def _noise(logs: Sequence[float]) -> float:
    """Of one load: of the median difference from one to the next, so that one jump of the machine is no noise."""
    steps = [abs(after - before) for before, after in pairwise(logs)]
    return MEDIAN_TO_SIGMA * median(steps) / math.sqrt(2) if steps else 0.0


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
