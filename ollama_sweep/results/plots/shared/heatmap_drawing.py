"""How a heatmap is drawn: layout in inches, looks, texts that stay inside their cells. matplotlib's object API only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ollama_sweep.results.plots.shared import own_style  # noqa: F401 - loads matplotlib, before all that is of it

# isort: split
import matplotlib as mpl
import numpy as np
from matplotlib.colors import Colormap, Normalize
from matplotlib.patches import Polygon, Rectangle
from matplotlib.ticker import MaxNLocator

from ollama_sweep.core.cell import PROMPT_TOKENS, model_label
from ollama_sweep.core.metrics import Metric
from ollama_sweep.core.options import Scalar
from ollama_sweep.results.grids import Place, X, Y, in_word
from ollama_sweep.results.plots.shared import heatmap_size
from ollama_sweep.results.plots.shared.figures import (
    draw_notice,
    draw_titles,
    new_figure,
    shorten_all,
    size_points,
    titles_height,
)
from ollama_sweep.results.plots.shared.figures import style as style
from ollama_sweep.results.plots.shared.heatmap_cells import (
    BLUE,
    CROSS,
    GREY,
    HATCHES,
    INK,
    LIGHT_GREY,
    PALE_GREEN,
    PALE_RED,
    RED,
    STAR,
    TEXT_GREY,
    draw_cells,
)
from ollama_sweep.results.plots.shared.heatmap_data import HeatmapData
from ollama_sweep.results.plots.shared.heatmap_legend import Entry, Look, entries
from ollama_sweep.results.plots.shared.scale import Scale
from ollama_sweep.results.plots.shared.text import LINE, Fitted, clean, cut, fit, width

COLOURS = "viridis"
LEGEND_SIZE, NOTICE_SIZE, SMALLEST_NAME = 9.5, 22.0, 8.5
LEFT, RIGHT, HANDLE, GAP = 0.95, 1.3, 20.0, 20.0
LEGEND_LINE = 17.0
NARROWEST_ROW_LABEL, WIDEST_ROW_LABEL = 46.0, 180.0
AXIS_WORDS = {
    X: "num_ctx (context window in tokens)",
    Y: "num_batch (prompt tokens processed at once)",
    PROMPT_TOKENS: "prompt_tokens (length of the prompt)",
}


def sensible_dpi(data: HeatmapData) -> float:
    """150, less for pictures that would be too large to open."""
    wide, high = data.size_inches
    dpi = (heatmap_size.MOST_PIXELS / (wide * high)) ** 0.5
    return float(min(heatmap_size.BEST_DPI, heatmap_size.MOST_PIXELS_WIDE / max(wide, high), dpi))


def make_figure(data: HeatmapData) -> Any:
    """The whole picture, of exactly the size the rule says."""
    wide, high = data.size_inches
    figure = new_figure(wide, high)
    left = LEFT + (row_label_room(data) - NARROWEST_ROW_LABEL) / 72
    room = (wide - left - RIGHT) * 72
    top = titles_height(data.facts, room) / 72
    bottom = (46 + len(legend_lines(entries(data), room)) * LEGEND_LINE + 8) / 72
    draw(data, figure.add_axes((left / wide, bottom / high, room / 72 / wide, (high - top - bottom) / high)))
    return figure


def draw(data: HeatmapData, axes: Any) -> None:
    """Mesh and colour bar by seaborn, everything else by hand on top of it."""
    size = size_points(axes)
    draw_titles(axes, data.title, data.facts, size[0])
    if not data.cells:
        axes.set(xticks=[], yticks=[])
        draw_notice(axes, data.notice, NOTICE_SIZE)
        return
    norm = Normalize(data.scale.low, data.scale.high)
    colours = mpl.colormaps[COLOURS + ("_r" if data.metric.better < 0 else "")]
    _draw_mesh(data, axes, norm, colours, size)
    _draw_ticks(data, axes, size)
    draw_cells(data, axes, norm, colours, size)
    draw_legend(entries(data), axes, size)
    if data.notice:
        draw_notice(axes, data.notice, NOTICE_SIZE)


def _draw_mesh(data: HeatmapData, axes: Any, norm: Normalize, colours: Colormap, size: tuple[float, float]) -> None:
    import seaborn

    values = [[_value(data, (x, y)) for x in data.columns] for y in data.rows]
    matrix = np.array(values, dtype=float)
    several = len(np.unique(matrix[np.isfinite(matrix)])) > 1
    bar = axes.inset_axes((1 + 12 / size[0], 0, 12 / size[0], 1)) if several else None
    seaborn.heatmap(
        matrix,
        mask=np.isnan(matrix),
        ax=axes,
        cmap=colours,
        vmin=norm.vmin,
        vmax=norm.vmax,
        cbar=several,
        cbar_ax=bar,
        cbar_kws={"extend": extended(data.scale)},
        linewidths=0.6,
        linecolor="white",
        xticklabels=[tick_text(data.x, value) for value in data.columns],
        yticklabels=[tick_text(data.y, value) for value in data.rows],
    )
    if bar is not None:
        colour_bar_ticks(bar, data.metric, data.scale.low, data.scale.high)


def extended(scale: Scale) -> str:
    """Which ends of the colour bar have a point: values lie beyond."""
    both = bool(scale.below), bool(scale.above)
    return {(True, True): "both", (True, False): "min", (False, True): "max"}.get(both, "neither")


def colour_bar_ticks(bar: Any, metric: Metric, low: float, high: float) -> None:
    """What a colour bar from `low` to `high` says."""
    unit = f" ({metric.unit})" if metric.unit and not metric.is_bytes else ""
    bar.set_ylabel(clean(f"{metric.name}{unit}"), fontsize=9.5, color=INK)
    bar.tick_params(labelsize=8.5)
    ticks = MaxNLocator(8, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    bar.set_yticks([tick for tick in ticks if low <= tick <= high])
    bar.yaxis.set_major_formatter(lambda value, _: metric.text(value))


def _value(data: HeatmapData, place: Place) -> float:
    mark = data.cells.get(place)
    return float("nan") if mark is None or mark.value is None else mark.value


def _draw_ticks(data: HeatmapData, axes: Any, size: tuple[float, float]) -> None:
    best = {place for place, mark in data.cells.items() if mark.best}
    across = (size[0] / len(data.columns) * 0.92, 12.0 * LINE)
    down = (row_label_room(data), size[1] / len(data.rows))
    for axis, values, room, number in ((axes.xaxis, data.columns, across, 0), (axes.yaxis, data.rows, down, 1)):
        chosen = {place[number] for place in best if len(best) == 1}
        shown = fitted_labels([label.get_text() for label in axis.get_ticklabels()], values, room)
        axis.set_ticklabels([fitted.text for fitted in shown])
        for label, fitted, value in zip(axis.get_ticklabels(), shown, values, strict=True):
            label.set(fontsize=fitted.size, rotation=0, color=INK)
            label.set(fontweight="bold" if value in chosen else "normal", parse_math=False)
            label.set(
                verticalalignment="center" if number else "top", horizontalalignment="right" if number else "center"
            )
    axes.tick_params(length=0, pad=4)
    axes.set_xlabel(clean(AXIS_WORDS.get(data.x, data.x)), fontsize=11, color=INK, labelpad=5, parse_math=False)
    axes.set_ylabel(clean(AXIS_WORDS.get(data.y, data.y)), fontsize=11, color=INK, labelpad=6, parse_math=False)


def tick_text(name: str, value: Scalar) -> str:
    """How a value of a dimension stands at its axis."""
    return clean(model_label(str(value)) if name == "model" else in_word(value))


def fitted_labels(texts: Sequence[str], values: Sequence[Scalar], room: tuple[float, float]) -> list[Fitted]:
    """Numbers are never shortened as long as they can be read at all; names are, so that they still differ."""
    if any(isinstance(value, str) for value in values):
        texts = shorten_all(texts, SMALLEST_NAME, room[0] * 0.86)
    return [fit([text], room, largest=11.0, smallest=4.0, bold=True) for text in texts]


def row_label_room(data: HeatmapData) -> float:
    """How wide in points the labels of the rows may be: more where they are names."""
    names = [tick_text(data.y, value) for value in data.rows if isinstance(value, str)]
    widest = max((width(name, 11.0, bold=True) + 4 for name in names), default=0.0)
    return min(WIDEST_ROW_LABEL, max(NARROWEST_ROW_LABEL, widest))


def legend_lines(legend: Sequence[Entry], room: float) -> list[list[tuple[Entry, str, float]]]:
    """The entries in lines as wide as the room: (entry, its text, where it begins in points)."""
    lines: list[list[tuple[Entry, str, float]]] = []
    at = room
    for entry in legend:
        text = cut(clean(entry.text), LEGEND_SIZE, room - HANDLE - 6)
        needed = HANDLE + 6 + width(text, LEGEND_SIZE)
        if at + needed > room:
            lines.append([])
            at = 0.0
        lines[-1].append((entry, text, at))
        at += needed + GAP
    return lines


def draw_legend(
    legend: Sequence[Entry], axes: Any, size: tuple[float, float], handle: Callable[..., None] | None = None
) -> None:
    """The legend below the picture; `handle` draws the little picture of an entry."""
    lines = legend_lines(legend, size[0])
    if not lines:
        return
    high = len(lines) * LEGEND_LINE
    own = axes.inset_axes((0, -(46 + high) / size[1], 1, high / size[1]))
    own.set(xlim=(0, size[0]), ylim=(high, 0))
    own.set_axis_off()
    for number, line in enumerate(lines):
        middle = (number + 0.5) * LEGEND_LINE
        for entry, text, at in line:
            (handle or draw_handle)(own, entry, at, middle)
            own.text(at + HANDLE + 6, middle, text, fontsize=LEGEND_SIZE, color=INK, va="center", parse_math=False)


def draw_handle(own: Any, entry: Entry, at: float, middle: float) -> None:
    """The little picture of a look."""
    faces = {Look.FAILED: PALE_RED, Look.SKIPPED: LIGHT_GREY, Look.PENDING: GREY, Look.RUNNING: GREY,
             Look.PREDICTED: PALE_GREEN}  # fmt: skip
    edges = {Look.FAILED: RED, Look.RUNNING: BLUE, Look.BEST: "black", Look.TIED: "black", Look.NO_VALUE: GREY}
    lines = {Look.BEST: 2.4, Look.TIED: 1.5, Look.FAILED: 1.2, Look.RUNNING: 1.2, Look.NO_VALUE: 1.4}
    dashes = {Look.FAILED: (0, (3, 1.5)), Look.ABSENT: (0, (1, 2))}
    if entry.look is not Look.SYMBOL:
        own.add_patch(
            Rectangle(
                (at, middle - 5.5),
                HANDLE,
                11,
                facecolor=faces.get(entry.look, "white"),
                edgecolor=edges.get(entry.look, TEXT_GREY),
                linewidth=lines.get(entry.look, 0.6),
                linestyle=dashes.get(entry.look, "solid"),
                hatch=HATCHES.get(entry.look),
            )
        )
    if entry.look is Look.UNFILLED:
        right, top = at + HANDLE, middle - 5.5
        own.add_patch(Polygon([(right, top), (right - 6, top), (right, top + 6)], facecolor=TEXT_GREY, lw=0))
    sign = {Look.BEST: STAR, Look.FAILED: CROSS}.get(entry.look, entry.symbol)
    if sign:
        red = entry.look is Look.FAILED
        own.text(
            at + HANDLE / 2,
            middle,
            sign,
            fontsize=12 if entry.symbol else 8.5,
            ha="center",
            va="center",
            color=RED if red else INK,
        )
