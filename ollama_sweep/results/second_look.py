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
from ollama_sweep.core.noise import neighbours
from ollama_sweep.core.noise.spread import Spreads
from ollama_sweep.core.outcome import CellResult, Flag
from ollama_sweep.core.stats import best_set, is_beyond, value_of
from ollama_sweep.results.grids import Grid, by_work, make_grids

LEADING, DOUBTED = 0.4, 0.3
"""Of the loads of a second look so much for the leading group, and for what is doubted; the rest is the best one's."""
MOST_OF_THE_BEST = 5
AMONG_THE_BEST = "among the best"
_SPOILED = (Flag.DRIFTED, Flag.THROTTLED, Flag.BUSY, Flag.SHARED_GPU)


@dataclass(frozen=True)
class Doubt:
    """A cell that is to be measured again, and why in words."""

    cell: CellResult
    reason: str


def doubts(
    results: Sequence[CellResult],
    spreads: Mapping[str, Spreads],
    loads: int,
    off_neighbours: Mapping[int, float] | None = None,
) -> list[Doubt]:
    """The cells that get a load each, for a second look of so many loads; without room for more than the best: none.

    Where `results` are not all of the sweep, `off_neighbours` says by position which are off, and by what share.
    """
    parts = by_work(results)
    found: list[Doubt] = []
    for members in parts.values():
        about = metric(default_metric(members))
        share = loads // len(parts)
        leading = list(_leading(members, about))[: int(share * LEADING)] if share > 1 else []
        known = {id(doubt.cell) for doubt in leading}
        doubted = [
            one
            for one in _doubted(members, about, spreads.get(about.name), off_neighbours)
            if id(one.cell) not in known
        ]
        found += [*leading, *doubted[: int(share * DOUBTED)]]
    return found


def best_ones(
    results: Sequence[CellResult], of_all_loads: Mapping[int, Mapping[str, float]] | None = None
) -> list[Doubt]:
    """The best cell of each task, and of each length of the prompt: measured again before it is called the best.

    `of_all_loads` has, by position and metric, what the cells of the leading group come to with the loads before they
    were chosen. Those are no part of a value, but all of the group were chosen alike, so they help to tell which leads.
    """
    found, parts = [], by_work(results)
    for work, members in parts.items():
        about = metric(default_metric(members))
        winner, _ = best_set(members, about.name, about.better >= 0)
        if winner is not None and about.better:
            winner = _leader(winner, members, about, of_all_loads or {})
            found.append(Doubt(winner, f"the best of {work}" if len(parts) > 1 else "the best"))
    return found


def position_of(cell: CellResult) -> int:
    """Its place in the plan."""
    return int(cell.row.get("position") or 0)


def _leader(
    winner: CellResult, results: Sequence[CellResult], about: Metric, of_all_loads: Mapping[int, Mapping[str, float]]
) -> CellResult:
    """The best of the leading group by all loads, unless the winner is another cell and beyond both intervals.

    A cell that was not looked at again still has its luck.
    """

    def known(cell: CellResult) -> float | None:
        return of_all_loads.get(position_of(cell), {}).get(about.name)

    group = [cell for cell in results if known(cell) is not None]
    leader = max(group, key=lambda cell: about.better * (known(cell) or 0.0), default=winner)
    return winner if known(winner) is None and is_beyond(winner, leader, about.name) else leader


def _leading(results: Sequence[CellResult], about: Metric) -> Iterator[Doubt]:
    if not about.better:
        return
    winner, tied = best_set(results, about.name, about.better > 0)
    for cell in (winner, *tied) if winner is not None and tied else ():
        yield Doubt(cell, AMONG_THE_BEST)


def _doubted(
    results: Sequence[CellResult],
    about: Metric,
    spreads: Spreads | None,
    off_neighbours: Mapping[int, float] | None,
) -> Iterator[Doubt]:
    """Those that are off, then disturbed ones, then noisy ones; each in the order of the plan."""
    measured = [result for result in results if (value_of(result, about.name) or 0) > 0]
    if off_neighbours is None:
        off = {id(cell): share for grid in make_grids(measured) for cell, share in _off(grid, about, spreads)}
    else:
        off = {id(cell): off_neighbours[at] for cell in measured if (at := position_of(cell)) in off_neighbours}
    seen = set()
    reasons: tuple[Callable[[CellResult], str], ...] = (
        lambda cell: f"{off[id(cell)]:+.0%} off its neighbours" if id(cell) in off else "",
        lambda cell: " and ".join(str(flag) for flag in _SPOILED if flag in cell.flags),
        lambda cell: str(Flag.NOISY) if Flag.NOISY in cell.flags else "",
    )
    for reason in reasons:
        for cell in measured:
            if (words := reason(cell)) and id(cell) not in seen:
                seen.add(id(cell))
                yield Doubt(cell, words)


def _off(grid: Grid, about: Metric, spreads: Spreads | None) -> Iterator[tuple[CellResult, float]]:
    """Cells that are off what their neighbours say, and by how much."""
    import numpy as np

    shape = len(grid.columns), len(grid.rows)
    logs, runs, loads = np.full(shape, np.nan), np.ones(shape), np.ones(shape)
    across, down = ({value: n for n, value in enumerate(values)} for values in (grid.columns, grid.rows))
    for (x, y), cell in grid.cells.items():
        at = across[x], down[y]
        logs[at] = math.log(value_of(cell, about.name) or math.nan)
        runs[at], loads[at] = cell.metrics.get("runs", 1), cell.metrics.get("loads", 1)
    for x_at, y_at, share in neighbours.off(logs, neighbours.sigma(spreads, runs, loads)):
        yield grid.cells[grid.columns[x_at], grid.rows[y_at]], share
