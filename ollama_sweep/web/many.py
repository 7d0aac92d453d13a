"""The page of a sweep of very many cells: maps in tiles that lead to their parts, and the cells where they are few.

Of what is kept of the sweep, so that only what has changed is read.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

import numpy as np

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.options import Options, Scalar
from ollama_sweep.core.outcome import CellResult, Flag
from ollama_sweep.results.grids import Grid, in_order, in_word
from ollama_sweep.results.large.columns import Columns, compact, flag_set
from ollama_sweep.results.page import charts, tables, tiles, view
from ollama_sweep.results.page.gathering import MOST_CELLS, MOST_MAPS, Gathered, gather
from ollama_sweep.results.page.maps import Map
from ollama_sweep.results.page.tables import Table
from ollama_sweep.results.page.tiles import Area, Tiled
from ollama_sweep.results.pictures import MANY
from ollama_sweep.results.plots.shared.heatmap_data import HeatmapData
from ollama_sweep.web.asked import BETWEEN, ROWS, Asked, check_values, values_within

if TYPE_CHECKING:
    from ollama_sweep.results.large.kept import Sheets
    from ollama_sweep.results.large.sheet import Sheet
    from ollama_sweep.results.page.ratios import Only
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import SweepRow


@dataclass(frozen=True)
class Step:
    """A way from a part of the map to another: its words and its link."""

    words: str
    link: str


@dataclass(frozen=True)
class Shown:
    """What is shown of a sweep of very many cells: the maps as they are drawn, and what they are made of, tiles or
    marks; `cells` is a page of their table, `count` how many are chosen, `steps` lead to other parts.
    """

    gathered: Gathered
    maps: Sequence[Map]
    drawn: Sequence[tuple[HeatmapData, Grid]]
    tiled: Sequence[Tiled]
    notes: Sequence[str]
    charts: Sequence[charts.Chart]
    tables: Sequence[Table]
    cells: Table
    count: int
    part: str
    steps: Sequence[Step]


def shown(reader: Reader, row: SweepRow, asked: Asked, sheet: Sheet) -> Shown:
    """All of it. Raises ConfigError for what the sweep does not have."""
    found = sheet.of_metric(reader, asked.metric or None)
    chosen = rows_of(found, asked)
    count = len(sheet) if chosen is None else len(chosen)
    if asked.against:
        _check_few(count, row, asked)
    gathered = gather(reader, row, sheet)
    notes = [*view.notices(gathered)]
    if asked.is_filtered:
        notes.append(f"{count:,} of {gathered.total:,} cells are chosen.")
    every = np.arange(len(sheet)) if chosen is None else chosen
    drawn: Sequence[tuple[HeatmapData, Grid]] = ()
    tiled: Sequence[Tiled] = ()
    further: list[Table] = []
    read: Sequence[CellResult] | None = None
    if count <= MOST_CELLS:
        read = reader.results_at(row.sweep_id, sheet.positions[every].tolist())
        few = replace(gathered, cells=read, sheet=None)
        drawn = view.drawn_of(few, asked.look)
        made, left_out = view.maps_of("s1", few, asked.look, _cell_link(row), drawn=drawn)
        lines, further = charts.of_sweep("s1", few, asked.look), list(tables.best_tables("s1", few.cells))
    else:
        tiled, there = tiles.of_columns(
            "s1", found, row.machine, most_maps=MOST_MAPS, chosen=chosen, axes=(asked.look.x, asked.look.y),
            link=_zoom(asked), cell_link=_row_link(row, sheet.positions),
        )  # fmt: skip
        made, left_out = [one.map() for one in tiled], view.left_out(there)
        lines = [*charts.of_tiled("s1", tiled), *charts.of_sweep("s1", gathered, asked.look)]
    return Shown(
        gathered, made, drawn[:MOST_MAPS], tiled, [*notes, *left_out], lines,
        [*further, *view.tables_of("s1", gathered, cells=False)], _page(reader, sheet, gathered, every, asked, read),
        count,
        _words(asked), _steps(found, asked),
    )  # fmt: skip


def rows_of(found: Columns, asked: Asked) -> Any | None:
    """The rows that are asked for; None for all of them. Raises ConfigError for a part that there is not."""
    if not asked.is_filtered:
        return None
    check_values(asked, lambda name: _values(found, name))
    kept = np.ones(len(found.coded["status"].codes), bool)
    for name, wanted in asked.only:
        kept &= _where(found, name, lambda value, wanted=wanted: in_word(value) == wanted)  # type: ignore[misc]
    for name, word, where in asked.parts():
        values = values_within(_values(found, name), word, where)
        kept &= _where(found, name, values.__contains__)
    if asked.status:
        kept &= _where(found, "status", lambda value: value == asked.status)
    if asked.flag:
        kept &= _where(found, "flags", lambda value: Flag(asked.flag) in flag_set(value))
    return np.nonzero(kept)[0]


def _where(found: Columns, name: str, holds: Callable[[Scalar], bool]) -> Any:
    known = found.coded[name]
    return np.array([holds(word) for word in known.words] or [False], bool)[known.codes]


def _values(found: Columns, name: str) -> list[Scalar]:
    """The values of a dimension that cells have, in their order."""
    return sorted(found.coded[name].words, key=in_order)


def both_places(reader: Reader, row: SweepRow, asked: Asked, sheet: Sheet, sheets: Sheets) -> Only:
    """Where the cells that are chosen stand in the plan of the sweep that they are held against, and in their own.

    Raises ConfigError where they are too many.
    """
    chosen = rows_of(sheet.columns, asked)
    rows = np.arange(len(sheet)) if chosen is None else chosen
    coded = sheet.columns.coded
    values = {
        name: {coded[name].words[code] for code in compact(coded[name].codes[rows])[0]} for name in row.dimensions
    }
    return places_beside(reader, row, asked, values, sheets), sheet.positions[rows].tolist()


def places_beside(
    reader: Reader, row: SweepRow, asked: Asked, values: Mapping[str, Container[Scalar]], sheets: Sheets
) -> list[int]:  # fmt: skip
    """The places in the plan of the other sweep that have these values of the dimensions that both have.

    Raises ConfigError where they are too many.
    """
    other = reader.sweep(asked.against)
    with sheets.of(reader, other) as sheet:
        kept = np.ones(len(sheet), bool)
        for name in filter(values.__contains__, other.dimensions):
            kept &= _where(sheet.columns, name, values[name].__contains__)
        _check_few(int(kept.sum()), row, asked)
        return [int(position) for position in sheet.positions[kept]]


def _check_few(count: int, row: SweepRow, asked: Asked) -> None:
    """Each load of both sides is read to judge by."""
    if count > MANY:
        raise ConfigError(
            f"{count:,} cells are too many for a ratio here, at most {MANY:,}: choose a part of the map, or let "
            f"ollama-sweep compare {asked.against} {row.name} judge all of them", "against",
        )  # fmt: skip


def values_of(sheet: Sheet, name: str) -> list[Scalar]:
    """The same of a sheet."""
    return _values(sheet.columns, name)


def flags_of(sheet: Sheet) -> list[str]:
    """The flags that cells have."""
    return sorted({str(flag) for word in sheet.columns.coded["flags"].words for flag in flag_set(word)})


# -- links -----------------------------------------------------------------------------------------------------------


def _cell_link(row: SweepRow) -> Callable[[Any], str]:
    base = Asked(sweep=row.name).link("cell")
    return lambda cell: f"{base}&at={cell.row['position']}"


def _row_link(row: SweepRow, positions: Any) -> Callable[[int], str]:
    base = Asked(sweep=row.name).link("cell")
    return lambda number: f"{base}&at={positions[number]}"


def _zoom(asked: Asked) -> Callable[[Area], str]:
    """Where a part of a map is shown by itself, with what else was chosen."""

    @cache
    def others(combination: Options) -> str:
        more = {name: in_word(value) for name, value in combination if name not in (asked.look.x, asked.look.y)}
        only = tuple(sorted({**more, **dict(asked.only)}.items()))
        return asked.link("./", across="", down="", only=only, page=1)

    @cache
    def ends(first: Scalar, last: Scalar) -> str:
        return quote_plus(_between((first, last)))

    def link(area: Area) -> str:
        base = others(area.others)
        return f"{base}{'&' if '?' in base else '?'}across={ends(*area.across)}&down={ends(*area.down)}"

    return link


def _between(ends: Sequence[Scalar]) -> str:
    first, last = in_word(ends[0]), in_word(ends[-1])
    return first if first == last else f"{first}{BETWEEN}{last}"


def _words(asked: Asked) -> str:
    """The part of the map that is shown."""
    return ", ".join(f"{name} {word.replace(BETWEEN, ' to ')}" for name, word, _ in asked.parts())


def _steps(found: Columns, asked: Asked) -> list[Step]:
    """Out of the part that is shown, and to those beside it."""
    parts = {where: (name, word) for name, word, where in asked.parts()}
    if not parts:
        return []
    steps = [Step("All of the map", asked.link("./", across="", down="", page=1))]
    wider: dict[str, object] = {}
    for where, (name, word) in parts.items():
        values = _values(found, name)
        here = sorted(values_within(values, word, where), key=in_order)
        first, size = values.index(here[0]), len(here)
        low = max(0, first - 2 * size)
        wide = values[low : low + 5 * size]
        wider[where] = "" if len(wide) == len(values) else _between(wide)
        ways = ("left", "right") if where == "across" else ("up", "down")
        for way, at in ((ways[0], max(0, first - size)), (ways[1], min(first + size, max(0, len(values) - size)))):
            if at != first:
                steps.append(
                    Step(f"One {way}", asked.link("./", **{where: _between(values[at : at + size]), "page": 1}))
                )
    return [steps[0], Step("Five times as much", asked.link("./", **wider, page=1)), *steps[1:]]


# -- the table of cells ----------------------------------------------------------------------------------------------


def _page(
    reader: Reader, sheet: Sheet, gathered: Gathered, rows: Any, asked: Asked, known: Sequence[CellResult] | None
) -> Table:  # fmt: skip
    """One page of it, which is read alone where not all of them are known."""
    start = (asked.page - 1) * ROWS
    if asked.page > 1 and start >= len(rows):
        raise ConfigError(f"{asked.page} is behind the last page, {-(-len(rows) // ROWS)}", "page")
    wanted = sheet.positions[rows[start : start + ROWS]].tolist()
    if known is None:
        cells = reader.results_at(gathered.row.sweep_id, wanted)
    else:
        here = set(wanted)
        cells = [cell for cell in known if cell.row["position"] in here]
    return replace(tables.cell_table("s1", replace(gathered, cells=cells)), is_long=False, note="")
