"""Speed against what it is paid with: num_ctx, the quality of answers, memory, energy. What none beats is named.

A point is a configuration: a model with its dimensions. Its quality comes of its tasks, its speed of the main one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ollama_sweep.core.cell import MAIN_TASK, PROMPT_TOKENS, model_label
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.metrics import Metric, find_metric, metric
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import CellResult
from ollama_sweep.core.stats import extent, value_of
from ollama_sweep.machine.files import safe_name
from ollama_sweep.results.grids import X, in_words
from ollama_sweep.results.plots import PlotOptions
from ollama_sweep.results.plots.shared import chart, figures
from ollama_sweep.results.plots.shared.figures import INK, PALETTE, TEXT_GREY

USES = frozenset({"metric"})
NAME = "pareto"
SPEEDS = ("prompt_eval_rate", "decode_tps", "tokens_per_s", "rows_per_s", "eval_rate")
PAID = {"context": (X,), "quality": ("quality", "score", "accuracy"), "memory": ("size_bytes", "peak_rss_bytes"),
        "energy": ("energy_per_token_j", "energy_j")}  # fmt: skip
"""What is across, by the name of its picture; the first number that any configuration has."""
CONTEXT = Metric(X, "num_ctx", "tokens", 1)
HIGH, MOST_NAMED = 5.2, 10


@dataclass(frozen=True)
class Point:
    """A configuration: its name, its place, and the ends of its speed's interval."""

    name: str
    across: float
    speed: float
    low: float
    high: float


@dataclass(frozen=True)
class ParetoData:
    """Everything a picture says. `front` are those that none beats in both, in the order of what is across.

    `what` is the name of the picture (`context`, `quality`, …), with the task where there are several.
    """

    title: str
    facts: tuple[str, ...]
    what: str
    across: Metric
    speed: Metric
    front: tuple[Point, ...]
    rest: tuple[Point, ...]
    notice: str = ""

    @property
    def numbered(self) -> list[tuple[int, Point]]:
        """Those of the front that are named, with their numbers: the ends, and evenly between."""
        count = len(self.front)
        most = min(count, MOST_NAMED)
        places = [round(at * (count - 1) / (most - 1)) for at in range(most)] if most > 1 else list(range(most))
        return [(number, self.front[place]) for number, place in enumerate(places, 1)]

    @property
    def named(self) -> list[str]:
        """A line for each of them."""
        return [
            f"{number}  {point.name}: {self.speed.with_unit(point.speed)}"
            + ("" if self.across is CONTEXT else f", {self.across.words} {self.across.with_unit(point.across)}")
            for number, point in self.numbered
        ]


def collect(results: Sequence[CellResult], options: PlotOptions) -> list[ParetoData]:
    """What the pictures show: one for each price that the results know. Raises ConfigError for an unknown metric."""
    found = configurations(results)
    speed = _speed(found, results, options)
    pictures = [_data(what, across, speed, values, found, options) for what, across, values in _prices(found)]
    shown = [data for data in pictures if len(data.front) + len(data.rest) > 0]
    if shown:
        return shown
    notice = f"no cell has {speed.words} yet"
    return [ParetoData(_title(speed, CONTEXT), _facts([], [], options), "context", CONTEXT, speed, (), (), notice)]


Configuration = tuple[str, tuple[tuple[str, Scalar], ...]]


def configurations(results: Sequence[CellResult]) -> dict[Configuration, dict[str, CellResult]]:
    """The cells of each model and place by their task; those of the sweep's prompt also by its length."""
    lengths = len({cell.coordinates.get(PROMPT_TOKENS) for cell in results if cell.task == MAIN_TASK}) > 1
    found: dict[Configuration, dict[str, CellResult]] = {}
    for cell in results:
        place = tuple((name, value) for name, value in cell.coordinates.items()
                      if name not in ("model", "task") and (lengths or name != PROMPT_TOKENS))  # fmt: skip
        found.setdefault((cell.model, place), {}).setdefault(cell.task, cell)
    return found


def _speed(
    found: Mapping[Configuration, Mapping[str, CellResult]], results: Sequence[CellResult], options: PlotOptions
) -> Metric:
    if options.metric is not None:
        return find_metric(options.metric, results)
    return metric(
        next((name for name in SPEEDS if any(_cell_with(cells, name) for cells in found.values())), SPEEDS[0])
    )


def _cell_with(cells: Mapping[str, CellResult], name: str) -> CellResult | None:
    """The first cell of a configuration that has this number: that of the main task, where it has one."""
    ordered = sorted(cells.values(), key=lambda cell: cell.task != MAIN_TASK)
    return next((cell for cell in ordered if value_of(cell, name) is not None), None)


def _prices(
    found: Mapping[Configuration, Mapping[str, CellResult]],
) -> Iterator[tuple[str, Metric, dict[Configuration, float]]]:
    contexts = {key: float(value) for key in found if isinstance(value := dict(key[1]).get(X), int | float)}
    if len(set(contexts.values())) > 1:
        yield "context", CONTEXT, contexts
    tasks = dict.fromkeys(cell.task for cells in found.values() for cell in cells.values())
    judged = [
        (task, name)
        for task in tasks
        if (name := _first(PAID["quality"], (cells.get(task) for cells in found.values())))
    ]
    for task, name in judged:
        values = {key: value for key, cells in found.items()
                  if task in cells and (value := value_of(cells[task], name)) is not None}  # fmt: skip
        of = metric(name)
        yield (f"quality_{safe_name(task)}" if len(judged) > 1 else "quality"), Metric(
            of.name, f"{of.words} of {task}", of.unit, of.better
        ), values  # fmt: skip
    for what in ("memory", "energy"):
        name = _first(PAID[what], (cell for cells in found.values() for cell in cells.values()))
        if name:
            cells_of = {key: cell for key, cells in found.items() if (cell := _cell_with(cells, name))}
            yield what, metric(name), {key: cell.metrics[name] for key, cell in cells_of.items()}


def _first(names: Sequence[str], cells: Iterator[CellResult | None]) -> str:
    known = [cell for cell in cells if cell is not None]
    return next((name for name in names if any(value_of(cell, name) is not None for cell in known)), "")


def _data(
    what: str, across: Metric, speed: Metric, values: Mapping[Configuration, float],
    found: Mapping[Configuration, Mapping[str, CellResult]], options: PlotOptions,
) -> ParetoData:  # fmt: skip
    same = _same(found)
    points = []
    for key, value in values.items():
        cell = _cell_with(found[key], speed.name)
        if cell is not None:
            low, high = extent(cell, speed.name)
            points.append(Point(_named(key, same), value, value_of(cell, speed.name) or 0.0, low, high))
    front = front_of(points, across.better or 1, speed.better or 1)
    rest = [point for point in points if point not in front]
    return ParetoData(
        _title(speed, across), _facts(front, rest, options), what, across, speed, tuple(front), tuple(rest)
    )


def front_of(points: Sequence[Point], across: int, speed: int) -> list[Point]:
    """The points that no other one beats in both, in the order of what is across; 1: more is better, -1: less."""
    best: list[Point] = []
    for point in sorted(points, key=lambda one: (-across * one.across, -speed * one.speed)):
        if not best or speed * point.speed > speed * best[-1].speed:
            best.append(point)
    return sorted(best, key=lambda one: one.across)


def _same(found: Mapping[Configuration, object]) -> set[tuple[str, Scalar]]:
    """What all configurations have alike, the model among it: it says nothing in a name."""
    every = [{("model", model), *place} for model, place in found]
    return set.intersection(*every) if len(every) > 1 else set()


def _named(key: Configuration, same: set[tuple[str, Scalar]]) -> str:
    model, place = key
    pairs = [("model", model), *place]
    differing = [(name, model_label(str(value)) if name == "model" else value) for name, value in pairs
                 if (name, value) not in same]  # fmt: skip
    return in_words(differing) or model_label(model)


def _title(speed: Metric, across: Metric) -> str:
    return f"{speed.words[:1].upper()}{speed.words[1:]} against {across.words}"


def _facts(front: Sequence[Point], rest: Sequence[Point], options: PlotOptions) -> tuple[str, ...]:
    count = len(front) + len(rest)
    are = "is" if len(front) == 1 else "are"
    facts = (
        f"{len(front)} of {count} configurations {are} beaten by none in both" if count else "",
        f"{MOST_NAMED} of them are named" if len(front) > MOST_NAMED else "",
        f"sweep {options.sweep}" if options.sweep else "",
        options.machine,
    )
    return tuple(filter(None, facts))


# -- drawing ---------------------------------------------------------------------------------------------------------


def draw(data: ParetoData, axes: Any) -> None:
    """Draw the points into matplotlib's axes; the names of the front stand below."""
    with figures.style():
        _draw(data, axes)


def save_all(results: Sequence[CellResult], options: PlotOptions, folder: Path, *, suffix: str = ".png") -> list[Path]:
    """Write the pictures into a folder as pareto_context …; their paths. Raises ConfigError, StorageError."""
    found = collect(results, options)
    for notice in filter(None, (data.notice for data in found)):
        raise ConfigError(notice, "plot")
    return figures.write_each(((folder / f"{NAME}_{data.what}{suffix}", data) for data in found), make_figure)


def make_figure(data: ParetoData) -> Any:
    """The whole picture, as high as the names of the front need."""
    return chart.make_figure(HIGH, data.facts, data.named, partial(_draw, data))


def _draw(data: ParetoData, axes: Any) -> None:
    if not chart.begin(axes, data.title, data.facts, data.notice, grid="both"):
        return
    axes.plot([point.across for point in data.rest], [point.speed for point in data.rest], linestyle="", marker="o",
              markersize=5, color=TEXT_GREY, alpha=0.45, zorder=2)  # fmt: skip
    across, speeds = [point.across for point in data.front], [point.speed for point in data.front]
    errors = [[max(0.0, point.speed - point.low) for point in data.front],
              [max(0.0, point.high - point.speed) for point in data.front]]  # fmt: skip
    axes.plot(across, speeds, color=PALETTE[1], linewidth=1.6, zorder=3)
    axes.errorbar(across, speeds, errors, linestyle="", color=PALETTE[1], elinewidth=1.6, capsize=3, marker="D",
                  markersize=7, markeredgecolor="black", markeredgewidth=0.7, zorder=4)  # fmt: skip
    axes.margins(0.06, 0.1)
    ends = [end for point in data.front for end in (point.low, point.high)]
    every = [*speeds, *(point.speed for point in data.rest), *ends]
    across_words = data.across.name if data.across is CONTEXT else chart.axis_words(data.across)
    chart.name_axes(axes, across_words, chart.values_up(axes, data.speed, min(every), max(every), room=0.14))
    chart.value_ticks(axes.xaxis, data.across)
    is_rising = len(speeds) > 1 and (speeds[-1] - speeds[0]) * (across[-1] - across[0]) > 0
    aside, anchor = (-7, "right") if is_rising else (7, "left")  # off the line and the interval
    for number, point in data.numbered:
        axes.annotate(str(number), (point.across, point.speed), (aside, 4), textcoords="offset points", ha=anchor,
                      fontsize=9.5, fontweight="bold", color=INK, parse_math=False)  # fmt: skip
    chart.draw_list(axes, data.named)
