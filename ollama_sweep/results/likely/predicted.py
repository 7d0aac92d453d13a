"""Cells of a map that nobody measured: what they are likely to be. Pure.

By the scout of the sweep where it has one, else assuming a smooth surface. Only for the rate of reading the prompt over
num_ctx and num_batch, and only what likely fits whole. They are drawn, and are never rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ollama_sweep.core.noise.spread import Spreads
from ollama_sweep.core.outcome import CellResult, Flag, Status
from ollama_sweep.core.summary import PROMPT_RATE
from ollama_sweep.core.surface import places as surface
from ollama_sweep.core.surface.goal import MOST_CELLS
from ollama_sweep.core.surface.memory import fitting
from ollama_sweep.core.surface.places import Found, Known, Noise
from ollama_sweep.core.surface.smooth import Smooth
from ollama_sweep.results.grids import Grid, Place
from ollama_sweep.results.likely.scouted import ScoutedMap
from ollama_sweep.results.second_look import position_of

FEWEST = 4
LIKELY = 0.5
MODEL_ERROR = 0.015
"""A surface is never quite as smooth as it is thought to be: without this an interval holds too seldom."""


@dataclass(frozen=True)
class Prediction:
    """A rate in tokens/s, and the interval that holds it 19 times in 20."""

    rate: float
    low: float
    high: float


def of_scout(grid: Grid, metric: str, scouted: ScoutedMap) -> Mapping[Place, Prediction]:
    """What each pending cell of a grid is likely to be by its scout; nothing where the factor is not steady."""
    if metric != PROMPT_RATE:
        return {}
    found = ((place, cell, scouted.expected.get(position_of(cell))) for place, cell in grid.cells.items())
    return {
        place: Prediction(one.rate, *one.interval)
        for place, cell, one in found
        if one is not None and cell.status is Status.PENDING
    }


def predicted(grid: Grid, metric: str, spreads: Spreads | None) -> Mapping[Place, Prediction]:
    """What each pending cell of a grid is likely to be; nothing where too little was measured."""
    if metric != PROMPT_RATE or len(grid.cells) > MOST_CELLS or not _has_sizes(grid):
        return {}
    if not any(cell.status is Status.PENDING for cell in grid.cells.values()):
        return {}
    at = list(grid.cells)
    where = [surface.Place(number, int(str(x)), int(str(y))) for number, (x, y) in enumerate(at)]
    known = [(place, found) for place, cell in zip(where, at, strict=True) if (found := _found(grid.cells[cell]))]
    whole = [pair for pair in known if pair[1].known is Known.FITS and pair[1].is_measured]
    if len(whole) < FEWEST:
        return {}
    means, deviations = Smooth(where, whole, Noise.of(spreads)).said()
    chance = fitting(where, known).chance
    return {
        cell: _prediction(float(means[number]), float(deviations[number]))
        for number, cell in enumerate(at)
        if grid.cells[cell].status is Status.PENDING and chance[number] >= LIKELY
    }


def _has_sizes(grid: Grid) -> bool:
    """Both axes are numbers above zero."""
    axes = (grid.columns, grid.rows)
    return bool(grid.cells) and all(isinstance(value, int) and value > 0 for axis in axes for value in axis)


def _found(cell: CellResult) -> Found | None:
    if cell.status is Status.OOM:
        return Found(Known.FAILED)
    if cell.status is not Status.OK:
        return None
    known = Known.SPILLED if Flag.SPILLED in cell.flags else Known.FITS
    size, numbers = cell.metrics.get("size_bytes"), cell.metrics
    return Found(known, numbers.get(PROMPT_RATE), int(numbers.get("runs", 1)), int(numbers.get("loads", 1)),
                 None if size is None else int(size))  # fmt: skip


def _prediction(mean: float, deviation: float) -> Prediction:
    half = 1.96 * math.hypot(deviation, MODEL_ERROR)
    return Prediction(math.exp(mean), math.exp(mean - half), math.exp(mean + half))
