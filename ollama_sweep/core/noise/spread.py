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
    """A standard deviation of logarithms, and the degrees of freedom it was pooled with; with 0 nothing is known."""

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
        return self.loads.df >= LOADS_KNOWN_FROM

    def as_dict(self) -> dict[str, float | int | None]:
        """For machines; a spread that is not known is None."""
        return {
            "runs_spread": self.runs.sigma if self.runs.df else None,
            "runs_df": self.runs.df,
            "loads_spread": self.loads.sigma if self.are_loads_known else None,
            "loads_df": self.loads.df,
        }

    @property
    def words(self) -> str:
        """`runs ± 1.2 %, loads ± 3 %`; what is not known is said."""
        runs = [f"runs {self.runs_words}"] if self.runs.df else []
        return ", ".join([*runs, f"loads {self.loads_words}"])

    @property
    def runs_words(self) -> str:
        """`± 1.2 %`, or `not known`."""
        return _share(self.runs.sigma) if self.runs.df else "not known"

    @property
    def loads_words(self) -> str:
        """`± 3 %`, or `not known`."""
        return _share(self.loads.sigma) if self.are_loads_known else "not known"


@dataclass(frozen=True)
class Load:
    """What one load said: the logarithm of the median of its believed runs, and how many they were.

    `squares` is the sum of squares of their logarithms about their mean.
    """

    log_median: float
    runs: int = 1
    squares: float = 0.0


def load_of(runs: Sequence[float]) -> Load:
    """Of the believed runs of one load, all above zero. Raises ValueError for none."""
    if not runs or min(runs) <= 0:
        raise ValueError("a load is told by runs above zero")
    ordered = sorted(runs)
    middle = len(ordered) // 2
    both = (ordered[middle], ordered[-middle - 1])
    return Load((math.log(both[0]) + math.log(both[1])) / 2, len(runs), _squares([math.log(run) for run in runs]))


def value_of(loads: Sequence[Load]) -> float:
    """What a cell is worth: the median of its runs in a load, and of several loads the geometric mean of those."""
    return math.exp(math.fsum(load.log_median for load in loads) / len(loads))


@dataclass(frozen=True)
class Sums:
    """What spreads are made of; those of many cells are the sum of those of each.

    `of_medians` is the sum of what the runs add to the squares of loads, in units of their variance.
    """

    runs_squares: float = 0.0
    runs_df: int = 0
    loads_squares: float = 0.0
    loads_df: int = 0
    of_medians: float = 0.0

    def plus(self, other: Sums, times: int = 1) -> Sums:
        """With another cell's; `times` -1 takes it off."""
        added = zip(vars(self).values(), vars(other).values(), strict=True)
        return Sums(*(mine + times * its for mine, its in added))

    @property
    def spreads(self) -> Spreads:
        runs = Spread(math.sqrt(max(0.0, self.runs_squares) / self.runs_df), self.runs_df) if self.runs_df else Spread()
        if not self.loads_df:
            return Spreads(runs)
        between = (self.loads_squares - MEDIAN_VARIANCE * runs.sigma**2 * self.of_medians) / self.loads_df
        return Spreads(runs, Spread(math.sqrt(max(0.0, between)), self.loads_df))


def sums_of(loads: Sequence[Load]) -> Sums:
    """Of the loads of one cell, which must differ in nothing but the time.

    A load that was made because of the value of another one must not stand beside it: its cell was chosen for being
    off, so the two differ by more than loads do.
    """
    if not loads:
        return Sums()
    df = len(loads) - 1
    of_medians = df * math.fsum(1 / load.runs for load in loads) / len(loads)
    return Sums(
        math.fsum(load.squares for load in loads),
        sum(load.runs - 1 for load in loads),
        _squares([load.log_median for load in loads]),
        df,
        of_medians,
    )


def spreads_of(cells: Iterable[Sequence[Load]]) -> Spreads:
    """Both spreads of the loads of many cells; `sums_of` says which loads may stand together."""
    total = Sums()
    for loads in cells:
        total = total.plus(sums_of(loads))
    return total.spreads


def half_width(spreads: Spreads, *, runs: int, loads: int) -> float | None:
    """How far the logarithm of the true value lies from that of a cell's value at most, with 95 %; None for unknown.

    `runs` are those of all its loads together.
    """
    if not spreads.are_loads_known or loads < 1:
        return None
    return quantile(spreads.loads.df) * standard_error(spreads, runs=runs, loads=loads)


def standard_error(spreads: Spreads, *, runs: int, loads: int) -> float:
    """Of the logarithm of a cell's value, which has so many runs in so many loads.

    Where no load has two runs that can be told apart, the spread of loads has that of the runs in it.
    """
    return math.sqrt(spreads.runs.sigma**2 * MEDIAN_VARIANCE / max(runs, 1) + spreads.loads.sigma**2 / loads)


def quantile(df: float, share: float = (1 + CONFIDENCE) / 2) -> float:
    """Of Student's t with `df` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(df, share))


def _share(sigma: float) -> str:
    """As people say it: two digits, one above 10 %."""
    return f"± {100 * sigma:.2g} %" if sigma < 0.095 else f"± {100 * sigma:.0f} %"


def _squares(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values)
