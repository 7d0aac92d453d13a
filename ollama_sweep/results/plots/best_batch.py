"""The best num_batch of each num_ctx with its interval, and where memory ends and the model leaves the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ollama_sweep.core.cell import model_label
from ollama_sweep.core.metrics import Metric, find_metric
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import CellResult, Flag, Status
from ollama_sweep.core.stats import best_set, extent, value_of
from ollama_sweep.results.grids import Grid, X, Y, file_suffixes, flags_of, in_word, in_words, make_grids, progress
from ollama_sweep.results.plots import PlotOptions
from ollama_sweep.results.plots.shared import chart, figures
from ollama_sweep.results.plots.shared.figures import INK, PALETTE, TEXT_GREY
from ollama_sweep.results.plots.shared.heatmap_data import own_metric
from ollama_sweep.results.plots.shared.text import clean

USES = frozenset({"metric"})
NAME = "best_batch"
HIGH, SPLIT, GAP = 7.2, 0.5, 0.12
"""Inches of the axes; the share of the upper half, and of what is between the two."""
MOST_VALUES = 26
OUT_OF_MEMORY: dict[str, Any] = {"facecolor": "#f3bfbf", "edgecolor": "#d00000", "hatch": "xx", "linewidth": 0}
SPILLED: dict[str, Any] = {"facecolor": "#f6ddaa", "edgecolor": "#b87f00", "hatch": "//", "linewidth": 0}
"""How these parts look; without transparency, which an SVG gives stripes and ground together."""


@dataclass(frozen=True)
class Column:
    """A num_ctx: its best cell with the interval, what cannot be told from it, and from which num_batch on memory ends.

    `best`, `tied`, `spilled_from` and `out_from` are places in the list of num_batch, None where there is none.
    """

    best: int | None = None
    value: float | None = None
    low: float = 0.0
    high: float = 0.0
    tied: tuple[int, ...] = ()
    spilled_from: int | None = None
    out_from: int | None = None


@dataclass(frozen=True)
class BestBatchData:
    """Everything a picture says: a column for each num_ctx, over all values of num_batch."""

    title: str
    facts: tuple[str, ...]
    metric: Metric
    contexts: tuple[Scalar, ...]
    batches: tuple[Scalar, ...]
    columns: tuple[Column, ...]
    notice: str = ""


def collect(results: Sequence[CellResult], options: PlotOptions) -> list[BestBatchData]:
    """What the pictures show, one per combination of the dimensions other than num_ctx and num_batch.

    Raises ConfigError for a metric that the results do not have.
    """
    asked = find_metric(options.metric, results) if options.metric is not None else None
    return [_data(grid, asked or own_metric(grid), options) for grid in _grids(results)]


def _grids(results: Sequence[CellResult]) -> list[Grid]:
    return make_grids(results) or [Grid((), "", (), (), {})]


def _data(grid: Grid, of: Metric, options: PlotOptions) -> BestBatchData:
    columns = tuple(_column(grid, context, of) for context in grid.columns)
    model = f"{model_label(grid.model)}: " if grid.model else ""
    facts = (
        progress(grid.cells.values()).text(),
        f"sweep {options.sweep}" if options.sweep else "",
        in_words(pair for pair in grid.combination if pair != ("model", grid.model)),
        options.spreads[of.name].words if of.name in options.spreads else "",
        options.machine,
    )
    is_known = any(column.best is not None for column in columns)
    return BestBatchData(
        f"{model}best num_batch of each num_ctx, by {of.words}", tuple(filter(None, facts)), of, grid.columns,
        grid.rows, columns, "" if is_known else f"no cell has {of.words} yet",
    )  # fmt: skip


def _column(grid: Grid, context: Scalar, of: Metric) -> Column:
    cells = {at: grid.cells[context, batch] for at, batch in enumerate(grid.rows) if (context, batch) in grid.cells}
    places = {id(cell): at for at, cell in cells.items()}
    best, tied = best_set(list(cells.values()), of.name, of.better >= 0)
    spilled = [at for at, cell in cells.items() if Flag.SPILLED in flags_of(cell)]
    out = [at for at, cell in cells.items() if _lacks_memory(cell)]
    edges = Column(spilled_from=min(spilled, default=None), out_from=min(out, default=None))
    if best is None:
        return edges
    low, high = extent(best, of.name)
    ties = tuple(sorted(places[id(cell)] for cell in tied))
    return replace(edges, best=places[id(best)], value=value_of(best, of.name), low=low, high=high, tied=ties)


def _lacks_memory(cell: CellResult) -> bool:
    """It ran out of memory, or was left out because something no larger did."""
    return cell.status is Status.OOM or (cell.status is Status.SKIPPED and cell.reason == "memory")


# -- drawing ---------------------------------------------------------------------------------------------------------


def draw(data: BestBatchData, axes: Any) -> None:
    """Draw both halves into matplotlib's axes."""
    with figures.style():
        _draw(data, axes)


def save_all(results: Sequence[CellResult], options: PlotOptions, folder: Path, *, suffix: str = ".png") -> list[Path]:
    """Write the pictures into a folder as best_batch…; their paths. Raises ConfigError, StorageError."""
    found, what = collect(results, options), f"_{options.metric}" if options.metric is not None else ""
    names = [f"{NAME}{what}{name}{suffix}" for name in file_suffixes(_grids(results))]
    return figures.write_each(zip([folder / name for name in names], found, strict=True), make_figure)


def make_figure(data: BestBatchData) -> Any:
    """The whole picture."""
    return chart.make_figure(HIGH, data.facts, [""], partial(_draw, data))


def _draw(data: BestBatchData, axes: Any) -> None:
    figures.draw_titles(axes, data.title, data.facts, figures.size_points(axes)[0])
    axes.set_axis_off()
    if data.notice:
        figures.draw_notice(axes, data.notice)
        return
    upper = axes.inset_axes((0, 1 - SPLIT, 1, SPLIT))
    lower = axes.inset_axes((0, 0, 1, 1 - SPLIT - GAP))
    _draw_values(data, upper)
    _draw_batches(data, lower)
    for half in (upper, lower):
        half.set_xlim(-0.6, len(data.contexts) - 0.4)
        chart.category_ticks(half.xaxis, [in_word(value) for value in data.contexts], 60)
    _draw_legend(data, lower)


def _draw_values(data: BestBatchData, axes: Any) -> None:
    figures.plain_axes(axes, "y")
    known = [(at, column) for at, column in enumerate(data.columns) if column.value is not None]
    across, values = [place for place, _ in known], [column.value or 0.0 for _, column in known]
    below = [max(0.0, value - column.low) for value, (_, column) in zip(values, known, strict=True)]
    above = [max(0.0, column.high - value) for value, (_, column) in zip(values, known, strict=True)]
    axes.errorbar(across, values, [below, above], color=PALETTE[0], linewidth=1.0, elinewidth=2.0, capsize=4,
                  capthick=2.0, marker="o", markersize=6, zorder=4)  # fmt: skip
    lowest, highest = min(column.low for _, column in known), max(column.high for _, column in known)
    chart.name_axes(axes, "", chart.values_up(axes, data.metric, lowest, highest, room=0.16))
    if len(data.columns) <= MOST_VALUES:
        for at, column in known:
            axes.annotate(
                clean(data.metric.text(column.value or 0.0)), (at, column.high), (0, 5), textcoords="offset points",
                ha="center", va="bottom", fontsize=9, color=INK, parse_math=False,
            )  # fmt: skip


def _draw_batches(data: BestBatchData, axes: Any) -> None:
    figures.plain_axes(axes, "x")
    top = len(data.batches) - 0.5
    chart.category_ticks(axes.yaxis, [in_word(value) for value in data.batches])
    chart.name_axes(axes, X, Y)
    axes.set_ylim(-0.5, top)
    for at, column in enumerate(data.columns):
        edge = top if column.out_from is None else column.out_from - 0.5
        if column.spilled_from is not None and column.spilled_from - 0.5 < edge:
            axes.bar(at, edge - column.spilled_from + 0.5, 1.0, column.spilled_from - 0.5, zorder=1, **SPILLED)
        if column.out_from is not None:
            axes.bar(at, top - edge, 1.0, edge, zorder=1, **OUT_OF_MEMORY)
        if column.tied and column.best is not None:
            ends = [*column.tied, column.best]
            axes.plot([at, at], [min(ends), max(ends)], color=TEXT_GREY, linewidth=1.4, zorder=2)
            axes.plot([at] * len(column.tied), column.tied, linestyle="", marker="o", color=TEXT_GREY, markersize=4.5,
                      zorder=3)  # fmt: skip
    best = [(at, column.best) for at, column in enumerate(data.columns) if column.best is not None]
    axes.plot([at for at, _ in best], [place for _, place in best], linestyle="", marker="*", markersize=13,
              color=PALETTE[0], markeredgecolor="black", markeredgewidth=0.6, zorder=5)  # fmt: skip


def _draw_legend(data: BestBatchData, axes: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    star = Line2D([], [], linestyle="", marker="*", markersize=12, color=PALETTE[0], markeredgecolor="black")
    entries: list[tuple[Any, str]] = [(star, "best, above with its interval")]
    if any(column.tied for column in data.columns):
        entries.append((Line2D([], [], color=TEXT_GREY, marker="o", markersize=4.5), "cannot be told from it"))
    if any(column.spilled_from is not None for column in data.columns):
        entries.append((Patch(**SPILLED), "part of the model sits on the CPU"))
    if any(column.out_from is not None for column in data.columns):
        entries.append((Patch(**OUT_OF_MEMORY), "out of memory"))
    high = figures.size_points(axes)[1]
    figures.draw_legend(
        axes, [handle for handle, _ in entries], [text for _, text in entries], loc="upper left",
        bbox_to_anchor=(0, -42 / high), ncols=4, fontsize=9.5, handlelength=2.0, columnspacing=1.8,
    )  # fmt: skip
