"""Which cells nobody should believe as they are, so that they are measured once more: a few, the most important first.

First the leading group gets a load each, and what is disturbed, noisy or off; then the one that leads now gets several.
A value is that of the loads made after its cell was chosen: the best of many is the best partly by luck, and what is
measured once more has no such luck. Pure; docs/measurement.md has the simulation behind the shares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ollama_sweep.core.metrics import Metric, default_metric, metric
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import CellResult, Flag
from ollama_sweep.core.spread import Spreads, standard_error
from ollama_sweep.core.stats import best_set, value_of
from ollama_sweep.results.best import by_task
from ollama_sweep.results.grids import Grid, make_grids

LEADING, DOUBTED = 0.4, 0.3
"""Of the loads of a second look so much for the leading group, and for what is doubted; the rest is the best one's."""
MOST_OF_THE_BEST = 5
OFF = 0.10
OFF_SIGMAS = 3.0
_DISTURBED = (Flag.DRIFTED, Flag.THROTTLED, Flag.BUSY, Flag.SHARED_GPU)


@dataclass(frozen=True)
class Doubt:
    """A cell that is to be measured again, and why in words."""

    cell: CellResult
    reason: str


def doubts(results: Sequence[CellResult], spreads: Mapping[str, Spreads], loads: int) -> list[Doubt]:
    """The cells that get a load each, for a second look of so many loads; without room for more than the best: none."""
    parts = by_task(results)
    found: list[Doubt] = []
    for members in parts.values():
        about = metric(default_metric(members))
        share = loads // len(parts)
        leading = list(_leading(members, about))[: int(share * LEADING)] if share > 1 else []
        known = {id(doubt.cell) for doubt in leading}
        doubted = [one for one in _doubted(members, about, spreads.get(about.name)) if id(one.cell) not in known]
        found += [*leading, *doubted[: int(share * DOUBTED)]]
    return found


def best_ones(results: Sequence[CellResult]) -> list[Doubt]:
    """The best cell of each task: it is measured again before it is called the best."""
    found = []
    for task, members in by_task(results).items():
        about = metric(default_metric(members))
        winner, _ = best_set(members, about.name, about.better >= 0)
        if winner is not None and about.better:
            found.append(Doubt(winner, f"the best of {task}" if len(by_task(results)) > 1 else "the best"))
    return found


def _leading(results: Sequence[CellResult], about: Metric) -> Iterator[Doubt]:
    if not about.better:
        return
    winner, tied = best_set(results, about.name, about.better > 0)
    for cell in (winner, *tied) if winner is not None and tied else ():
        yield Doubt(cell, "among the best")


def _doubted(results: Sequence[CellResult], about: Metric, spreads: Spreads | None) -> Iterator[Doubt]:
    """Those that are off, then disturbed ones, then noisy ones; each in the order of the plan."""
    measured = [result for result in results if (value_of(result, about.name) or 0) > 0]
    off = {id(cell): share for grid in make_grids(measured) for cell, share in _off(grid, about, spreads)}
    seen = set()
    reasons: tuple[Callable[[CellResult], str], ...] = (
        lambda cell: f"{off[id(cell)]:+.0%} off its neighbours" if id(cell) in off else "",
        lambda cell: " and ".join(str(flag) for flag in _DISTURBED if flag in cell.flags),
        lambda cell: str(Flag.NOISY) if Flag.NOISY in cell.flags else "",
    )
    for reason in reasons:
        for cell in measured:
            if (words := reason(cell)) and id(cell) not in seen:
                seen.add(id(cell))
                yield Doubt(cell, words)


def _off(grid: Grid, about: Metric, spreads: Spreads | None) -> Iterator[tuple[CellResult, float]]:
    """Cells that are off what their neighbours say, in both directions of the grid alike, and by how much."""
    logs = {place: math.log(value) for place, cell in grid.cells.items() if (value := value_of(cell, about.name))}
    is_line = min(len(grid.columns), len(grid.rows)) == 1
    for (x, y), mine in logs.items():
        across = [logs.get((other, y)) for other in _beside(grid.columns, x)]
        down = [logs.get((x, other)) for other in _beside(grid.rows, y)]
        said = [found for both in (across, down) if (found := _between(both, is_line=is_line)) is not None]
        gaps = [mine - one for one in said]
        if len(gaps) < (1 if is_line else 2) or len({gap > 0 for gap in gaps}) > 1:
            continue
        gap = min(gaps, key=abs)
        cell = grid.cells[x, y]
        if abs(math.expm1(gap)) > max(OFF, OFF_SIGMAS * _sigma(cell, spreads)):
            yield cell, math.expm1(gap)


def _beside(values: Sequence[Scalar], value: Scalar) -> list[Scalar]:
    at = values.index(value)
    return [*values[max(0, at - 1) : at], *values[at + 1 : at + 2]]


def _between(neighbours: Sequence[float | None], *, is_line: bool) -> float | None:
    """What two neighbours say, or the only one; on a line the only one says nothing: it may be a slope."""
    known = [value for value in neighbours if value is not None]
    return None if not known or (is_line and len(known) < 2) else math.fsum(known) / len(known)


def _sigma(cell: CellResult, spreads: Spreads | None) -> float:
    """Of the difference between a cell and the mean of two others."""
    if spreads is None:
        return 0.0
    runs, loads = int(cell.metrics.get("runs", 1)), int(cell.metrics.get("loads", 1))
    return standard_error(spreads, runs=max(runs, 1), loads=max(loads, 1)) * math.sqrt(1.5)
