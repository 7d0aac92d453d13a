"""How fast the machine was over the hours: the control cell's loads, the line through them, and the limits of drift."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ollama_sweep.core.noise.drift import Point, drift_of, line_of
from ollama_sweep.core.noise.spread import Spreads
from ollama_sweep.core.units import format_rate
from ollama_sweep.machine.files import safe_name
from ollama_sweep.results.plots import CONTROLS, PlotOptions
from ollama_sweep.results.plots.shared import chart, figures
from ollama_sweep.results.plots.shared.figures import INK, PALETTE, TEXT_GREY

TAKES = CONTROLS
USES: frozenset[str] = frozenset()
NAME = "drift"
HIGH, SHOWN_ABOVE = 4.6, 0.6
UNITS = (("s", 1.0, 600.0), ("min", 60.0, 3 * 3600.0), ("h", 3600.0, 4 * 86400.0), ("d", 86400.0, math.inf))
"""Units of time: name, seconds, and up to how many seconds it is used."""


@dataclass(frozen=True)
class Controls:
    """The control loads of a sweep in its last surroundings, in order; the cell's own load is the first."""

    sweep: str
    points: Sequence[Point]
    machine: str = ""
    spreads: Spreads | None = None


@dataclass(frozen=True)
class DriftData:
    """Everything a picture says. `at` are times in `unit`, `shares` how much faster (+) than the first load each was.

    `line` is the smoothed share at each, `error` its standard error; cells are flagged beyond `limit`, and a sweep
    waits beyond `pause`.
    """

    title: str
    facts: tuple[str, ...]
    unit: str
    at: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()
    line: tuple[float, ...] = ()
    error: float = 0.0
    limit: float = 0.0
    pause: float = 0.0
    notice: str = ""

    @property
    def below(self) -> list[str]:
        """What stands under the picture."""
        if self.notice:
            return []
        return [
            f"line: means of three neighbours, ± one standard error ({self.error:.1%})",
            f"beyond ± {self.limit:.1%} cells are flagged as drifted; beyond ± {self.pause:.1%} a sweep pauses",
        ]


def collect(rows: Sequence[Controls], options: PlotOptions) -> list[DriftData]:  # noqa: ARG001 - as of every plot
    """What the pictures show, one for each sweep."""
    return [_data(one) for one in rows]


def _data(one: Controls) -> DriftData:
    title = "Drift of the machine: the control cell against its first load"
    named = tuple(filter(None, (f"sweep {one.sweep}" if one.sweep else "", one.machine)))
    points = [point for point in one.points if point.rate > 0]
    if len(points) < 2:
        return DriftData(title, named, "s", notice="no control loads yet: `control` measures them")
    about, line, first = drift_of(points, one.spreads), line_of(points), math.log(points[0].rate)
    unit, seconds, _ = next(unit for unit in UNITS if points[-1].at_s <= unit[2])
    facts = (
        f"{len(points)} loads, the first {format_rate(points[0].rate)} tokens/s",
        f"now {about.words}",
        *named,
    )
    return DriftData(
        title, facts, unit, tuple(point.at_s / seconds for point in points),
        tuple(point.rate / points[0].rate - 1 for point in points), tuple(math.expm1(log - first) for log in line.logs),
        line.error, about.limit, about.pause_limit,
    )  # fmt: skip


# -- drawing ---------------------------------------------------------------------------------------------------------


def draw(data: DriftData, axes: Any) -> None:
    """Draw the loads and the line into matplotlib's axes."""
    with figures.style():
        _draw(data, axes)


def save_all(rows: Sequence[Controls], options: PlotOptions, folder: Path, *, suffix: str = ".png") -> list[Path]:
    """Write the pictures into a folder as drift, or drift_SWEEP of several; their paths. Raises StorageError."""
    names = [f"{NAME}{f'_{safe_name(one.sweep)}' if len(rows) > 1 else ''}{suffix}" for one in rows]
    return figures.write_each(zip([folder / name for name in names], collect(rows, options), strict=True), make_figure)


def make_figure(data: DriftData) -> Any:
    """The whole picture."""
    return chart.make_figure(HIGH, data.facts, data.below, partial(_draw, data))


def _draw(data: DriftData, axes: Any) -> None:
    chart.name_axes(axes, f"time since the first load ({data.unit})", "faster or slower than the first load (%)")
    if not chart.begin(axes, data.title, data.facts, data.notice, grid="y"):
        return
    reach = max([data.limit, *map(abs, data.shares), *map(abs, data.line)])
    axes.axhspan(-100 * data.limit, 100 * data.limit, color=PALETTE[2], alpha=0.12, linewidth=0, zorder=0)
    axes.axhline(0, color=TEXT_GREY, linewidth=1.0, zorder=1)
    for sign in (1, -1):
        axes.axhline(sign * 100 * data.limit, color=PALETTE[2], linewidth=1.2, linestyle="--", zorder=1)
        if reach > SHOWN_ABOVE * data.pause:
            axes.axhline(sign * 100 * data.pause, color="#d00000", linewidth=1.2, linestyle=":", zorder=1)
    low = [100 * ((1 + share) * math.exp(-data.error) - 1) for share in data.line]
    high = [100 * ((1 + share) * math.exp(data.error) - 1) for share in data.line]
    axes.fill_between(data.at, low, high, color=PALETTE[0], alpha=0.2, linewidth=0, zorder=2)
    axes.plot(data.at, [100 * share for share in data.line], color=PALETTE[0], linewidth=2.2, zorder=3)
    axes.plot(data.at, [100 * share for share in data.shares], linestyle="", marker="o", markersize=5.5, color=INK,
              markerfacecolor="white", zorder=4)  # fmt: skip
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:+.3g} %" if value else "0 %")
    axes.set_ylim(-115 * reach, 115 * reach)
    chart.draw_list(axes, data.below)
