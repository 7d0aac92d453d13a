"""Throughput, and the time to the first token, against how many questions are in flight at once.

One line for each configuration, in one picture for each of the two numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ollama_sweep.core.cell import model_label
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.metrics import Metric, find_metric, metric
from ollama_sweep.core.outcome import CellResult
from ollama_sweep.core.stats import value_of
from ollama_sweep.results.grids import Grid, in_words, make_grids
from ollama_sweep.results.plots import PlotOptions
from ollama_sweep.results.plots.shared import figures
from ollama_sweep.results.plots.shared.figures import INK, TEXT_GREY
from ollama_sweep.results.plots.shared.text import clean, width

USES = frozenset({"metric"})
NAME = X = "concurrency"
SHOWN = ("tokens_per_s_total", "ttft_s_p95")
MOST_LINES = 12
"""More lines than these nobody tells apart: those with the best values are drawn."""
ENTRY_SIZE, VALUE_SIZE = 10.0, 9.5
ROOM = 0.045
"""The share of the height that such a figure needs."""
_WIDE, _HIGH, _LEFT, _RIGHT, _BOTTOM, _ENTRY = 12.0, 6.4, 66.0, 24.0, 52.0, 19.0


@dataclass(frozen=True)
class Line:
    """One configuration: its points as (concurrency, value, how many the server ran at once where that is known)."""

    name: str
    points: tuple[tuple[int, float, int | None], ...]


@dataclass(frozen=True)
class LinesData:
    """Everything a picture says."""

    metric: Metric
    lines: tuple[Line, ...]
    facts: tuple[str, ...]
    notice: str = ""

    @property
    def title(self) -> str:
        words, better = self.metric.words, f" ({self.metric.direction})" if self.metric.direction else ""
        return f"{words[:1].upper()}{words[1:]} by concurrency{better}"

    @property
    def ticks(self) -> list[int]:
        """The values of the dimension."""
        return sorted({count for line in self.lines for count, _, _ in line.points})


def is_about(results: Sequence[CellResult]) -> bool:
    """There is something to draw: `concurrency` is a dimension of these cells."""
    return any(X in result.coordinates for result in results)


def collect(results: Sequence[CellResult], options: PlotOptions) -> list[LinesData]:
    """What the pictures show: of the metric that was chosen, else of both. Raises ConfigError without the dimension."""
    if not is_about(results):
        raise ConfigError(
            "no cell has concurrency as a dimension; a sweep has it with `concurrency: [1, 2, 4]`", "plot"
        )
    if options.metric is not None:
        find_metric(options.metric, results)
    names = SHOWN if options.metric is None else (options.metric,)
    grids = make_grids([result for result in results if X in result.coordinates], X, X)
    return [_data(metric(name), grids, options) for name in names]


def _data(of: Metric, grids: Sequence[Grid], options: PlotOptions) -> LinesData:
    same = set(grids[0].combination).intersection(*(grid.combination for grid in grids))
    lines = [Line(_named(grid, same), _points(grid, of.name)) for grid in grids]
    drawn = sorted((line for line in lines if line.points), key=lambda line: _best(line, of))[:MOST_LINES]
    left_out = sum(bool(line.points) for line in lines) - len(drawn)
    facts = (
        f"{len(drawn)} configuration{'' if len(drawn) == 1 else 's'}"
        + (f", {left_out} more are worse" * bool(left_out)),
        "small figures: answers that the server gave at once" if _is_known(drawn) else "",
        in_words((name, model_label(str(value))) for name, value in grids[0].combination if (name, value) in same),
        f"sweep {options.sweep}" if options.sweep else "",
        options.machine,
    )
    shown = tuple(line for line in lines if line in drawn)
    return LinesData(of, shown, tuple(filter(None, facts)), "" if drawn else f"no cell has {of.words} yet")


def _named(grid: Grid, same: set[Any]) -> str:
    differing = [(name, value) for name, value in grid.combination if (name, value) not in same]
    return in_words((name, model_label(str(value)) if name == "model" else value) for name, value in differing)


def _points(grid: Grid, name: str) -> tuple[tuple[int, float, int | None], ...]:
    found = []
    for (count, _), result in sorted(grid.cells.items(), key=lambda pair: float(str(pair[0][0]))):
        value, served = value_of(result, name), result.metrics.get("served_parallel")
        if value is not None and isinstance(count, int):
            found.append((count, value, None if served is None else round(served)))
    return tuple(found)


def _best(line: Line, of: Metric) -> float:
    """Sorts the best first."""
    values = [value for _, value, _ in line.points]
    return min(values) if of.better < 0 else -max(values)


def _is_known(lines: Sequence[Line]) -> bool:
    return any(served is not None for line in lines for _, _, served in line.points)


# -- drawing ---------------------------------------------------------------------------------------------------------


def draw(data: LinesData, axes: Any) -> None:
    """Draw the lines into matplotlib's axes; their names stand below the title."""
    with figures.style():
        _draw(data, axes)


def save_all(results: Sequence[CellResult], options: PlotOptions, folder: Path, *, suffix: str = ".png") -> list[Path]:
    """Write the pictures into a folder as concurrency_METRIC; their paths. Raises ConfigError, StorageError."""
    found = collect(results, options)
    return figures.write_each(((folder / f"{NAME}_{data.metric.name}{suffix}", data) for data in found), make_figure)


def make_figure(data: LinesData) -> Any:
    """The whole picture, as high as the names of its lines need."""
    room = _WIDE * 72 - _LEFT - _RIGHT
    top = figures.titles_height(data.facts, room) + _names_height(data, room)
    high = _HIGH * 72 + _names_height(data, room)
    figure = figures.new_figure(_WIDE, high / 72)
    box = (_LEFT / _WIDE / 72, _BOTTOM / high, room / _WIDE / 72, 1 - (top + _BOTTOM) / high)
    _draw(data, figure.add_axes(box))
    return figure


def _names_height(data: LinesData, room: float) -> float:
    names = [line.name for line in data.lines if line.name]
    return 0.0 if not names else _ENTRY * -(-len(names) // _columns(names, room)) + 8


def _columns(names: Sequence[str], room: float) -> int:
    widest = max(width(clean(name), ENTRY_SIZE) for name in names) + 44
    return max(1, min(len(names), int(room // widest)))


def _draw(data: LinesData, axes: Any) -> None:
    size = figures.size_points(axes)
    figures.draw_titles(axes, data.title, data.facts, size[0], up=_names_height(data, size[0]))
    figures.plain_axes(axes, "both")
    axes.set_xlabel("Questions in flight at once (concurrency)", fontsize=11, color=INK, parse_math=False)
    axes.set_ylabel(clean(data.metric.unit or data.metric.words), fontsize=11, color=INK, parse_math=False)
    if data.notice:
        axes.set(xticks=[], yticks=[])
        figures.draw_notice(axes, data.notice)
        return
    looks = figures.looks([str(number) for number in range(len(data.lines))])
    for line, (colour, marker) in zip(data.lines, looks.values(), strict=True):
        counts, values = [point[0] for point in line.points], [point[1] for point in line.points]
        axes.plot(counts, values, color=colour, marker=marker, linewidth=2, markersize=6, zorder=3)
    axes.set_xscale("log", base=2)
    axes.set_xticks(data.ticks, [str(tick) for tick in data.ticks], color=TEXT_GREY)
    axes.minorticks_off()
    highest = max(value for line in data.lines for _, value, _ in line.points)
    axes.set_ylim(0, highest * 1.12 or 1.0)
    axes.margins(x=0.06)
    _draw_served(data, axes, list(looks.values()), highest)
    _draw_names(data, axes, size[0])


def _draw_served(data: LinesData, axes: Any, looks: Sequence[tuple[str, str]], highest: float) -> None:
    """How many answers were given at once, above each point; below it or not at all where another stands there."""
    for tick in data.ticks:
        here = [
            (value, served, colour)
            for line, (colour, _) in zip(data.lines, looks, strict=True)
            for count, value, served in line.points
            if count == tick and served is not None
        ]
        taken: list[float] = []
        for value, served, colour in sorted(here, reverse=True):
            for up in (1, -1):
                at = value + up * ROOM * highest
                if all(abs(at - other) > ROOM * highest for other in taken):
                    taken += [at, value]
                    axes.annotate(
                        str(served), (tick, value), (0, 7 * up), textcoords="offset points", fontsize=VALUE_SIZE,
                        color=colour, ha="center", va="bottom" if up > 0 else "top", parse_math=False,
                    )  # fmt: skip
                    break


def _draw_names(data: LinesData, axes: Any, room: float) -> None:
    names = [line.name for line in data.lines]
    if not any(names):
        return
    columns = _columns(names, room)
    short = figures.shorten_all(names, ENTRY_SIZE, room / columns - 44)
    figures.draw_legend(
        axes, axes.get_lines(), short, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, fontsize=ENTRY_SIZE,
        borderpad=0.4, handlelength=2.0, handletextpad=0.5, columnspacing=1.6,
    )  # fmt: skip
