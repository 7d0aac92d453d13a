"""How the binned heatmap is drawn: panels side by side, a colour bar for all of them, texts that fit their bins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ollama_sweep.results.plots.shared import own_style  # noqa: F401 - loads matplotlib, before all that is of it

# isort: split
import matplotlib as mpl
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator

from ollama_sweep.results.answers import Region
from ollama_sweep.results.plots.shared import figures
from ollama_sweep.results.plots.shared.figures import GRID_GREY, INK, TEXT_GREY
from ollama_sweep.results.plots.shared.heatmap_cells import readable
from ollama_sweep.results.plots.shared.text import LINE, clean, width

if TYPE_CHECKING:
    from ollama_sweep.results.plots.token_heatmap import Panel, TokenHeatmap

COLOURS = "viridis_r"
ACROSS, LOG_FROM = 3, 20.0
NAME_SIZE, TICK_SIZE, LARGEST, SMALLEST = 11.0, 9.0, 12.0, 5.0
_LEFT, _BOTTOM, _GAP, _TOP_OF_PANEL, _BAR = 60.0, 48.0, 58.0, 24.0, 92.0


def make_figure(data: TokenHeatmap) -> Any:
    """The whole picture: panels of at least 4 by 4 inches, three in a row."""
    across, down = _layout(len(data.panels))
    wide = max(11.0, across * 4.6 + 2.2)
    room = wide * 72 - _LEFT - _BAR
    top = figures.titles_height(data.facts, room + _BAR - 16)
    high = (top + _BOTTOM + down * 4.2 * 72) / 72 if down > 1 else 7.0
    figure = figures.new_figure(wide, high)
    box = (_LEFT / wide / 72, _BOTTOM / high / 72, room / wide / 72, 1 - (top + _BOTTOM) / high / 72)
    draw(data, figure.add_axes(box))
    return figure


def draw(data: TokenHeatmap, axes: Any) -> None:
    """All panels inside the axes, which themselves show nothing."""
    size = figures.size_points(axes)
    figures.draw_titles(axes, data.title, data.facts, size[0] + _BAR - 16)
    axes.set(xticks=[], yticks=[])
    if data.notice:
        figures.draw_notice(axes, data.notice)
        return
    axes.set_axis_off()
    norm = _norm(data)
    across, down = _layout(len(data.panels))
    wide = max(6.0, (size[0] - (across - 1) * _GAP) / across)
    high = max(6.0, (size[1] - (down - 1) * _GAP) / down)
    below_name = max(high - _TOP_OF_PANEL, 6.0)
    names = figures.shorten_all([panel.name for panel in data.panels], NAME_SIZE, wide - 70)
    for number, (panel, name) in enumerate(zip(data.panels, names, strict=True)):
        left, below = number % across * (wide + _GAP), (down - 1 - number // across) * (high + _GAP)
        own = axes.inset_axes((left / size[0], below / size[1], wide / size[0], below_name / size[1]))
        _draw_panel(data, panel, name, own, norm, (wide, below_name))
    low, upper = data.extent
    if upper > low:
        bar = axes.inset_axes((1 + 18 / size[0], 0, 13 / size[0], 1 - _TOP_OF_PANEL / size[1]))
        _draw_bar(data, bar, norm)


def _layout(panels: int) -> tuple[int, int]:
    across = min(ACROSS, max(1, panels))
    return across, max(1, -(-panels // across))


def _norm(data: TokenHeatmap) -> Normalize:
    low, high = data.extent
    if high <= low:
        return Normalize(low, low + 1)
    return LogNorm(low, high) if low > 0 and high > LOG_FROM * low else Normalize(low, high)


def _draw_panel(
    data: TokenHeatmap, panel: Panel, name: str, axes: Any, norm: Normalize, size: tuple[float, float]
) -> None:
    xs, ys = data.x_edges, data.y_edges
    axes.set(xlim=(0, len(xs) - 1), ylim=(0, len(ys) - 1))
    axes.set_facecolor("#fafafa")
    colours = mpl.colormaps[COLOURS]
    wide, high = size[0] / (len(xs) - 1), size[1] / (len(ys) - 1)
    texts = {region: data.text(region.median) for region in panel.regions}
    value_size = min((_fitting(text, wide, high) for text in texts.values()), default=SMALLEST)
    for region, text in texts.items():
        x, y = xs.index(region.prompt_tokens[0]), ys.index(region.output_tokens[0])
        colour = colours(norm(region.median))
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="white", linewidth=0.8, zorder=2))
        _write(axes, (x + 0.5, y + 0.5), text, region, readable(colour), value_size, (wide, high))
    for at in range(len(xs)):
        axes.axvline(at, color=GRID_GREY, linewidth=0.6, zorder=1)
    for at in range(len(ys)):
        axes.axhline(at, color=GRID_GREY, linewidth=0.6, zorder=1)
    _draw_edges(axes, xs, ys, size)
    axes.set_title(f"{name} ({panel.count})", fontsize=NAME_SIZE, color=INK, loc="left", pad=6, parse_math=False)


def _fitting(text: str, wide: float, high: float) -> float:
    return min(LARGEST, wide * 0.88 / width(text, 1.0), high * 0.8 / LINE)


def _write(
    axes: Any, at: tuple[float, float], text: str, region: Region, ink: str, size: float, box: tuple[float, float]
) -> None:
    """The median, and below it how many answers it is of, where both fit."""
    if size < SMALLEST:
        return
    count = f"n = {len(region.values)}"
    below = min(size * 0.8, box[0] * 0.88 / width(count, 1.0))
    has_count = below >= SMALLEST and (size + below) * LINE <= box[1] * 0.92
    shift = below * LINE / 2 / box[1] if has_count else 0.0
    style = {"color": ink, "ha": "center", "va": "center", "parse_math": False, "zorder": 4}
    axes.text(at[0], at[1] + shift, text, fontsize=size, **style)
    if has_count:
        axes.text(at[0], at[1] - size * LINE / 2 / box[1], count, fontsize=below, **style)


def _draw_edges(axes: Any, xs: Sequence[int], ys: Sequence[int], size: tuple[float, float]) -> None:
    """The edges of the bins as ticks; every second one where they would touch."""
    for axis, edges, room, is_x in ((axes.xaxis, xs, size[0], True), (axes.yaxis, ys, size[1], False)):
        texts = [f"{edge:,}" for edge in edges]
        needed = max(width(text, TICK_SIZE) + 8 for text in texts) if is_x else TICK_SIZE * LINE
        step = 1
        while room / (len(edges) - 1) * step < needed and step < len(edges):
            step += 1
        axis.set_ticks(range(0, len(edges), step), texts[::step], fontsize=TICK_SIZE, color=INK)
    axes.tick_params(length=3, color=TEXT_GREY)
    axes.set_xlabel("Prompt tokens", fontsize=10, color=INK, labelpad=3)
    axes.set_ylabel("Output tokens", fontsize=10, color=INK, labelpad=3)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_bar(data: TokenHeatmap, bar: Any, norm: Normalize) -> None:
    bar.figure.colorbar(ScalarMappable(norm, mpl.colormaps[COLOURS]), cax=bar)
    unit = f" ({data.unit})" if data.unit else ""
    bar.set_ylabel(clean(f"Median {data.measure}{unit}"), fontsize=10, color=INK, parse_math=False)
    bar.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    bar.tick_params(labelsize=8.5, color=TEXT_GREY)
    bar.minorticks_off()
    low, high = data.extent
    is_log = isinstance(norm, LogNorm)
    ticks = LogLocator(subs=(1.0, 2.0, 5.0)).tick_values(low, high) if is_log else figures.ticks_within(low, high)
    bar.set_yticks([tick for tick in ticks if low <= tick <= high])
