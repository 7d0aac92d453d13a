"""Lines and points as a page shows them: plain data of what the plots collect, written as SVG by a template. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ollama_sweep.core.cell import model_label
from ollama_sweep.core.metrics import Metric, metric
from ollama_sweep.core.outcome import Series
from ollama_sweep.core.units import format_bytes
from ollama_sweep.results.grids import X, Y, in_word
from ollama_sweep.results.page.gathering import Gathered
from ollama_sweep.results.page.view import BY_ITSELF, Look, options_of

if TYPE_CHECKING:
    from ollama_sweep.results.page.tiles import Tiled
    from ollama_sweep.results.plots.shared.field import Field

WIDE, HIGH = 720.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 78.0, 12.0, 10.0, 34.0
MOST_OF_TILED, MOST_DOTS = 4, 200
SAME = 1e-6
"""Values that differ by no larger share of themselves are one: it is how they were calculated."""
LETTER, GAP = 6.2, 12.0
"""How wide a letter at the axis is, about, and the room between two words there."""


@dataclass(frozen=True)
class Dot:
    """A point with its bar (equal ends: none) and its words: as it was measured, then in units of the picture."""

    x: float
    y: float
    low: float
    high: float
    words: str
    kind: str = "dot"


@dataclass(frozen=True)
class Tick:
    """A word at an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """A chart: `line` is the path through it, "" for points alone; `words` say all of it for who does not see it."""

    id: str
    title: str
    facts: str
    words: str
    x: str
    y: str
    line: str
    dots: tuple[Dot, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    rules: tuple[float, ...] = ()
    width: float = WIDE
    height: float = HIGH


def chart(
    number: str, title: str, axes: tuple[str, str], points: Sequence[Dot], words: tuple[Metric | None, str], *,
    facts: str = "", ticks: Sequence[tuple[float, str]] = (), line: Sequence[tuple[float, float]] = (),
    rules: Sequence[float] = (),
) -> Chart:  # fmt: skip
    """Points in a frame. `words` are how values of y are written (a metric, or a format), `ticks` those across."""
    of, shape = words
    xs = [point.x for point in points] + [x for x, _ in line]
    ys = [value for point in points for value in (point.low, point.high, point.y)] + [y for _, y in line] + list(rules)
    left, right = _room(min(xs), max(xs), 0.03)
    low, high = _room(min(ys), max(ys), 0.08)
    across = [(value, f"{value:.4g}") for value in _round(left, right)] if not ticks else list(ticks)

    def to_x(value: float) -> float:
        return round(LEFT + (value - left) / (right - left) * (WIDE - LEFT - RIGHT), 1)

    def to_y(value: float) -> float:
        return round(HIGH - BOTTOM - (value - low) / (high - low) * (HIGH - TOP - BOTTOM), 1)

    return Chart(
        number, title, facts, f"{title}: " + "; ".join(point.words for point in points[:60]), *axes,
        " ".join(f"{'L' if at else 'M'}{to_x(x)} {to_y(y)}" for at, (x, y) in enumerate(line)),
        tuple(Dot(to_x(one.x), to_y(one.y), to_y(one.low), to_y(one.high), one.words, one.kind) for one in points),
        tuple(_apart(Tick(to_x(value), word) for value, word in across if left <= value <= right)),
        tuple(_unlike(Tick(to_y(value), of.text(value) if of else shape.format(value) if value else "0")
                      for value in _round(low, high, in_bytes=of is not None and of.is_bytes))),
        tuple(to_y(value) for value in rules),
    )  # fmt: skip


def _room(low: float, high: float, share: float) -> tuple[float, float]:
    is_one = high - low <= SAME * abs(high)
    more = (abs(high) * 0.1 or 1.0) if is_one else (high - low) * share
    return low - more, high + more


def _round(low: float, high: float, *, in_bytes: bool = False) -> list[float]:
    """Four to nine values that are written shortly: steps of 1, 2 or 5 times a power of ten, of bytes in KiB, MiB …"""
    if in_bytes and high > 1:
        unit = 1024.0 ** math.floor(math.log(high, 1024))
        return [unit * value for value in _round(low / unit, high / unit)]
    tenth = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = tenth * max(factor for factor in (1, 2, 5) if factor * tenth <= (high - low) / 4)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [at * step for at in range(first, last + 1)]


def _unlike(ticks: Iterable[Tick]) -> Iterator[Tick]:
    """Those that say something else than the one before."""
    last = ""
    for tick in ticks:
        if tick.text != last:
            last = tick.text
            yield tick


def _apart(ticks: Iterable[Tick]) -> Iterator[Tick]:
    """Those that do not stand in one another's words."""
    end = 0.0
    for tick in sorted(ticks, key=lambda tick: tick.at):
        half = LETTER * len(tick.text) / 2
        if tick.at - half >= end:
            end = tick.at + half + GAP
            yield tick


# -- what there is of a sweep ----------------------------------------------------------------------------------------


def of_sweep(name: str, gathered: Gathered, look: Look = BY_ITSELF) -> list[Chart]:
    """The best batch of each context, speed against what it costs, and the drift; those that say something."""
    found = [] if gathered.is_large else [*_best_batches(name, gathered, look), *_fronts(name, gathered)]
    return [*found, *_drift(name, gathered)]


def _best_batches(name: str, gathered: Gathered, look: Look) -> Iterator[Chart]:
    from ollama_sweep.results.plots import best_batch

    for number, data in enumerate(best_batch.collect(gathered.cells, options_of(gathered, look))):
        points = []
        for at, (context, column) in enumerate(zip(data.contexts, data.columns, strict=True)):
            if column.best is None or column.value is None:
                continue
            edge = (
                "" if column.out_from is None else f", out of memory from {in_word(data.batches[column.out_from])} on"
            )
            batch = in_word(data.batches[column.best])
            said = f"num_ctx {in_word(context)}: num_batch {batch}, {data.metric.with_unit(column.value)}{edge}"
            points.append(Dot(at, column.value, column.low, column.high, said))
        if len(points) > 1:
            ticks = [(float(at), in_word(context)) for at, context in enumerate(data.contexts)]
            yield chart(f"{name}-batch{number}", data.title, ("num_ctx", _axis(data.metric)), points,
                        (data.metric, ""), facts="  ·  ".join(data.facts), ticks=ticks)  # fmt: skip


def of_tiled(name: str, tiled: Sequence[Tiled]) -> list[Chart]:
    """The best batch of each context of very many cells, of some contexts where they are too many to be told apart."""
    found = (_best_batches_of(f"{name}-batch{number}", one.field) for number, one in enumerate(tiled[:MOST_OF_TILED]))
    return [one for one in found if one is not None]


def _best_batches_of(number: str, made: Field) -> Chart | None:
    import numpy as np

    about = made.about
    if (about.x, about.y) != (X, Y) or not about.metric.better or not np.isfinite(made.values).any():
        return None
    sign = 1.0 if about.metric.better > 0 else -1.0
    ranked = np.where(np.isfinite(made.values), sign * made.values, -np.inf)
    best, step = ranked.argmax(axis=0), max(1, -(-len(about.columns) // MOST_DOTS))
    points = []
    for at in range(0, len(about.columns), step):
        value = float(made.values[best[at], at])
        if np.isfinite(value):
            batch = in_word(about.rows[int(best[at])])
            said = f"num_ctx {in_word(about.columns[at])}: num_batch {batch}, {about.metric.with_unit(value)}"
            points.append(Dot(at, value, value, value, said))
    if len(points) < 2:
        return None
    model = f"{model_label(about.model)}: " if about.model else ""
    facts = [*about.facts, f"one of {step} num_ctx" if step > 1 else ""]
    ticks = [(float(at), in_word(context)) for at, context in enumerate(about.columns)]
    return chart(number, f"{model}best num_batch of each num_ctx, by {about.metric.words}",
                 (X, _axis(about.metric)), points, (about.metric, ""), facts="  ·  ".join(filter(None, facts)),
                 ticks=ticks)  # fmt: skip


def _fronts(name: str, gathered: Gathered) -> Iterator[Chart]:
    from ollama_sweep.results.plots import pareto

    for number, data in enumerate(pareto.collect(gathered.cells, options_of(gathered))):
        if data.notice or len(data.front) + len(data.rest) < 2:
            continue
        points = [
            Dot(one.across, one.speed, one.low, one.high, f"{one.name}: {data.speed.with_unit(one.speed)}, "
                  f"{data.across.words} {data.across.with_unit(one.across)}", kind)
            for kind, several in (("rest", data.rest), ("dot", data.front)) for one in several
        ]  # fmt: skip
        line = [(one.across, one.speed) for one in data.front]
        ticks = [(one.across, data.across.text(one.across)) for one in data.front]
        yield chart(f"{name}-front{number}", data.title, (_axis(data.across), _axis(data.speed)), points,
                    (data.speed, ""), facts="  ·  ".join(data.facts), ticks=ticks, line=line)  # fmt: skip


def _drift(name: str, gathered: Gathered) -> Iterator[Chart]:
    from ollama_sweep.results.plots import drift

    if len(gathered.points) < 2:
        return
    row = gathered.row
    controls = drift.Controls(row.name, gathered.points, row.machine, gathered.spreads.get("prompt_eval_rate"))
    for data in drift.collect([controls], options_of(gathered)):
        if data.notice:
            continue
        points = [Dot(at, share, share, share, f"after {at:.3g} {data.unit}: {share:+.1%}")
                  for at, share in zip(data.at, data.shares, strict=True)]  # fmt: skip
        facts = "  ·  ".join([*data.facts, *data.below])
        axes = f"{data.unit} since the first load", "faster or slower than the first load"
        yield chart(f"{name}-drift", data.title, axes, points, (None, "{:+.1%}"), facts=facts,
                    line=list(zip(data.at, data.line, strict=True)), rules=[-data.limit, data.limit])  # fmt: skip


def _axis(of: Metric) -> str:
    return f"{of.words} ({of.unit})" if of.unit and not of.is_bytes else of.words


# -- what sensors said while a cell was measured ---------------------------------------------------------------------


def of_series(name: str, series: Series) -> list[Chart]:
    """A chart for each quantity, over the seconds of the attempt."""
    found = []
    for number, (quantity, line) in enumerate(series.lines.items()):
        known = [(at * series.step_s, value) for at, value in enumerate(line.points) if value is not None]
        if len(known) < 2 or not series.step_s:
            continue
        of = metric(quantity) if quantity.endswith("_bytes") else None
        low, high = (format_bytes(value) if of else f"{value:.3g}" for value in (line.low, line.high))
        points = [Dot(x, y, y, y, f"{x:.3g} s: {of.text(y) if of else f'{y:.3g}'}") for x, y in known]
        found.append(chart(f"{name}-{number}", f"{quantity}: {low} to {high}", ("s from the load on", quantity), points,
                           (of, "{:.3g}"), line=known))  # fmt: skip
    return found
