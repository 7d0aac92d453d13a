"""The ratio of a sweep to another one as maps of a page: what the plot `ratio` collects, blue where it is better."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from ollama_sweep.core.options import Scalar
from ollama_sweep.results.compare import telling
from ollama_sweep.results.compare.comparing import Comparison, compare
from ollama_sweep.results.compare.rule import Verdict
from ollama_sweep.results.grids import in_words
from ollama_sweep.results.page import colours, maps
from ollama_sweep.results.page.maps import Map, MapCell, Room
from ollama_sweep.results.plots import PlotOptions, ratio
from ollama_sweep.results.plots.ratio import RatioData, RatioMark
from ollama_sweep.results.plots.shared.heatmap_data import CellMark, Kind
from ollama_sweep.results.plots.shared.heatmap_legend import Entry, Look

RED_TO_BLUE = ("#b2182b", "#d6604d", "#f4a582", "#fddbc7", "#f7f7f7", "#d1e5f0", "#92c5de", "#4393c3", "#2166ac")
"""matplotlib's RdBu: people with any kind of colour blindness tell its ends apart; white is no change."""
SIGNS = {Verdict.SLOWER: "▼", Verdict.FASTER: "▲", Verdict.CANNOT_TELL: "?", Verdict.SAME: "="}
_UNTOLD = (Verdict.SAME, Verdict.CANNOT_TELL)


Only = tuple[Sequence[int] | None, Sequence[int] | None]
"""The places of the plan of the other sweep, and of this one, that are compared; None for all."""


def against(
    number: str, db: Path, sweep: str, other: str, metric: str | None, only: Only = (None, None)
) -> tuple[list[Map], list[str]]:
    """The maps of a sweep against another one of the same database, and what `compare` says of all of it, or of a part.

    Raises ConfigError where the two cannot be compared.
    """
    found = compare(f"{db}:{other}", f"{db}:{sweep}", db=db, metric=metric, only=only)
    options = PlotOptions(sweep=f"{sweep} against {other}")
    shown = [of_ratio(f"{number}-ratio{at}", data) for at, data in enumerate(ratio.collect(found.parts, options))]
    part = f"Judged by the loads of these cells alone; all of them: ollama-sweep compare {other} {sweep}."
    return shown, [*_words(found), *([part] if only != (None, None) else [])]


def _words(found: Comparison) -> Iterator[str]:
    yield from telling.head(found)
    for part in found.parts:
        yield from telling.summary(found, part)


def of_ratio(number: str, data: RatioData) -> Map:
    """One map."""
    room = Room(len(data.columns), len(data.rows), maps.left_of(data.y, data.rows))
    across = {value: at for at, value in enumerate(data.columns)}
    down = {value: at for at, value in enumerate(data.rows)}
    cells = [_cell(data, place, mark, room, (across[place[0]], down[place[1]])) for place, mark in data.cells.items()]
    cells.sort(key=lambda cell: (cell.row, cell.column))
    legend = [Entry(Look.SYMBOL, f"{word}: {count} cells", _sign(data, word)) for word, count in data.counts().items()]
    ticks = [telling.change(math.exp(data.better * data.reach * at / 2)) for at in range(-2, 3)]
    return maps.around(
        number, data.title, "  ·  ".join(data.facts), room, (data.x, data.y), (data.columns, data.rows), cells, legend,
        ticks=ticks, bar=[_colour(at / 15) for at in range(16)], unit=f"{data.words[0]} to {data.words[1]}",
    )  # fmt: skip


def _cell(
    data: RatioData, place: tuple[Scalar, Scalar], mark: RatioMark, room: Room, at: tuple[int, int]
) -> MapCell:  # fmt: skip
    corner = room.left + at[0] * room.wide, at[1] * room.high
    fill = "" if mark.better is None else _colour((mark.better / data.reach + 1) / 2)
    is_told = mark.verdict is not None and mark.verdict not in _UNTOLD
    sign = SIGNS.get(mark.verdict, "") if mark.verdict else ""
    kind = Kind.MEASURED if fill else Kind.FAILED if is_told else Kind.SKIPPED
    shown = CellMark(Kind.MEASURED, f"{sign} {mark.label}".strip(), mark.better if fill else None, best=False)
    said = f"{in_words([(data.x, place[0]), (data.y, place[1])])}: {mark.word}, {mark.label}."
    return MapCell(
        at[0], at[1], round(corner[0], 1), round(corner[1], 1), str(kind), ("tied",) if is_told and fill else (), fill,
        colours.ink(fill) if fill else "", tuple(maps.texts(shown, room, corner)), said,
    )  # fmt: skip


def _colour(share: float) -> str:
    return colours.between(RED_TO_BLUE, min(1.0, max(0.0, share)))


def _sign(data: RatioData, word: str) -> str:
    verdicts = {mark.word: mark.verdict for mark in data.cells.values()}
    found = verdicts.get(word)
    return SIGNS.get(found, "") if found is not None else ""
