"""A scatter of answers: one number against another, colour and marker per model, the models' medians annotated.

Each of the five plots in `all_scatter_latency_plots/` is one `Scatter`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ollama_sweep.core.outcome import AnswerRow
from ollama_sweep.core.stats import median
from ollama_sweep.core.units import format_rate
from ollama_sweep.results.answers import MEASURES, Measure, by_model
from ollama_sweep.results.plots import PlotOptions
from ollama_sweep.results.plots.shared import figures
from ollama_sweep.results.plots.shared.figures import INK
from ollama_sweep.results.plots.shared.text import LINE, clean, width

FOLDER = "all_scatter_latency_plots"
LOG_FROM = 15.0
"""Axes are logarithmic where the largest value is so many times the median."""
MOST_LABELS = 10
"""More medians than these are only in the legend."""
NAME_SIZE, LABEL_SIZE = 9.5, 10.0
_WIDE, _ENTRY, _LEGEND, _LEFT, _BOTTOM = 12.5, 33.0, 290.0, 62.0, 50.0


@dataclass(frozen=True)
class Series:
    """The points of one model as (x, y), and what had no point: failed answers, and those without one of both."""

    name: str
    points: tuple[tuple[float, float], ...]
    failed: int = 0
    unknown: int = 0

    @property
    def medians(self) -> tuple[float, float] | None:
        """The median of x and that of y; None without points."""
        if not self.points:
            return None
        return median([x for x, _ in self.points]), median([y for _, y in self.points])


@dataclass(frozen=True)
class ScatterData:
    """Everything a picture says. `x` and `y` name measures of `answers.MEASURES`."""

    x: str
    y: str
    series: tuple[Series, ...]
    sweep: str = ""
    machine: str = ""
    tasks: tuple[str, ...] = ()
    cached: int = 0

    @property
    def measures(self) -> tuple[Measure, Measure]:
        return MEASURES[self.x], MEASURES[self.y]

    @property
    def title(self) -> str:
        x, y = self.measures
        return f"{_capital(y.words)} against {x.words}"

    @property
    def facts(self) -> tuple[str, ...]:
        """The parts of the second title line."""
        points, failed, unknown = self.count, self._sum("failed"), self._sum("unknown")
        parts = [
            f"{points} answer{'' if points == 1 else 's'}",
            f"{failed} failed, not drawn" if failed else "",
            f"{unknown} without both numbers, not drawn" if unknown else "",
            f"{self.cached} with most of their prompt from a cache" if self.cached else "",
            f"sweep {self.sweep}" if self.sweep else "",
            f"task{'s' if len(self.tasks) > 1 else ''} {', '.join(self.tasks)}" if any(self.tasks) else "",
            self.machine,
        ]
        return tuple(part for part in parts if part)

    @property
    def count(self) -> int:
        return sum(len(series.points) for series in self.series)

    @property
    def notice(self) -> str:
        """What is written across the picture where there is no point."""
        if self.count:
            return ""
        failed, unknown = self._sum("failed"), self._sum("unknown")
        if failed and not unknown:
            return f"no answers: {failed} failed"
        x, y = self.measures
        return f"no answer has both {x.words} and {y.words}" if unknown else "no answers yet"

    @property
    def is_log(self) -> tuple[bool, bool]:
        """Whether the axes are logarithmic: their values are above zero and lie far apart."""
        points = [point for series in self.series for point in series.points]
        return _is_log([x for x, _ in points]), _is_log([y for _, y in points])

    def _sum(self, name: str) -> int:
        return sum(getattr(series, name) for series in self.series)


@dataclass(frozen=True)
class Scatter:
    """A plot: its name, which is its file's, and the two measures."""

    name: str
    x: str
    y: str

    def collect(self, rows: Sequence[AnswerRow], options: PlotOptions) -> list[ScatterData]:
        """What the picture shows. Failed answers have no point."""
        cached = sum(_is_cached(row) for row in rows) if self.y == "prompt_eval_duration_s" else 0
        tasks = tuple(dict.fromkeys(row.task for row in rows))
        series = tuple(self._series(name, members) for name, members in by_model(rows).items())
        return [ScatterData(self.x, self.y, series, options.sweep, options.machine, tasks, cached)]

    def draw(self, data: ScatterData, axes: Any) -> None:
        """Draw it into matplotlib's axes; the legend stands on the right of them."""
        with figures.style():
            _draw(data, axes)

    def save_all(
        self, rows: Sequence[AnswerRow], options: PlotOptions, folder: Path, *, suffix: str = ".png"
    ) -> list[Path]:
        """Write the picture into `all_scatter_latency_plots/` of a folder; its path. Raises StorageError."""
        path = folder / FOLDER / f"{self.name}{suffix}"
        for data in self.collect(rows, options):
            figures.write(path, partial(make_figure, data))
        return [path]

    def _series(self, name: str, rows: Sequence[AnswerRow]) -> Series:
        answered = [row for row in rows if not row.answer.failure]
        points = [point for row in answered if (point := self._point(row)) is not None]
        return Series(name, tuple(points), len(rows) - len(answered), len(answered) - len(points))

    def _point(self, row: AnswerRow) -> tuple[float, float] | None:
        x, y = MEASURES[self.x].of(row), MEASURES[self.y].of(row)
        if x is None or y is None or not math.isfinite(x) or not math.isfinite(y):
            return None
        return float(x), float(y)


def make_figure(data: ScatterData) -> Any:
    """The whole picture: 12.5 inches wide, higher where there are many models."""
    wide, needed = _WIDE, len(data.series) * _ENTRY
    room = wide * 72 - _LEFT - _LEGEND - 16
    top = figures.titles_height(data.facts, room + _LEGEND)
    high = max(7.0, (needed + top + _BOTTOM + 10) / 72)
    figure = figures.new_figure(wide, high)
    box = (_LEFT / wide / 72, _BOTTOM / high / 72, room / wide / 72, 1 - (top + _BOTTOM) / high / 72)
    _draw(data, figure.add_axes(box))
    return figure


def _draw(data: ScatterData, axes: Any) -> None:
    size = figures.size_points(axes)
    figures.draw_titles(axes, data.title, data.facts, size[0] + _LEGEND)
    figures.plain_axes(axes, "both")
    for axis, measure, is_log in zip((axes.xaxis, axes.yaxis), data.measures, data.is_log, strict=True):
        unit = "" if measure.unit == "tokens" else measure.unit
        notes = ", ".join(note for note in (unit, "logarithmic" if is_log else "") if note)
        axis.set_label_text(clean(f"{_capital(measure.words)}{f' ({notes})' if notes else ''}"), fontsize=11, color=INK)
    if data.notice:
        axes.set(xticks=[], yticks=[])
        figures.draw_notice(axes, data.notice)
        return
    names = [series.name for series in data.series]
    short = figures.shorten_all(names, NAME_SIZE, _LEGEND - 40)
    for series, look, name in zip(data.series, figures.looks(names).values(), short, strict=True):
        _draw_series(axes, series, look, f"{name}\n{_fitting(data, series)}", data.count)
    _scale(data, axes)
    _draw_medians(data, axes)
    figures.draw_legend(
        axes, loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=NAME_SIZE, labelspacing=0.6, handletextpad=0.4
    )


def _draw_series(axes: Any, series: Series, look: tuple[str, str], label: str, count: int) -> None:
    """The points of a model and, larger, their median, which is what the legend shows."""
    colour, marker = look
    xs, ys = [x for x, _ in series.points], [y for _, y in series.points]
    opacity = 0.85 if count < 60 else 0.6 if count < 300 else 0.4
    axes.scatter(xs, ys, s=34, c=colour, marker=marker, alpha=opacity, linewidths=0.4, edgecolors="white", zorder=3)
    middle = zip(*[series.medians], strict=True) if series.medians else ([], [])
    large = axes.scatter(*middle, s=170, c=colour, marker=marker, linewidths=1.8, edgecolors="black", zorder=6)
    large.set_label(label)


def _scale(data: ScatterData, axes: Any) -> None:
    """Axes from zero, so that lengths mean something, with room for the medians' labels; or logarithmic ones."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    points = [point for series in data.series for point in series.points]
    axis_of = {"x": axes.xaxis, "y": axes.yaxis}
    for (name, axis), values, measure, is_log in zip(
        axis_of.items(), zip(*points, strict=True), data.measures, data.is_log, strict=True
    ):
        smallest, largest = min(values), max(values)
        if is_log:
            axes.set(**{f"{name}scale": "log", f"{name}lim": (smallest / 1.3, largest * 1.3)})
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if largest < 1000 * smallest else (1.0,)))
            axis.set_minor_formatter(NullFormatter())
        else:
            axes.set(**{f"{name}lim": (0.0, largest * 1.08 or 1.0)})
            axis.set_major_locator(MaxNLocator(7, integer=measure.unit == "tokens"))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def _draw_medians(data: ScatterData, axes: Any) -> None:
    """The median of y beside each median point, moved apart where they would lie on each other."""
    found = [series.medians for series in data.series if series.medians is not None]
    if len(found) > MOST_LABELS:
        return
    wide, high = figures.size_points(axes)
    places = [axes.transAxes.inverted().transform(axes.transData.transform(point)) * (wide, high) for point in found]
    tops = spread_apart([float(place[1]) for place in places], LABEL_SIZE * LINE + 2, high)
    for point, place, top in zip(found, places, tops, strict=True):
        is_left = place[0] > wide - 90
        axes.annotate(
            _with_unit(point[1], data.measures[1]), point, (-14 if is_left else 14, top - place[1]),
            textcoords="offset points", fontsize=LABEL_SIZE, fontweight="bold", color=INK,
            ha="right" if is_left else "left", va="center", zorder=7, path_effects=[_halo()],
            arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 5},
        )  # fmt: skip


def spread_apart(wanted: Sequence[float], gap: float, room: float) -> list[float]:
    """Heights as near as possible to the wanted ones, at least `gap` apart, all in `room` where they fit at all."""
    gap = min(gap, room / max(1, len(wanted)))
    order = sorted(range(len(wanted)), key=lambda number: wanted[number])
    found = [0.0] * len(wanted)
    lowest = gap / 2
    for number in order:
        found[number] = lowest = max(wanted[number], lowest)
        lowest += gap
    highest = room - gap / 2
    for number in reversed(order):
        found[number] = highest = min(found[number], highest)
        highest -= gap
    return found


def _fitting(data: ScatterData, series: Series) -> str:
    """The longest of the wordings that has room below a model's name."""
    wordings = list(_numbers(data, series))
    return next((text for text in wordings if width(text, NAME_SIZE) <= _LEGEND - 40), wordings[-1])


def _numbers(data: ScatterData, series: Series) -> Iterator[str]:
    """What stands below a model's name, the longest wording first."""
    failed = f", {series.failed} failed" if series.failed else ""
    if series.medians is None:
        yield f"no points{failed}"
        return
    x, y = (_with_unit(value, measure) for value, measure in zip(series.medians, data.measures, strict=True))
    yield f"n = {len(series.points)}{failed}, median {x}, {y}"
    yield f"n = {len(series.points)}{failed}, {x}, {y}"
    yield f"n = {len(series.points)}, {x}, {y}"


def _with_unit(value: float, measure: Measure) -> str:
    text = f"{value:,.0f}" if measure.unit == "tokens" else format_rate(value)
    return clean(f"{text} {measure.unit}".strip())


def _is_log(numbers: Sequence[float]) -> bool:
    return bool(numbers) and min(numbers) > 0 and max(numbers) > LOG_FROM * median(numbers)


def _is_cached(row: AnswerRow) -> bool:
    return bool(
        not row.answer.failure
        and row.cached_count
        and row.prompt_eval_count
        and row.cached_count * 2 > row.prompt_eval_count
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _halo() -> Any:
    from matplotlib.patheffects import withStroke

    return withStroke(linewidth=3, foreground="white")
