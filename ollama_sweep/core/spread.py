"""Two spreads: of the runs inside a load, and of the loads; and the interval that holds both. Pure.

All is in logarithms, so a spread is a share: 0.03 says that loads lie within about ± 3 % of one another. What several
runs in one load say of each other is nothing that the next load must keep to, so neither stands for the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
MEDIAN_VARIANCE = 1.57
"""The variance of a median of n runs is so many times that of their mean (pi / 2, for many runs; less for few)."""
LOADS_KNOWN_FROM = 3
"""Below so many degrees of freedom the spread of loads is not known."""


@dataclass(frozen=True)
class Spread:
    """A standard deviation of logarithms, and the degrees of freedom it was pooled with; 0 says that nothing is known."""

    sigma: float = 0.0
    df: int = 0


@dataclass(frozen=True)
class Spreads:
    """Both spreads of a metric in one segment of a sweep."""

    runs: Spread = Spread()
    loads: Spread = Spread()

    @property
    def are_loads_known(self) -> bool:
        """Enough was measured in several loads to say how far loads differ."""
        return self.loads.df >= LOADS_KNOWN_FROM and self.runs.df > 0


@dataclass(frozen=True)
class Load:
    """The believed runs of one load, all above zero."""

    runs: tuple[float, ...]

    @property
    def log_median(self) -> float:
        ordered = sorted(self.runs)
        middle = len(ordered) // 2
        both = (ordered[middle], ordered[-middle - 1])
        return (math.log(both[0]) + math.log(both[1])) / 2


def value_of(loads: Sequence[Load]) -> float:
    """What a cell is worth: the median of its runs in a load, and of several loads the geometric mean of those."""
    return math.exp(math.fsum(load.log_median for load in loads) / len(loads))


def spreads_of(cells: Iterable[Sequence[Load]]) -> Spreads:
    """Both spreads of the loads of many cells; those of one cell must differ in nothing but the time.

    A load that was made because of the value of another one must not stand beside it: its cell was chosen for being
    off, so the two differ by more than loads do.
    """
    runs_squares, runs_df, loads_squares, loads_df, of_medians = 0.0, 0, 0.0, 0, 0.0
    for loads in cells:
        for load in loads:
            runs_squares += _squares([math.log(run) for run in load.runs])
            runs_df += len(load.runs) - 1
        if len(loads) > 1:
            loads_squares += _squares([load.log_median for load in loads])
            loads_df += len(loads) - 1
            of_medians += (len(loads) - 1) * math.fsum(1 / len(load.runs) for load in loads) / len(loads)
    runs = Spread(math.sqrt(runs_squares / runs_df), runs_df) if runs_df else Spread()
    if not loads_df:
        return Spreads(runs)
    between = loads_squares / loads_df - MEDIAN_VARIANCE * runs.sigma**2 * of_medians / loads_df
    return Spreads(runs, Spread(math.sqrt(max(0.0, between)), loads_df))


def half_width(spreads: Spreads, *, runs: int, loads: int) -> float | None:
    """How far the logarithm of the true value may lie from that of a cell's value, with 95 %; None where that is not known.

    `runs` are those of all its loads together.
    """
    if not spreads.are_loads_known or runs < 1 or loads < 1:
        return None
    return quantile(spreads.loads.df) * standard_error(spreads, runs=runs, loads=loads)


def standard_error(spreads: Spreads, *, runs: int, loads: int) -> float:
    """Of the logarithm of a cell's value, which has so many runs in so many loads."""
    return math.sqrt(spreads.runs.sigma**2 * MEDIAN_VARIANCE / runs + spreads.loads.sigma**2 / loads)


def quantile(df: float, share: float = (1 + CONFIDENCE) / 2) -> float:
    """Of Student's t with `df` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(df, share))


def _squares(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values)
