"""One cell over its loads: each run of each load, what each load said, and the value with its interval."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ollama_sweep.core.cell import model_label
from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.metrics import Metric, default_metric, metric
from ollama_sweep.core.outcome import Purpose, Run, Status, failure_label
from ollama_sweep.core.rates import streamed_decode_rate
from ollama_sweep.core.stats import interval_of, median, range_and_runs, value_of
from ollama_sweep.machine.files import safe_name
from ollama_sweep.results.explain import Explained, ExplainedAttempt
from ollama_sweep.results.grids import in_words
from ollama_sweep.results.plots import CELL, PlotOptions
from ollama_sweep.results.plots.shared import chart, figures
from ollama_sweep.results.plots.shared.figures import INK, PALETTE, TEXT_GREY

TAKES = CELL
USES = frozenset({"metric"})
NAME = "cell"
OF_RUNS = ("prompt_eval_rate", "eval_rate", "ttft_s", "decode_tps", "latency_s", "total_duration_s",
           "prompt_eval_duration_s", "eval_duration_s", "load_duration_s")  # fmt: skip
"""What every run has one of."""
PURPOSES = {None: "", Purpose.REPEATS: "more runs", Purpose.PASS: "pass", Purpose.SECOND_LOOK: "second look",
            Purpose.CONTROL: "control"}  # fmt: skip
HIGH, SPREAD = 4.8, 0.32
RED = "#d00000"


_SAID_ELSEWHERE = ("model", "task")
"""Dimensions that a title or the facts below it name anyway."""


@dataclass(frozen=True)
class Load:
    """A load: why it was made, its runs as (value, believed), and what it says; `failure` is why it has none."""

    number: int
    why: str
    runs: tuple[tuple[float, bool], ...]
    value: float | None
    failure: str = ""

    @property
    def label(self) -> str:
        """How it stands at the axis."""
        return f"{self.number} {self.why}".strip()


@dataclass(frozen=True)
class CellData:
    """Everything a picture says; `low` and `high` are the ends of the value's interval."""

    title: str
    facts: tuple[str, ...]
    metric: Metric
    loads: tuple[Load, ...]
    value: float | None
    low: float
    high: float
    notice: str = ""


def collect(rows: Sequence[Explained], options: PlotOptions) -> list[CellData]:
    """What the pictures show, one for each cell. Raises ConfigError for a metric that runs do not have."""
    return [_data(found, _metric(found, options), options) for found in rows]


def _metric(found: Explained, options: PlotOptions) -> Metric:
    if options.metric is not None:
        if options.metric not in OF_RUNS:
            known = f"{', '.join(OF_RUNS)}.{nearest(options.metric, OF_RUNS)}"
            raise ConfigError(f"runs have no {options.metric}. Known: {known}", "metric")
        return metric(options.metric)
    name = default_metric([found.result])
    has = any(_value(run, name) is not None for one in found.attempts for run in one.runs)
    return metric(name if name in OF_RUNS and has else "latency_s" if not _has_rate(found) else OF_RUNS[0])


def _has_rate(found: Explained) -> bool:
    return any(run.prompt_eval_rate is not None for one in found.attempts for run in one.runs)


def _value(run: Run, name: str) -> float | None:
    if name == "decode_tps":
        return streamed_decode_rate(run.eval_count, run.latency_s, run.ttft_s)
    found = getattr(run, name)
    return float(found) if found is not None and math.isfinite(found) else None


def _data(found: Explained, of: Metric, options: PlotOptions) -> CellData:
    loads = tuple(_load(one, of.name) for one in found.attempts)
    value = value_of(found.result, of.name)
    ends = interval_of(found.result, of.name) if value is not None else None
    cell = found.planned.cell
    sure = range_and_runs(found.result, of) if value is not None else ""
    facts = (
        f"{of.with_unit(value)}{f' ({sure})' if sure else ''}" if value is not None else "",
        ", ".join(sorted(flag.flag for flag in found.flags)),
        f"task {cell.task}", f"sweep {found.sweep}", options.machine,
    )  # fmt: skip
    where = in_words(pair for pair in found.place.coordinates.items() if pair[0] not in _SAID_ELSEWHERE)
    return CellData(
        f"{model_label(cell.model)}, {where}: {of.words} of each load" if where
        else f"{model_label(cell.model)}: {of.words} of each load",
        tuple(filter(None, facts)), of, loads, value, ends.low if ends else 0.0, ends.high if ends else 0.0,
        "" if loads else "this cell was not tried yet",
    )  # fmt: skip


def _load(one: ExplainedAttempt, name: str) -> Load:
    runs = tuple(_runs(one, name))
    believed = [value for value, is_believed in runs if is_believed]
    attempt = one.attempt
    failure = failure_label(attempt.status, attempt.reason) if not believed and attempt.status is not Status.OK else ""
    value = median(believed) if believed else None
    return Load(attempt.number, PURPOSES.get(attempt.purpose, ""), runs, value, failure)


def _runs(one: ExplainedAttempt, name: str) -> Iterator[tuple[float, bool]]:
    """Also those that are not believed, and warm-ups."""
    for run in one.runs:
        value = _value(run, name)
        if value is not None:
            yield value, run.believed and not run.warmup


# -- drawing ---------------------------------------------------------------------------------------------------------


def draw(data: CellData, axes: Any) -> None:
    """Draw the loads into matplotlib's axes."""
    with figures.style():
        _draw(data, axes)


def save_all(rows: Sequence[Explained], options: PlotOptions, folder: Path, *, suffix: str = ".png") -> list[Path]:
    """Write the pictures into a folder as cell_PLACE; their paths. Raises ConfigError, StorageError."""
    what = f"_{options.metric}" if options.metric is not None else ""
    files = [folder / f"{NAME}{what}_{_place_in_name(found)}{suffix}" for found in rows]
    return figures.write_each(zip(files, collect(rows, options), strict=True), make_figure)


def _place_in_name(found: Explained) -> str:
    where = "_".join(f"{name}-{model_label(str(value))}" for name, value in found.place.coordinates.items())
    return safe_name(where or "only", exact=False)


def make_figure(data: CellData) -> Any:
    """The whole picture."""
    return chart.make_figure(HIGH, data.facts, [""], partial(_draw, data))


def _draw(data: CellData, axes: Any) -> None:
    if not chart.begin(axes, data.title, data.facts, data.notice, grid="y"):
        return
    known = [value for load in data.loads for value, _ in load.runs]
    known += [data.low, data.high] if data.value is not None else []
    lowest, highest = (min(known), max(known)) if known else (0.0, 1.0)
    axes.set_xlim(-0.6, len(data.loads) - 0.4)
    chart.category_ticks(axes.xaxis, [load.label for load in data.loads], 800.0 / max(1, min(26, len(data.loads))))
    words = chart.values_up(axes, data.metric, lowest, highest, room=0.1)
    chart.name_axes(axes, "load, in the order of time, and what a further one was made for", words)
    if data.value is not None:
        axes.axhspan(data.low, data.high, color=PALETTE[0], alpha=0.15, linewidth=0, zorder=0, label="its interval")
        axes.axhline(data.value, color=PALETTE[0], linewidth=1.6, zorder=1, label="the cell's value")
    _draw_loads(data, axes)
    if known:
        figures.draw_legend(axes, loc="upper left", bbox_to_anchor=(0, -44 / figures.size_points(axes)[1]), ncols=5,
                            fontsize=9.5, columnspacing=1.8)  # fmt: skip


def _draw_loads(data: CellData, axes: Any) -> None:
    looks = {True: ("o", PALETTE[1], "a run"), False: ("o", "white", "a warm-up, or a run that is not believed")}
    points: dict[bool, tuple[list[float], list[float]]] = {True: ([], []), False: ([], [])}
    for place, load in enumerate(data.loads):
        count = len(load.runs)
        for number, (value, believed) in enumerate(load.runs):
            aside = 0.0 if count == 1 else SPREAD * (2 * number / (count - 1) - 1)
            points[believed][0].append(place + aside)
            points[believed][1].append(value)
        if load.value is not None:
            is_first = not any(one.value is not None for one in data.loads[:place])
            axes.plot([place - 0.42, place + 0.42], [load.value] * 2, color=INK, linewidth=2.2, zorder=3,
                      label="what a load says" if is_first else None)  # fmt: skip
        if load.failure:
            axes.annotate(f"✗ {load.failure}", (place, 0.5), xycoords=("data", "axes fraction"), ha="center",
                          va="center", rotation=90, fontsize=9, color=RED, parse_math=False)  # fmt: skip
    for believed, (across, values) in points.items():
        marker, colour, words = looks[believed]
        if values:
            axes.plot(across, values, linestyle="", marker=marker, markersize=6, color=colour,
                      markeredgecolor=TEXT_GREY if not believed else "black", markeredgewidth=0.7, zorder=4,
                      label=words)  # fmt: skip
