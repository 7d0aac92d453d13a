"""A heatmap of any metric over any two dimensions: num_ctx by task shows where the quality breaks off.

All other dimensions give a picture for each of their combinations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ollama_sweep.core.cell import PROMPT_TOKENS
from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.metrics import default_metric, find_metric
from ollama_sweep.core.outcome import CellResult, Status
from ollama_sweep.core.stats import value_of
from ollama_sweep.results.grids import Grid, file_suffixes, make_grids
from ollama_sweep.results.plots import PlotOptions
from ollama_sweep.results.plots.shared import figures, heatmap_data
from ollama_sweep.results.plots.shared.heatmap_data import HeatmapData

USES = frozenset({"metric", "x", "y"})
X, Y = "num_ctx", "task"
ALWAYS = ("model", "task", "engine", "sweep", "num_ctx", "num_batch")
"""Names that can be an axis beside the dimensions that are swept."""


def collect(results: Sequence[CellResult], options: PlotOptions) -> list[HeatmapData]:
    """What the pictures show, one per combination of the dimensions other than the two.

    Tasks that have no such metric are left out, and those without a prompt's length where that is an axis.
    Raises ConfigError for an unknown dimension or metric.
    """
    x, y = _axes(results, options)
    return heatmap_data.collect(_drawn(results, options), options, x, y)


def draw(data: HeatmapData, axes: Any) -> None:
    """Draw one map into matplotlib's axes; titles and legend stand around them."""
    from ollama_sweep.results.plots.shared import heatmap_drawing

    with figures.style():
        heatmap_drawing.draw(data, axes)


def save_all(results: Sequence[CellResult], options: PlotOptions, folder: Path, *, suffix: str = ".png") -> list[Path]:
    """Write all pictures into a folder as grid_METRIC_X_Y; their paths. Raises ConfigError, StorageError."""
    from ollama_sweep.results.plots.shared import heatmap_figure

    x, y = _axes(results, options)
    grids = make_grids(_drawn(results, options), x, y) or [Grid((), "", (), (), {})]
    paths = []
    for data, name in zip(collect(results, options), _suffixes(grids), strict=True):
        path = folder / f"grid_{data.metric.name}_{x}_{y}{name}{suffix}"
        heatmap_figure.write(data, path)
        paths.append(path)
    return paths


def _suffixes(grids: Sequence[Grid]) -> list[str]:
    """What tells the files apart: the dimensions that differ, without those that have one value everywhere."""
    same = set(grids[0].combination).intersection(*(grid.combination for grid in grids))
    return file_suffixes(
        [replace(grid, combination=tuple(pair for pair in grid.combination if pair not in same)) for grid in grids]
    )


def _axes(results: Sequence[CellResult], options: PlotOptions) -> tuple[str, str]:
    x, y = options.x or X, options.y or Y
    if x == y:
        raise ConfigError(f"x and y are both {x}; give two dimensions", "--x")
    known = sorted({*ALWAYS, *(name for result in results for name in result.coordinates)})
    for option, name in (("--x", x), ("--y", y)):
        if results and name not in known:
            raise ConfigError(f"unknown dimension {name}. Known: {', '.join(known)}.{nearest(name, known)}", option)
    return x, y


def _drawn(results: Sequence[CellResult], options: PlotOptions) -> list[CellResult]:
    if PROMPT_TOKENS in _axes(results, options):
        results = [result for result in results if PROMPT_TOKENS in result.coordinates]
    return _with_metric(results, options)


def _with_metric(results: Sequence[CellResult], options: PlotOptions) -> list[CellResult]:
    """The results without the tasks that were measured and never gave this metric, as long as another one did."""
    name = options.metric if options.metric is not None else default_metric(results)
    if options.metric is not None:
        find_metric(name, results)
    measured = {result.task for result in results if result.status is Status.OK}
    having = {result.task for result in results if value_of(result, name) is not None}
    return [result for result in results if not having or result.task in having or result.task not in measured]
