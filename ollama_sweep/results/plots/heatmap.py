"""The map of a sweep: num_ctx across, num_batch down, the metric in every cell, failures as results.

`collect` is pure and says everything the picture will say; `draw` only draws it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ollama_sweep.core.errors import SweepError
from ollama_sweep.core.outcome import CellResult
from ollama_sweep.results.grids import Grid, file_suffixes, make_grids
from ollama_sweep.results.plots import PlotOptions
from ollama_sweep.results.plots.shared import figures, heatmap_data
from ollama_sweep.results.plots.shared.figures import SUFFIXES
from ollama_sweep.results.plots.shared.heatmap_data import CellMark, HeatmapData, Kind, own_metric

USES = frozenset({"metric"})
__all__ = ["SUFFIXES", "USES", "CellMark", "HeatmapData", "Kind", "collect", "draw", "picture", "render", "save_all",
           "save_each"]  # fmt: skip


def collect(results: Sequence[CellResult], options: PlotOptions) -> list[HeatmapData]:
    """What the pictures show, one per combination of the dimensions other than num_ctx and num_batch.

    Without a metric in the options every picture has the one its task is about. Raises ConfigError for a metric that
    the results do not have.
    """
    return heatmap_data.collect(results, options)


def draw(data: HeatmapData, axes: Any) -> None:
    """Draw one map into matplotlib's axes; titles and legend stand around them."""
    from ollama_sweep.results.plots.shared import heatmap_drawing

    with figures.style():
        heatmap_drawing.draw(data, axes)


def render(data: HeatmapData, path: Path, dpi: float | None = None) -> None:
    """Write one picture, whole or not at all; png, svg or pdf by the suffix. Raises ConfigError, StorageError."""
    from ollama_sweep.results.plots.shared import heatmap_figure

    heatmap_figure.write(data, path, dpi)


def picture(data: HeatmapData, file_format: str = "png", dpi: float | None = None) -> bytes:
    """The bytes of one picture."""
    from ollama_sweep.results.plots.shared import heatmap_figure

    return figures.picture(*heatmap_figure.plan(data, file_format, dpi), told_dpi=heatmap_figure.told_dpi(data, dpi))


def save_all(
    results: Sequence[CellResult],
    options: PlotOptions,
    folder: Path,
    *,
    suffix: str = ".png",
    dpi: float | None = None,
) -> list[Path]:
    """Write all pictures of a sweep into a folder; their paths. Raises ConfigError, StorageError.

    `heatmap_highlighted` has the metric that the task is about, `heatmap_METRIC` any other one. What cannot be drawn
    is raised when all others are.
    """
    return figures.all_written(save_each(results, options, folder, suffix=suffix, dpi=dpi))


def save_each(
    results: Sequence[CellResult],
    options: PlotOptions,
    folder: Path,
    *,
    suffix: str = ".png",
    dpi: float | None = None,
) -> Iterator[Path | SweepError]:
    """The same one after the other: the path of each picture, or why there is none. Raises ConfigError."""
    pictures = collect(results, options)
    grids = make_grids(results) or [Grid((), "", (), (), {})]
    for data, grid, name in zip(pictures, grids, file_suffixes(grids), strict=True):
        what = "highlighted" if data.metric == own_metric(grid) else data.metric.name
        path = folder / f"heatmap_{what}{name}{suffix}"
        yield figures.tried(path, lambda data=data, path=path: render(data, path, dpi))  # type: ignore[misc]
