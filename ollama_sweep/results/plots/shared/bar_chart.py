"""Lying bars: a group for each model, in it a bar for each kind, its value written at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ollama_sweep.results.plots.shared import figures
from ollama_sweep.results.plots.shared.figures import INK, TEXT_GREY
from ollama_sweep.results.plots.shared.text import clean, width

NAME_SIZE, VALUE_SIZE, LEGEND_SIZE = 10.5, 9.5, 10.0
_WIDE, _LEFT, _RIGHT, _BOTTOM = 12.0, 215.0, 20.0, 50.0
_BAR, _THICKEST, _GAP, _LEGEND = 19.0, 34.0, 16.0, 24.0


@dataclass(frozen=True)
class Bar:
    """One bar: its length, the text at its end, and where the true mean lies where that is drawn."""

    value: float
    text: str
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class BarsData:
    """Everything a picture says. `groups` maps a model to its bars by kind; a kind without numbers has no bar.

    `limit` is the right end of the axis, None where the bars decide.
    """

    title: str
    facts: tuple[str, ...]
    axis: str
    kinds: tuple[str, ...]
    groups: Mapping[str, Mapping[str, Bar]]
    missing: str
    notice: str = ""
    limit: float | None = None


def draw(data: BarsData, axes: Any) -> None:
    """Draw the bars into matplotlib's axes, the first model at the top; names stand on the left of them."""
    with figures.style():
        _draw(data, axes)


def save(data: BarsData, path: Path) -> list[Path]:
    """Write one picture; its path. Raises StorageError."""
    figures.write(path, lambda: make_figure(data))
    return [path]


def make_figure(data: BarsData) -> Any:
    """The whole picture: 12 inches wide, as high as its bars need."""
    room = _WIDE * 72 - _LEFT - _RIGHT
    legend = _LEGEND if len(data.kinds) > 1 else 0.0
    top = figures.titles_height(data.facts, room + _LEFT - 16) + legend
    bars = max(len(data.kinds), 2) * _BAR + _GAP
    high = max(4.5 * 72, top + _BOTTOM + len(data.groups) * bars)
    figure = figures.new_figure(_WIDE, high / 72)
    box = (_LEFT / _WIDE / 72, _BOTTOM / high, room / _WIDE / 72, 1 - (top + _BOTTOM) / high)
    _draw(data, figure.add_axes(box))
    return figure


def _draw(data: BarsData, axes: Any) -> None:
    size = figures.size_points(axes)
    legend = _LEGEND if len(data.kinds) > 1 and not data.notice else 0.0
    figures.draw_titles(axes, data.title, data.facts, size[0] + _LEFT - 16, left=_LEFT - 16, up=legend)
    figures.plain_axes(axes, "x")
    axes.set_xlabel(clean(data.axis), fontsize=11, color=INK, parse_math=False)
    if data.notice:
        axes.set(xticks=[], yticks=[])
        figures.draw_notice(axes, data.notice)
        return
    names = list(data.groups)
    longest = max((_end(bar) for bars in data.groups.values() for bar in bars.values()), default=0.0)
    room = max((width(bar.text, VALUE_SIZE) for bars in data.groups.values() for bar in bars.values()), default=0)
    right = max(data.limit or 0.0, longest) or 1.0
    axes.set_xlim(0, right / max(0.2, 1 - (room + 14) / size[0]))
    axes.set_xticks(figures.ticks_within(0.0, right))
    axes.set_ylim(len(names) - 0.5, -0.5)
    short = figures.shorten_all(names, NAME_SIZE, _LEFT - 26)
    axes.set_yticks(range(len(names)), short, fontsize=NAME_SIZE, color=INK, parse_math=False)
    axes.tick_params(axis="y", length=0)
    share = size[1] / len(names)
    for place, name in enumerate(names):
        high = min(_THICKEST, (share - _GAP / 2) / len(data.kinds)) / share
        _draw_group(data, axes, place, data.groups[name], high)
    if len(data.kinds) > 1:
        _draw_legend(data, axes, size[0])


def _draw_group(data: BarsData, axes: Any, place: int, bars: Mapping[str, Bar], high: float) -> None:
    begin = place - high * len(data.kinds) / 2
    for number, kind in enumerate(data.kinds):
        middle = begin + (number + 0.5) * high
        bar = bars.get(kind)
        if bar is None:
            axes.annotate(
                data.missing, (0, middle), (5, 0), textcoords="offset points", fontsize=VALUE_SIZE, color=TEXT_GREY,
                va="center", parse_math=False,
            )  # fmt: skip
            continue
        colour, hatch = _look(number)
        axes.barh(middle, bar.value, high * 0.86, color=colour, hatch=hatch, edgecolor="white", linewidth=0, zorder=2)
        if bar.interval is not None:
            reach = [[max(0.0, bar.value - bar.interval[0])], [max(0.0, bar.interval[1] - bar.value)]]
            axes.errorbar(bar.value, middle, xerr=reach, color=INK, linewidth=1.5, capsize=4, zorder=3)
        axes.annotate(
            bar.text, (_end(bar), middle), (6, 0), textcoords="offset points", fontsize=VALUE_SIZE, color=INK,
            va="center", parse_math=False,
        )  # fmt: skip


def _end(bar: Bar) -> float:
    return max(bar.value, bar.interval[1] if bar.interval else 0.0)


def _look(number: int) -> tuple[str, str]:
    return figures.PALETTE[number % len(figures.PALETTE)], figures.HATCHES[number % len(figures.HATCHES)]


def _draw_legend(data: BarsData, axes: Any, room: float) -> None:
    """The kinds of bars in one line above the axes."""
    from matplotlib.patches import Patch

    is_too_wide = sum(39 + width(kind, LEGEND_SIZE) for kind in data.kinds) > room
    texts = (
        figures.shorten_all(data.kinds, LEGEND_SIZE, max(30.0, room / len(data.kinds) - 39))
        if is_too_wide
        else data.kinds
    )
    looks = [_look(number) for number in range(len(texts))]
    handles = [Patch(facecolor=colour, hatch=hatch, edgecolor="white", linewidth=0) for colour, hatch in looks]
    figures.draw_legend(
        axes, handles, texts, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(texts), fontsize=LEGEND_SIZE,
        borderpad=0.4, handlelength=1.8, handletextpad=0.5, columnspacing=1.4,
    )  # fmt: skip


def facts_of(parts: Sequence[str]) -> tuple[str, ...]:
    """The parts of the second title line that say something."""
    return tuple(part for part in parts if part)
