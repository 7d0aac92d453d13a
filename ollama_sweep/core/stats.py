"""What several runs of one cell say: medians, intervals, noise, outliers, and which cells are the best. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ollama_sweep.core.metrics import Metric, default_metric
from ollama_sweep.core.outcome import CellResult, Status
from ollama_sweep.core.units import format_rate

ORDER_STATISTIC_RUNS = 6
"""The fewest runs of which smallest and largest enclose the true median with 95 % (1 - 2 / 2**6 is 96.9 %)."""
CONFIDENCE = 0.95
PERCENTILE_METHOD = "linear interpolation between neighbours (numpy's default, type 7)"
OUTLIER_SCALES = 3.5
CONFIRMED_LOOKS = 2
"""What the column `looks` has from the last stage of a second look on."""
SMALLEST_SCALE = 0.001
MEDIAN_TO_SIGMA = 1.4826
"""What the median of absolute deviations is multiplied by for a standard deviation."""
_Z95 = 1.959963984540054

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Interval:
    """Where the true median lies. `coverage` is the true probability; None where it is just smallest and largest."""

    low: float
    high: float
    coverage: float | None = None


@dataclass(frozen=True)
class Spread:
    """What several numbers say; the percentiles by `PERCENTILE_METHOD`."""

    count: int
    mean: float
    median: float
    p95: float
    p99: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float | int]:
        """With the names people know: n, mean, median, p95, p99, min, max."""
        return {
            "n": self.count, "mean": self.mean, "median": self.median, "p95": self.p95, "p99": self.p99,
            "min": self.low, "max": self.high,
        }  # fmt: skip


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two middle ones. Raises ValueError for none or for NaN."""
    ordered = sorted(_checked(values))
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def median_interval(values: Sequence[float]) -> Interval:
    """The narrowest symmetric order-statistic interval of at least 95 %; below six runs smallest and largest."""
    ordered = sorted(_checked(values))
    count = len(ordered)
    if count < ORDER_STATISTIC_RUNS:
        return Interval(ordered[0], ordered[-1])
    rank = _rank(count)
    return Interval(ordered[rank - 1], ordered[-rank], _coverage(count, rank))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """(low, high) of `median_interval`."""
    found = median_interval(values)
    return found.low, found.high


def describe(values: Sequence[float], text: Callable[[float], str] = format_rate) -> str:
    """`331 (322–335, n = 3)`; from six runs on `331 (325–334 at 96.1 %, n = 9)`."""
    return f"{text(median(values))} ({in_words(median_interval(values), text)}, n = {len(values)})"


def in_words(found: Interval, text: Callable[[float], str] = format_rate) -> str:
    """`322–335`, and how sure it is where that is known: `325–334 at 96.1 %`."""
    sure = "" if found.coverage is None else f" at {100 * found.coverage:.1f}".removesuffix(".0") + " %"
    return f"{text(found.low)}–{text(found.high)}{sure}"


def noise(values: Sequence[float]) -> float:
    """Half the range relative to the median: 0.05 says that the runs lie within about ± 5 %."""
    return (max(values) - min(values)) / 2 / _positive_median(values)


def relative_width(values: Sequence[float]) -> float:
    """Width of the interval relative to the median, what `repeats: {until: 2%}` compares with; infinite for one run."""
    if len(values) < 2:
        return math.inf
    low, high = interval(values)
    return (high - low) / _positive_median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie, by linear interpolation between neighbours.

    That is numpy's default method (`linear`): position share · (n - 1) in the sorted values. Raises ValueError.
    """
    ordered = sorted(_checked(values))
    if not 0 <= share <= 1:
        raise ValueError("a share is 0 to 1")
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def wilson(share: float, count: float) -> tuple[float, float]:
    """(low, high): where the true share lies with 95 %, of a share seen in `count` independent trials (Wilson, 1927).

    Raises ValueError for no trials and for a share outside 0 to 1.
    """
    if count <= 0 or not 0 <= share <= 1:
        raise ValueError("needs trials, and a share of 0 to 1")
    spread = _Z95**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = _Z95 / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean. Raises ValueError for none."""
    if not values:
        raise ValueError("no values")
    return math.fsum(values) / len(values)


def mean_over_questions(by_question: Sequence[Sequence[float]]) -> float:
    """The mean in which a question counts once, with the mean of its values. Raises ValueError for no questions."""
    return mean([mean(values) for values in by_question])


def known_mean(values: Iterable[float | None]) -> float | None:
    """The mean of those that are known; None where none is."""
    known = [float(value) for value in values if value is not None]
    return mean(known) if known else None


def known_median(values: Iterable[float | None]) -> float | None:
    """The median of those that are known; None where none is."""
    known = [float(value) for value in values if value is not None]
    return median(known) if known else None


def half_width(values: Sequence[float]) -> float:
    """1.96 standard errors of the mean; 0 for a single value, of which nothing is known."""
    middle, count = mean(values), len(values)
    squares = math.fsum((value - middle) ** 2 for value in values)
    return _Z95 * math.sqrt(squares / max(count - 1, 1) / count)


def spread(values: Iterable[float]) -> Spread | None:
    """What the finite ones among the values say; None where there is none."""
    kept = [float(value) for value in values if math.isfinite(value)]
    if not kept:
        return None
    p95, p99 = percentile(kept, 0.95), percentile(kept, 0.99)
    return Spread(len(kept), mean(kept), median(kept), p95, p99, min(kept), max(kept))


def mean_interval(by_question: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """(low, high): where the true mean over questions lies with 95 %; the values are those of each question.

    A question counts once, with the mean of its values: asking it again says nothing of other questions. Wilson's
    interval where all values are 0 or 1, else mean ± 1.96 standard errors, inside 0 to 1 where all values are. None
    where nothing can be said: without questions, and for a single one whose value is neither 0 nor 1.
    """
    means = [mean(values) for values in by_question]
    if not means:
        return None
    middle = mean(means)
    if {value for values in by_question for value in values} <= {0.0, 1.0}:
        return wilson(middle, len(means))
    if len(means) < 2:
        return None
    half = half_width(means)
    is_share = all(0 <= value <= 1 for values in by_question for value in values)
    return (max(0.0, middle - half), min(1.0, middle + half)) if is_share else (middle - half, middle + half)


def outliers(runs_by_cell: Mapping[K, Sequence[float]]) -> dict[K, list[bool]]:
    """For every run of every cell whether it lies off, by a scale pooled over all cells (flag, never delete).

    Residuals are logarithms of run over its cell's median. Each cell gives one residual less than it has runs: the
    median run is off by nothing, which says nothing of the noise. A cell with one run cannot have an outlier.
    """
    residuals = {cell: _log_residuals(runs) for cell, runs in runs_by_cell.items() if runs}
    pooled = [size for found in residuals.values() for size in sorted(abs(value) for value in found)[1:]]
    scale = max(MEDIAN_TO_SIGMA * median(pooled), SMALLEST_SCALE) if pooled else math.inf
    return {cell: [abs(value) > OUTLIER_SCALES * scale for value in residuals.get(cell, [])] for cell in runs_by_cell}


def best_set(
    results: Sequence[CellResult], metric: str, higher_is_better: bool = True
) -> tuple[CellResult | None, tuple[CellResult, ...]]:
    """The best measured cell, and those that cannot be told from it: their intervals overlap its own.

    A cell's interval is that of `extent`. The one that was measured again as the best stands before those that were
    not, unless one of them is better beyond both intervals: the best of many is the best partly by luck. A cell with
    the result of another one is no rival of it.
    """
    measured = [result for result in _without_copies(results) if value_of(result, metric) is not None]
    if not measured:
        return None, ()
    sign = 1.0 if higher_is_better else -1.0
    measured.sort(key=lambda result: -sign * _known(result, metric))
    best = measured[0]
    confirmed = [result for result in measured if is_confirmed(result)] if metric == default_metric(measured) else []
    if confirmed and not is_beyond(best, confirmed[0], metric):
        best = confirmed[0]
    return best, tuple(one for one in measured if one is not best and not is_beyond(one, best, metric))


def is_confirmed(result: CellResult) -> bool:
    """It was measured again as the best of its sweep."""
    return result.metrics.get("looks", 0) >= CONFIRMED_LOOKS


def is_beyond(one: CellResult, other: CellResult, metric: str) -> bool:
    """Their intervals do not overlap."""
    (low, high), (other_low, other_high) = extent(one, metric), extent(other, metric)
    return low > other_high or high < other_low


def _without_copies(results: Sequence[CellResult]) -> Iterator[CellResult]:
    """Each result once: those of others only where the original is not there, and then the first."""
    seen = {result.key for result in results if not result.reused_from}
    for result in results:
        if not result.reused_from:
            yield result
        elif result.reused_from not in seen:
            seen.add(result.reused_from)
            yield result


def value_of(result: CellResult, metric: str) -> float | None:
    """The metric of a measured cell; None for every other cell, and where the number is missing or not finite."""
    value = result.metrics.get(metric) if result.status is Status.OK else None
    return value if value is not None and math.isfinite(value) else None


def extent(result: CellResult, metric: str) -> tuple[float, float]:
    """(low, high) of `interval_of`."""
    found = interval_of(result, metric)
    return found.low, found.high


def interval_of(result: CellResult, metric: str) -> Interval:
    """[metric_low, metric_high] of a measured cell, which hold the spreads of runs and loads, or of questions; where it
    has none its range [metric_min, metric_max], else its value twice. The coverage is known of the first only."""
    value = _known(result, metric)
    for lowest, highest in (("low", "high"), ("min", "max")):
        low, high = result.metrics.get(f"{metric}_{lowest}"), result.metrics.get(f"{metric}_{highest}")
        if low is not None and high is not None:
            return Interval(low, high, CONFIDENCE if lowest == "low" else None)
    return Interval(value, value)


def range_and_runs(result: CellResult, of: Metric, *, sure: bool = True) -> str:
    """`322–335, 3 runs`: what a measured cell's value rests on; what is not known is left out.

    Where loads are known it is the interval: `325–334 at 95 %, 9 runs in 3 loads`; without `sure` it does not say how
    sure that is.
    """
    found = interval_of(result, of.name)
    found = found if sure else replace(found, coverage=None)
    runs = int(result.metrics.get("runs", 0)) if of.is_per_run else 0
    ends = {end: of.text(end) for end in (found.low, found.high)}
    parts = [in_words(found, ends.__getitem__)] if ends[found.low] != ends[found.high] else []
    failed = int(result.metrics.get("failed_answers", 0))
    word = "answer" if "answers" in result.metrics else "run"
    counted = f"{runs} of {runs + failed} answered" if failed else f"{runs} {word}{'s' if runs > 1 else ''}"
    loads = int(result.metrics.get("loads", 1))
    counted += f" in {loads} loads" if loads > 1 else ""
    return ", ".join([*parts, counted] if runs else parts)


def _known(result: CellResult, metric: str) -> float:
    value = value_of(result, metric)
    if value is None:
        raise ValueError(f"the cell has no {metric}")
    return value


def _rank(count: int) -> int:
    """How far from either end the narrowest interval begins that still has the confidence."""
    rank = 1
    while _coverage(count, rank + 1) >= CONFIDENCE:
        rank += 1
    return rank


def _coverage(count: int, rank: int) -> float:
    """How surely the true median lies between the rank-th smallest and the rank-th largest of `count` runs."""
    outside: int = 2 * sum(math.comb(count, below) for below in range(rank))
    return 1 - outside / float(2**count)


def _log_residuals(runs: Sequence[float]) -> list[float]:
    middle = _positive_median(runs)
    if min(runs) <= 0:
        raise ValueError("outliers are told by logarithms, which need values above zero")
    return [math.log(run / middle) for run in runs]


def _positive_median(values: Sequence[float]) -> float:
    middle = median(values)
    if middle <= 0:
        raise ValueError(f"a relative figure needs a median above zero, got {middle}")
    return middle


def _checked(values: Sequence[float]) -> Sequence[float]:
    if not values:
        raise ValueError("no values")
    if not all(math.isfinite(value) for value in values):
        raise ValueError("values must be finite numbers")
    return values
