"""How a map of ratios is drawn: colours that part at "no change", a frame around what was told apart, words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ollama_sweep.results.plots.shared import own_style  # noqa: F401 - loads matplotlib, before all that is of it

# isort: split
import matplotlib as mpl
import numpy as np
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.patches import Rectangle

from ollama_sweep.results.compare.rule import Verdict
from ollama_sweep.results.plots.shared import heatmap_size
from ollama_sweep.results.plots.shared.figures import draw_titles, new_figure, size_points, titles_height
from ollama_sweep.results.plots.shared.heatmap_cells import GREY, INK, LIGHT_GREY, TEXT_GREY, readable
from ollama_sweep.results.plots.shared.heatmap_drawing import AXIS_WORDS, LEFT, RIGHT, fitted_labels, tick_text
from ollama_sweep.results.plots.shared.text import LINE, clean, fit, width

if TYPE_CHECKING:
    from ollama_sweep.results.plots.ratio import RatioData, RatioMark

COLOURS = "RdBu"
"""Red and blue, which people with any kind of colour blindness tell apart; white is no change."""
BELOW, LEGEND_SIZE, TICK_SIZE, MOST_TEXTS, SMALLEST_TEXT = 74.0, 9.5, 8.0, 4000, 5.0
TOLD = frozenset(verdict for verdict in Verdict if verdict not in (Verdict.SAME, Verdict.CANNOT_TELL))
SIGNS = {Verdict.SLOWER: "▼", Verdict.FASTER: "▲", Verdict.CANNOT_TELL: "?", Verdict.SAME: "="}


def make_figure(data: RatioData) -> Any:
    """The whole picture, to be written with 150 dots an inch: a large map is made smaller, and not its words."""
    wide, high = data.size_inches
    if heatmap_size.is_large((wide, high)):
        pixels = heatmap_size.bounded((wide, high))
        wide, high = pixels.wide / heatmap_size.BEST_DPI, pixels.high / heatmap_size.BEST_DPI
    figure = new_figure(wide, high)
    room = (wide - LEFT - RIGHT) * 72
    top, bottom = titles_height(data.facts, room) / 72, BELOW / 72
    draw(data, figure.add_axes((LEFT / wide, bottom / high, room / 72 / wide, (high - top - bottom) / high)))
    return figure


def draw(data: RatioData, axes: Any) -> None:
    """The cells, what is written in them, the axes, the scale and the legend."""
    size = size_points(axes)
    draw_titles(axes, data.title, data.facts, size[0])
    norm, colours = Normalize(-data.reach, data.reach), mpl.colormaps[COLOURS]
    _draw_cells(data, axes, norm, colours)
    _draw_marks(data, axes, norm, colours, size)
    _draw_axes(data, axes, size)
    _draw_scale(data, axes, norm, colours, size)
    _draw_legend(data, axes)


def _draw_cells(data: RatioData, axes: Any, norm: Normalize, colours: Any) -> None:
    shape = len(data.rows), len(data.columns)
    better, left_out = np.full(shape, np.nan), np.full(shape, np.nan)
    for at, mark in _placed(data):
        if mark.better is None:
            left_out[at] = 0 if mark.verdict is None else 1
        else:
            better[at] = mark.better
    lines = {"edgecolors": "white", "linewidth": 0.6 if max(shape) < 200 else 0.0}
    axes.pcolormesh(np.ma.masked_invalid(left_out), cmap=ListedColormap([LIGHT_GREY, GREY]), vmin=0, vmax=1, **lines)
    axes.pcolormesh(np.ma.masked_invalid(better), cmap=colours, norm=norm, **lines)
    axes.set(xlim=(0, max(1, shape[1])), ylim=(max(1, shape[0]), 0))
    for spine in axes.spines.values():
        spine.set_visible(False)


def _placed(data: RatioData) -> list[tuple[tuple[int, int], RatioMark]]:
    across = {value: number for number, value in enumerate(data.columns)}
    down = {value: number for number, value in enumerate(data.rows)}
    return [((down[y], across[x]), mark) for (x, y), mark in data.cells.items()]


def _draw_marks(data: RatioData, axes: Any, norm: Normalize, colours: Any, size: tuple[float, float]) -> None:
    """A frame around every cell that was told apart, and in each its change with the sign of its verdict."""
    wide, high = size[0] / max(1, len(data.columns)), size[1] / max(1, len(data.rows))
    is_written = len(data.cells) <= MOST_TEXTS and min(wide / 3.2, high / LINE) >= SMALLEST_TEXT
    for (row, column), mark in _placed(data):
        if mark.verdict in TOLD:
            thick = min(2.6, wide / 6, high / 6)
            dx, dy = thick / 2 / wide, thick / 2 / high
            axes.add_patch(Rectangle((column + dx, row + dy), 1 - 2 * dx, 1 - 2 * dy, fill=False, edgecolor="black",
                                     linewidth=thick, zorder=4))  # fmt: skip
        if is_written:
            colour = colours(norm(mark.better)) if mark.better is not None else (0.9, 0.9, 0.9, 1.0)
            fitted = fit(_wordings(mark), (wide * 0.9, high * 0.9), largest=13.0, smallest=SMALLEST_TEXT)
            axes.text(column + 0.5, row + 0.5, fitted.text, fontsize=fitted.size, color=readable(colour), ha="center",
                      va="center", fontweight="bold" if mark.verdict in TOLD else "normal", parse_math=False,
                      zorder=5)  # fmt: skip


def _wordings(mark: RatioMark) -> list[str]:
    if mark.verdict is None:
        return [mark.label]
    sign = SIGNS.get(mark.verdict)
    if sign is None:
        return [f"{mark.word}\u00a0{mark.label}" if mark.better is not None else mark.word, mark.word]
    return [f"{sign}\u00a0{mark.label}", mark.label, sign]


def _draw_axes(data: RatioData, axes: Any, size: tuple[float, float]) -> None:
    across, down = size[0] / max(1, len(data.columns)) * 0.92, size[1] / max(1, len(data.rows))
    for axis, name, values in ((axes.xaxis, data.x, data.columns), (axes.yaxis, data.y, data.rows)):
        labels = [tick_text(name, value) for value in values]
        widest = max((width(label, TICK_SIZE) for label in labels), default=0.0)
        is_across = axis is axes.xaxis
        step = max(1, math.ceil(min(widest, 90.0) / across if is_across else TICK_SIZE * LINE / down))
        shown = range(0, len(values), step)
        room = (across * step, 12.0 * LINE) if is_across else (46.0, down * step)
        texts = fitted_labels([labels[n] for n in shown], [values[n] for n in shown], room)
        axis.set_ticks([n + 0.5 for n in shown], [fitted.text for fitted in texts])
        for label, fitted in zip(axis.get_ticklabels(), texts, strict=True):
            label.set(fontsize=fitted.size, color=INK, parse_math=False)
    axes.tick_params(length=0, pad=4)
    axes.set_xlabel(clean(AXIS_WORDS.get(data.x, data.x)), fontsize=11, color=INK, parse_math=False)
    axes.set_ylabel(clean(AXIS_WORDS.get(data.y, data.y)), fontsize=11, color=INK, labelpad=6, parse_math=False)


def _draw_scale(data: RatioData, axes: Any, norm: Normalize, colours: Any, size: tuple[float, float]) -> None:
    """The colours in words: how much worse below, how much better above."""
    bar = axes.inset_axes((1 + 12 / size[0], 0, 12 / size[0], 1))
    reach = data.reach
    bar.imshow(np.linspace(reach, -reach, 256)[:, None], cmap=colours, norm=norm, aspect="auto",
               extent=(0, 1, -reach, reach))  # fmt: skip
    ticks = [0.0, *(sign * reach * part for part in (0.5, 0.95) for sign in (1, -1))]
    worse, better = data.words
    changes = [100 * (math.exp(tick * data.better) - 1) for tick in ticks]
    said = [f"{change:+.0f} %, {better if tick > 0 else worse}" if tick else "the same"
            for tick, change in zip(ticks, changes, strict=True)]  # fmt: skip
    bar.set_yticks(ticks, said)
    bar.yaxis.tick_right()
    bar.tick_params(labelsize=8.5, length=2)
    bar.set_xticks([])


def _draw_legend(data: RatioData, axes: Any) -> None:
    """How many cells each word is said of, and its sign."""
    signs = {data.words[0]: SIGNS[Verdict.SLOWER], data.words[1]: SIGNS[Verdict.FASTER],
             str(Verdict.SAME): SIGNS[Verdict.SAME], str(Verdict.CANNOT_TELL): SIGNS[Verdict.CANNOT_TELL]}  # fmt: skip
    at = 0.0
    counts = data.counts()
    if data.beyond:
        counts["changed by more than the colours go"] = data.beyond
    for word, count in counts.items():
        text = clean(f"{signs[word]} {word}: {count}" if word in signs else f"{word}: {count}")
        axes.annotate(text, (0, 0), (at, -58), xycoords="axes fraction", textcoords="offset points",
                      fontsize=LEGEND_SIZE, color=INK if word in signs else TEXT_GREY, va="center",
                      annotation_clip=False, parse_math=False)  # fmt: skip
        at += width(text, LEGEND_SIZE) + 24
