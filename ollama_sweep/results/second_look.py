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
from ollama_sweep.core.noise.spread import Spreads, standard_error
from ollama_sweep.core.outcome import CellResult, Flag
from ollama_sweep.core.stats import best_set, value_of
from ollama_sweep.results.grids import Grid, Place, by_work, make_grids

LEADING, DOUBTED = 0.4, 0.3
"""Of the loads of a second look so much for the leading group, and for what is doubted; the rest is the best one's."""
MOST_OF_THE_BEST = 5
MOST_OFF = 50
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
    parts = by_work(results)
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
    """The best cell of each task, and of each length of the prompt: measured again before it is called the best."""
    found, parts = [], by_work(results)
    for work, members in parts.items():
        about = metric(default_metric(members))
        winner, _ = best_set(members, about.name, about.better >= 0)
        if winner is not None and about.better:
            found.append(Doubt(winner, f"the best of {work}" if len(parts) > 1 else "the best"))
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
    """Cells that are off what their neighbours say, and by how much. The worst comes first, and then says nothing."""
    logs = {place: math.log(value) for place, cell in grid.cells.items() if (value := value_of(cell, about.name))}
    for _ in range(MOST_OFF):
        gaps = {place: gap for place in logs if (gap := _gap(grid, place, logs)) is not None}
        far = {place: gap for place, gap in gaps.items() if _is_off(gap, grid.cells[place], spreads)}
        if not far:
            return
        worst = max(far, key=lambda place: abs(far[place]))
        yield grid.cells[worst], math.expm1(far[worst])
        del logs[worst]


def _is_off(gap: float, cell: CellResult, spreads: Spreads | None) -> bool:
    """More than both a share of its own and what runs and loads explain."""
    return abs(math.expm1(gap)) > max(OFF, OFF_SIGMAS * _sigma(cell, spreads))


def _gap(grid: Grid, place: Place, logs: Mapping[Place, float]) -> float | None:
    """How far a cell lies off in both directions of the grid, the lesser of the two; None where they do not agree."""
    is_line = min(len(grid.columns), len(grid.rows)) == 1
    x, y = place
    across = _said([(other, y) for other in grid.columns], grid.columns.index(x), logs, is_line=is_line)
    down = _said([(x, other) for other in grid.rows], grid.rows.index(y), logs, is_line=is_line)
    gaps = [logs[place] - said for said in (across, down) if said is not None]
    if len(gaps) < (1 if is_line else 2) or len({gap > 0 for gap in gaps}) > 1:
        return None
    return min(gaps, key=abs)


def _said(line: Sequence[Place], at: int, logs: Mapping[Place, float], *, is_line: bool) -> float | None:
    """What the neighbours in one direction say: their mean, and at an edge what goes on straight from the next two.

    On a grid of one line an edge is not spoken of: it may be a bend.
    """
    before, after = (logs.get(line[n]) if 0 <= n < len(line) else None for n in (at - 1, at + 1))
    if before is not None and after is not None:
        return (before + after) / 2
    near, beyond = (before, at - 2) if after is None else (after, at + 2)
    if near is None or is_line:
        return None
    far = logs.get(line[beyond]) if 0 <= beyond < len(line) else None
    return near if far is None else 2 * near - far


def _sigma(cell: CellResult, spreads: Spreads | None) -> float:
    """Of the difference between a cell and the mean of two others."""
    if spreads is None:
        return 0.0
    runs, loads = int(cell.metrics.get("runs", 1)), int(cell.metrics.get("loads", 1))
    return standard_error(spreads, runs=max(runs, 1), loads=max(loads, 1)) * math.sqrt(1.5)
