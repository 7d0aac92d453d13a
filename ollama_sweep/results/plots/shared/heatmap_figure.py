"""Which way a heatmap is drawn: each cell by itself, or all of them as one image where they are very many."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ollama_sweep.results.plots.shared import figures, heatmap_size
from ollama_sweep.results.plots.shared.heatmap_data import HeatmapData

if TYPE_CHECKING:
    from ollama_sweep.results.plots.shared.field import Field

LEAST_DPI = 0.0254
"""A png counts whole pixels to the metre."""


def write(data: HeatmapData | Field, path: Path, dpi: float | None = None, *, labels: bool | None = None) -> None:
    """Write one picture, whole or not at all; png, svg or pdf by the suffix. Raises ConfigError, StorageError.

    `labels`: a text in each cell of a large grid; None: where it can be read.
    """
    make, _, dots = plan(data, path.suffix.lower().removeprefix("."), dpi, labels=labels)
    figures.write(path, make, dots, told_dpi=told_dpi(data, dpi))


def plan(
    data: HeatmapData | Field, file_format: str, dpi: float | None, *, labels: bool | None = None
) -> tuple[Callable[[], Any], str, float]:
    """What makes the figure, in which form, with how many dots an inch."""
    if isinstance(data, HeatmapData) and not heatmap_size.is_large(data.size_inches):
        from ollama_sweep.results.plots.shared import heatmap_drawing

        return lambda: heatmap_drawing.make_figure(data), file_format, dpi or heatmap_drawing.sensible_dpi(data)
    from ollama_sweep.results.plots.shared import field, field_drawing

    made = field.of_marks(data) if isinstance(data, HeatmapData) else data
    inches, dots = made.about.size_inches, field_drawing.TEXT_DPI
    if file_format == "png":
        pixels = heatmap_size.bounded(inches)
        wide, high = (pixels.wide, pixels.high) if dpi is None else (round(side * dpi) for side in inches)
        inches = wide / dots, high / dots
    return lambda: field_drawing.make_figure(made, inches, labels=labels), file_format, dots


def told_dpi(data: HeatmapData | Field, dpi: float | None) -> tuple[float, float] | None:
    """What a large picture says of its resolution, so that its size in inches is that of the rule."""
    inches = (data if isinstance(data, HeatmapData) else data.about).size_inches
    if isinstance(data, HeatmapData) and not heatmap_size.is_large(inches):
        return None
    across, down = (dpi, dpi) if dpi else heatmap_size.bounded(inches).dpi
    return max(across, LEAST_DPI), max(down, LEAST_DPI)
