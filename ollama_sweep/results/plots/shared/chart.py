"""A figure with a title above its axes and a list below them: for pictures that are lines and points."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ollama_sweep.core.metrics import Metric
from ollama_sweep.results.plots.shared import figures
from ollama_sweep.results.plots.shared.figures import INK, TEXT_GREY
from ollama_sweep.results.plots.shared.text import clean, cut

WIDE, LEFT, RIGHT, BOTTOM = 12.0, 84.0, 24.0, 54.0
LINE_HIGH, LIST_SIZE, TICK_SIZE = 16.0, 9.5, 9.0
MOST_TICKS = 26
CLOSE = 0.6


def make_figure(
    high: float, facts: Sequence[str], below: Sequence[str], draw: Callable[[Any], None], *, right: float = RIGHT
) -> Any:
    """A picture of so many inches for its axes; `below` are the lines under them."""
    room = WIDE * 72 - LEFT - right
    top, foot = figures.titles_height(facts, room), BOTTOM + list_height(below)
    points = high * 72 + top + foot
    figure = figures.new_figure(WIDE, points / 72)
    draw(figure.add_axes((LEFT / WIDE / 72, foot / points, room / WIDE / 72, high * 72 / points)))
    return figure


def list_height(lines: Sequence[str]) -> float:
    """How many points the lines below the axes need."""
    return LINE_HIGH * len(lines) + (6 if lines else 0)


def draw_list(axes: Any, lines: Sequence[str], *, down: float = BOTTOM) -> None:
    """Lines of text below the axes, each cut to their width."""
    wide, _ = figures.size_points(axes)
    for number, line in enumerate(lines):
        axes.annotate(
            cut(clean(line), LIST_SIZE, wide + LEFT - 20), (0, 0), (20 - LEFT, -down - LINE_HIGH * (number + 0.5)),
            xycoords="axes fraction", textcoords="offset points", fontsize=LIST_SIZE, color=INK, va="center",
            annotation_clip=False, parse_math=False,
        )  # fmt: skip


def begin(axes: Any, title: str, facts: Sequence[str], notice: str, *, grid: str) -> bool:
    """What stands above, and the lines of the grid; False where a notice stands in place of all else."""
    figures.draw_titles(axes, title, facts, figures.size_points(axes)[0])
    figures.plain_axes(axes, grid)
    if notice:
        axes.set(xticks=[], yticks=[])
        figures.draw_notice(axes, notice)
    return not notice


def name_axes(axes: Any, across: str, up: str) -> None:
    """What is across and what is up."""
    axes.set_xlabel(clean(across), fontsize=11, color=INK, parse_math=False)
    axes.set_ylabel(clean(up), fontsize=11, color=INK, parse_math=False)


def category_ticks(axis: Any, labels: Sequence[str], room: float = 64.0) -> None:
    """Words at whole numbers; not each of them where they are many."""
    step = max(1, -(-len(labels) // MOST_TICKS))
    shown = range(0, len(labels), step)
    axis.set_ticks(list(shown), [cut(clean(labels[at]), TICK_SIZE, room) for at in shown])
    for label in axis.get_ticklabels():
        label.set(fontsize=TICK_SIZE, color=TEXT_GREY, parse_math=False)


def value_ticks(axis: Any, of: Metric) -> None:
    """Numbers at an axis as they are said of this metric."""
    axis.set_major_formatter(lambda value, _: clean(of.text(value)) if value else "0")
    axis.set_major_locator(_round_bytes() if of.is_bytes else _round_numbers())


def _round_numbers() -> Any:
    """Places at an axis that are written with few digits: of 372.5 a reader would see 372."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins="auto", steps=[1, 2, 5, 10])


def _round_bytes() -> Any:
    """Places at an axis that are round in KiB, MiB …"""
    from matplotlib.ticker import MaxNLocator

    class RoundBytes(MaxNLocator):
        def tick_values(self, vmin: float, vmax: float) -> Any:
            unit = 1024.0 ** math.floor(math.log(max(vmax, 1.0), 1024))
            return [unit * value for value in super().tick_values(vmin / unit, vmax / unit)]

    return RoundBytes(nbins=6, steps=[1, 2, 5, 10])


def values_up(axes: Any, of: Metric, lowest: float, highest: float, *, room: float) -> str:
    """Make the axis that goes up one of these values, with so much room above them; its words."""
    start = start_of_axis(lowest, highest)
    axes.set_ylim(start, highest + room * (highest - start) or 1.0)
    value_ticks(axes.yaxis, of)
    return f"{axis_words(of)}{', not from 0' if start else ''}"


def start_of_axis(lowest: float, highest: float) -> float:
    """Where an axis of values begins: at 0, unless all of them lie so close together that their intervals vanish."""
    if lowest <= 0 or lowest < CLOSE * highest:
        return 0.0
    return max(0.0, lowest - max(0.3 * (highest - lowest), 0.02 * highest))


def axis_words(of: Metric) -> str:
    """A metric at an axis: its words and its unit."""
    unit = f" ({of.unit})" if of.unit and not of.is_bytes else ""
    return f"{of.words[:1].upper()}{of.words[1:]}{unit}"
