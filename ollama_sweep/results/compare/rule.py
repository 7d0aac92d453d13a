"""Two sweeps compared, cell by cell and over all: slower, faster, same, or it cannot be told. Pure.

All is in logarithms. A cell's change is the ratio of its two medians; how far that may be off comes of the spread of
runs and of loads, pooled over all cells of a side. What lies beyond the threshold is tested one-sided, and over all
cells at once by Benjamini and Hochberg, so that 200 cells that did not change hardly ever show one that did.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ollama_sweep.core.judge import NOISY_WIDTH
from ollama_sweep.core.noise.spread import LOADS_KNOWN_FROM, Load, Spread, Spreads, load_of, standard_error, value_of

FALSE_SHARE = 0.05
"""Of the cells that are called slower or faster, at most so many are not, on average (Benjamini and Hochberg, 1995)."""
ONE_SIDED = 0.025
"""What each end of a 95 % interval leaves out."""
RUNS_OWN_FROM = 8
"""From so many degrees of freedom on a side's runs speak for themselves; else both sides' are taken together."""
UNUSUAL = 0.01
"""Of the cells that are like all others, so many scatter more than is called usual."""
MOST_LOADS = 50
"""More further loads than that are not counted."""


class Verdict(StrEnum):
    """What is said of a cell. Where a metric is no speed, slower and faster are worse and better."""

    SLOWER = "slower"
    FASTER = "faster"
    SAME = "same"
    CANNOT_TELL = "cannot tell"
    TO_OOM = "ok -> oom"
    TO_SPILLED = "ok -> spilled"
    FROM_OOM = "oom -> ok"
    FROM_SPILLED = "spilled -> ok"

    @property
    def is_worse(self) -> bool:
        """B is worse than A, beyond noise."""
        return self in (Verdict.SLOWER, Verdict.TO_OOM, Verdict.TO_SPILLED)


@dataclass(frozen=True, slots=True)
class Measured:
    """A cell of one side: the logarithm of its value, and the runs and loads it rests on.

    `squares` is the sum of squares of the logarithms of its runs, each about the mean of its load.
    """

    log_value: float
    runs: int
    loads: int
    squares: float = 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """B over A, as a logarithm. Without a standard error nobody knows how far it may be off.

    `loads` are those of the side that has fewer: what it takes to halve the variance.
    """

    log_ratio: float
    standard_error: float | None = None
    df: float = math.inf
    loads: float = 1.0


@dataclass(frozen=True, slots=True)
class Judged:
    """A change with its 95 % interval, as ratios, and the word for it; only that where a status changed.

    `more_loads` is how many further loads of each side would tell, where that cannot be told now: None where it is not
    known or more than MOST_LOADS. `may_be_slower`: that it is slower than the threshold cannot be ruled out.
    """

    ratio: float | None
    low: float | None
    high: float | None
    p: float | None
    verdict: Verdict
    more_loads: int | None = None
    may_be_slower: bool = False


@dataclass(frozen=True)
class Limits:
    """Beyond which ratios a change counts, and which way is better (1 or -1)."""

    threshold: float
    better: int = 1

    @property
    def low(self) -> float:
        return math.log1p(-self.threshold)

    @property
    def high(self) -> float:
        return math.log1p(self.threshold)


@dataclass(frozen=True)
class Noise:
    """The spreads that both sides are judged with. `is_shared`: the loads of both were taken together."""

    a: Spreads = field(default_factory=Spreads)
    b: Spreads = field(default_factory=Spreads)
    is_shared: bool = False

    @property
    def is_known(self) -> bool:
        """Enough was measured in several loads."""
        return min(self.a.loads.df, self.b.loads.df) >= LOADS_KNOWN_FROM

    @property
    def missing(self) -> int:
        """So many further loads of cells that have one are needed before anything can be told."""
        return max(0, LOADS_KNOWN_FROM - max(self.a.loads.df, self.b.loads.df))


def noise_of(a: Spreads, b: Spreads) -> Noise:
    """Each side by its own spread where it knows it, both together where not.

    Two machines, or one on two days, need not be equally noisy. Taken together, a quiet side with many loads speaks for
    a noisy one with few: simulated with 20 and 5 of them and 0.5 and 5 %, a false alarm in 27 % of comparisons.
    """
    both = Spread(*_pooled(a.runs, b.runs))
    runs = [side.runs if side.runs.df >= RUNS_OWN_FROM else both for side in (a, b)]
    if min(a.loads.df, b.loads.df) >= LOADS_KNOWN_FROM:
        return Noise(Spreads(runs[0], a.loads), Spreads(runs[1], b.loads))
    loads = Spread(*_pooled(a.loads, b.loads))
    return Noise(Spreads(runs[0], loads), Spreads(runs[1], loads), is_shared=True)


def _pooled(a: Spread, b: Spread) -> tuple[float, int]:
    df = a.df + b.df
    return (math.sqrt((a.df * a.sigma**2 + b.df * b.sigma**2) / df), df) if df else (0.0, 0)


def measured(loads: Sequence[Load]) -> Measured:
    """What the loads of a cell say of it."""
    squares = math.fsum(load.squares for load in loads)
    return Measured(math.log(value_of(loads)), sum(load.runs for load in loads), len(loads), squares)


def is_usual(one: Measured, spreads: Spreads) -> bool:
    """The runs of a noisy cell scatter as all others do, so the interval, made of all, holds its noise as well.

    By the F ratio of its own variance, which is at least that of the flag, and that of the others; False where those
    are too few to say.
    """
    from scipy.special import fdtri

    df = one.runs - one.loads
    others_df = spreads.runs.df - df
    if df < 1 or others_df < RUNS_OWN_FROM:
        return False
    of_others = (spreads.runs.sigma**2 * spreads.runs.df - one.squares) / others_df
    squares = max(one.squares, NOISY_WIDTH**2 / 2)
    return squares / df <= float(fdtri(df, others_df, 1 - UNUSUAL)) * of_others


def change(a: Measured, b: Measured, noise: Noise) -> Change:
    """How a cell changed from A to B."""
    ratio, loads = b.log_value - a.log_value, min(a.loads, b.loads)
    if not noise.is_known:
        return Change(ratio, loads=loads)
    of_a, of_b = (_variance(one, spreads) for one, spreads in ((a, noise.a), (b, noise.b)))
    return Change(ratio, math.sqrt(of_a + of_b), _df(of_a, of_b, noise), loads)


def change_over_all(
    cells: Sequence[tuple[Measured, Measured]], noise: Noise, of_load: Sequence[object] = ()
) -> Change | None:
    """How all cells together changed: the geometric mean of their ratios. None without cells.

    `of_load` is the same for cells that were measured in one load: what that had by chance they all have, and it does
    not average out. Empty: each had a load of its own.
    """
    count = len(cells)
    if not count:
        return None
    ratio = math.fsum(b.log_value - a.log_value for a, b in cells) / count
    loads = math.fsum(min(a.loads, b.loads) for a, b in cells) / count
    if not noise.is_known:
        return Change(ratio, loads=loads)
    of_a, of_b = (
        (math.fsum(_variance(one, spreads) for one in side) + _in_common(side, spreads, of_load)) / count**2
        for side, spreads in zip(zip(*cells, strict=True), (noise.a, noise.b), strict=True)
    )
    return Change(ratio, math.sqrt(of_a + of_b), _df(of_a, of_b, noise), loads)


def _in_common(side: Sequence[Measured], spreads: Spreads, of_load: Sequence[object]) -> float:
    """What the variance of a sum has beside that of each cell, where they share a load: of several, one of them."""
    shares = [1 / one.loads for one in side]
    return spreads.loads.sigma**2 * beside_own(shares, of_load)


def beside_own(shares: Sequence[float], of_load: Sequence[object]) -> float:
    """The sum of the products of all pairs that have a load in common, each pair twice."""
    groups: dict[object, list[float]] = {}
    for share, load in zip(shares, of_load, strict=True) if of_load else ():
        groups.setdefault(load, []).append(share)
    return math.fsum(math.fsum(some) ** 2 - math.fsum(one**2 for one in some) for some in groups.values())


def mean_of_changes(changes: Sequence[Change]) -> Change | None:
    """The same of scores. Cells are asked the same questions, so their errors are one and do not average out."""
    if not changes:
        return None
    count = len(changes)
    ratio = math.fsum(one.log_ratio for one in changes) / count
    errors = [one.standard_error for one in changes if one.standard_error is not None]
    if len(errors) < count:
        return Change(ratio)
    return Change(ratio, math.fsum(errors) / count, min(one.df for one in changes))


def _variance(of: Measured, spreads: Spreads) -> float:
    return standard_error(spreads, runs=of.runs, loads=of.loads) ** 2


def _df(of_a: float, of_b: float, noise: Noise) -> float:
    """Those of the loads, which are the fewer ones; of two estimates by Welch and Satterthwaite."""
    if noise.is_shared or not of_a + of_b:
        return float(noise.a.loads.df)
    return (of_a + of_b) ** 2 / (of_a**2 / noise.a.loads.df + of_b**2 / noise.b.loads.df)


# -- scores ----------------------------------------------------------------------------------------------------------


def change_of_scores(a: Mapping[str, float], b: Mapping[str, float]) -> Change | None:
    """How a mean over questions changed, by the questions that both sides were asked; the values are those of each.

    The questions are the sample: what one load says of them is what the next one says, so loads are no part of the
    error. Two imaginary questions, one won by each side, stand for those that were not asked (Agresti and Min, 2005):
    ten equal answers do not prove that all would be. None where a mean is not above zero, or of a single question.
    """
    asked = sorted(a.keys() & b.keys())
    count = len(asked)
    if count < 2:
        return None
    mean_a, mean_b = (math.fsum(side[name] for name in asked) / count for side in (a, b))
    if mean_a <= 0 or mean_b <= 0:
        return None
    scale = max(max(abs(side[name]) for name in asked) for side in (a, b))
    differences = [b[name] / mean_b - a[name] / mean_a for name in asked]
    squares = math.fsum(one**2 for one in differences) + (scale / mean_a) ** 2 / 2 + (scale / mean_b) ** 2 / 2
    return Change(math.log(mean_b / mean_a), math.sqrt(squares) / (count + 2), float(count - 1))


# -- verdicts --------------------------------------------------------------------------------------------------------


def judge(changes: Sequence[Change], limits: Limits, *, missing: int = 0) -> list[Judged]:
    """The word for each change, all at once. `missing` loads are needed where nothing is known of loads."""
    import numpy as np
    from scipy.special import stdtr, stdtrit

    if not changes:
        return []
    known = np.array([one.standard_error is not None for one in changes])
    ratios = np.array([one.log_ratio for one in changes])
    errors = np.maximum(np.array([one.standard_error or 0.0 for one in changes]), 1e-12)
    df = np.minimum(np.array([one.df for one in changes]), 1e6)
    half = stdtrit(df, 1 - ONE_SIDED) * errors
    low, high = ratios - half, ratios + half
    up, down = stdtr(df, (limits.high - ratios) / errors), stdtr(df, (ratios - limits.low) / errors)
    p = np.minimum(up, down) + np.where(
        up < down, stdtr(df, (limits.low - ratios) / errors), stdtr(df, (ratios - limits.high) / errors)
    )
    told = _rejected(p, known)
    more = _more_loads(changes, limits, ratios, errors, df)
    found = []
    for number in range(len(changes)):
        if not known[number]:
            found.append(Judged(math.exp(ratios[number]), None, None, None, Verdict.CANNOT_TELL, missing or None, True))
            continue
        beyond = _beyond(float(low[number]), float(high[number]), limits, is_told=bool(told[number]))
        found.append(
            Judged(
                math.exp(ratios[number]), math.exp(low[number]), math.exp(high[number]), min(1.0, float(p[number])),
                beyond, int(more[number]) or None if beyond is Verdict.CANNOT_TELL else None,
                may_be_slower=_may_be_slower(float(low[number]), float(high[number]), limits),
            )
        )  # fmt: skip
    return found


def _rejected(p: Any, known: Any) -> Any:
    """Which are told apart, by Benjamini and Hochberg."""
    import numpy as np

    told = np.zeros(len(p), bool)
    (places,) = np.nonzero(known)
    if not len(places):
        return told
    ordered = places[np.argsort(p[places], kind="stable")]
    under = np.nonzero(p[ordered] <= FALSE_SHARE * np.arange(1, len(ordered) + 1) / len(ordered))[0]
    if len(under):
        told[ordered[: under[-1] + 1]] = True
    return told


def _beyond(low: float, high: float, limits: Limits, *, is_told: bool) -> Verdict:
    if is_told and low > limits.high:
        return Verdict.FASTER if limits.better > 0 else Verdict.SLOWER
    if is_told and high < limits.low:
        return Verdict.SLOWER if limits.better > 0 else Verdict.FASTER
    return Verdict.SAME if limits.low <= low and high <= limits.high else Verdict.CANNOT_TELL


def _may_be_slower(low: float, high: float, limits: Limits) -> bool:
    return low < limits.low if limits.better > 0 else high > limits.high


def _more_loads(changes: Sequence[Change], limits: Limits, ratios: Any, errors: Any, df: Any) -> Any:
    """How many further loads of each side would make the interval end before the nearer threshold; 0: too many."""
    import numpy as np
    from scipy.special import stdtrit

    loads = np.array([one.loads for one in changes])
    gap = np.minimum(np.abs(ratios - limits.low), np.abs(ratios - limits.high))
    found = np.zeros(len(changes), int)
    open_ones = np.ones(len(changes), bool)
    for more in range(1, MOST_LOADS + 1):
        half = stdtrit(df + more, 1 - ONE_SIDED) * errors * np.sqrt(loads / (loads + more))
        enough = open_ones & (half < gap)
        found[enough] = more
        open_ones &= ~enough
        if not open_ones.any():
            break
    return found


def judge_one(one: Change | None, limits: Limits, *, missing: int = 0) -> Judged | None:
    """The same of what all cells together did."""
    return judge([one], limits, missing=missing)[0] if one is not None else None


# -- answers to the same questions -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answered:
    """A load of a task with questions: every value with its question."""

    values: tuple[tuple[str, float], ...]


def paired_by_question(a: Sequence[Answered], b: Sequence[Answered]) -> tuple[list[Load], list[Load]] | None:
    """The loads of a cell with what each question asks for taken out, so that questions are no noise.

    What is left of a value is its distance from the mean of that question over all loads of both sides. Those means
    follow the values, so each load's distances are widened by the share that they take. None where the sides have fewer
    than three questions in common.
    """
    by_load = [_by_question(load) for load in (*a, *b)]
    common = set(by_load[0]).intersection(*by_load[1:]) if by_load else set()
    if len(common) < 3 or not a or not b:
        return None
    names, count = sorted(common), len(by_load)
    middle = {name: math.fsum(load[name] for load in by_load) / count for name in names}
    level = math.fsum(middle.values()) / len(names)
    wider = math.sqrt(count / (count - 1))
    found = []
    for load in by_load:
        off = [load[name] - middle[name] for name in names]
        mean = math.fsum(off) / len(off)
        found.append(load_of([math.exp(level + mean + wider * (one - mean)) for one in off]))
    return found[: len(a)], found[len(a) :]


def _by_question(load: Answered) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for name, value in load.values:
        found.setdefault(name, []).append(math.log(value))
    return {name: math.fsum(logs) / len(logs) for name, logs in found.items()}
