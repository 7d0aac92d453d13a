"""What each page says, as HTML: the same parts as the report, each by itself, with links for every state."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import CellResult, Status
from ollama_sweep.core.text import harmless
from ollama_sweep.results.grids import Grid, X, Y, in_order, in_word, value_at
from ollama_sweep.results.large.kept import Sheets
from ollama_sweep.results.page import charts, maps, rendering, svg, tables, view
from ollama_sweep.results.page.gathering import MOST_CELLS, MOST_MAPS, Gathered, gather
from ollama_sweep.results.page.maps import Map
from ollama_sweep.results.page.tables import Table
from ollama_sweep.results.pictures import is_many
from ollama_sweep.results.plots.shared.heatmap_data import HeatmapData
from ollama_sweep.results.status import SweepStatus, status_of
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.rows import SweepRow
from ollama_sweep.web import asked as asking
from ollama_sweep.web.asked import ONLY, ROWS, Asked
from ollama_sweep.web.library import Told

if TYPE_CHECKING:
    from ollama_sweep.results.page.ratios import Only
    from ollama_sweep.web.pulses import Shape

TEMPLATES = Path(__file__).parent / "templates"
MOST_OPTIONS = 100
"""Values in a list of the form."""
_ENDS = ("_low", "_high", "_min", "_max")
_EXTENT = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d) to (\d{4}-\d\d-\d\d \d\d:\d\d) UTC")
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d)?)(?:\.\d+)?(?:\+00:00| UTC|Z)")


@dataclass(frozen=True)
class Choice:
    """A field of the form: its name, its label, the values with their words, and the one that is chosen.

    `is_typed`: they are too many for a list.
    """

    name: str
    label: str
    values: tuple[tuple[str, str], ...]
    chosen: str
    is_typed: bool = False


@dataclass(frozen=True)
class Row:
    """A sweep in the list of all."""

    name: str
    link: str
    engine: str
    machine: str
    done: int
    total: int
    words: str
    last_run_at: str


def page(template: str, **given: Any) -> str:
    """A whole page."""
    return str(rendering.part(template, TEMPLATES, moments=moments, **given))


def moments(text: str) -> Markup:
    """Text in which each time can be shown in the reader's own zone."""
    found = _EXTENT.sub(r"\1 UTC to \2 UTC", str(escape(harmless(text))))
    return Markup(_MOMENT.sub(r'<time datetime="\1T\2Z">\1 \2 UTC</time>', found))  # noqa: S704 - escaped above


def row_of(reader: Reader, asked: Asked) -> SweepRow:
    """The sweep that is asked for, else the one that ran last. Raises ConfigError."""
    if asked.sweep:
        return reader.sweep(asked.sweep)
    found = reader.last_sweep()
    if found is None:
        raise ConfigError("no sweep was begun in this database yet")
    return found


def cell_link(row: SweepRow) -> Callable[[CellResult], str]:
    """Where a cell has a page of its own."""
    base = Asked(sweep=row.name).link("cell")
    return lambda cell: f"{base}&at={cell.row['position']}"


# -- a sweep ---------------------------------------------------------------------------------------------------------


def sweep_parts(reader: Reader, asked: Asked, told: Told, sheets: Sheets) -> dict[str, Any]:
    """All that a sweep's page is made of. Raises ConfigError for what the sweep does not have."""
    row = row_of(reader, asked)
    asked.check(row.dimensions)
    if is_many(reader.counts(row.sweep_id), MOST_CELLS):
        found = _many_parts(reader, row, asked, sheets)
    else:
        found = _few_parts(reader, row, asked, sheets)
    gathered, count = found["gathered"], found["count"]
    return {
        "sweep": {"name": row.name, "verdict": tuple(view.verdict(gathered)), "notices": found["notes"]},
        "row": row, "asked": asked, "facts": tuple(view.facts(gathered)), "pages": _pages(asked, count),
        "repeats": tuple(told.repeats(reader, row, gathered)), "status": progress(reader, row, told),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"), "warnings": reader.warnings(), **found,
    }  # fmt: skip


def _few_parts(reader: Reader, row: SweepRow, asked: Asked, sheets: Sheets) -> dict[str, Any]:
    """What is shown of a sweep whose cells are all read."""
    gathered = gather(reader, row)
    asking.check_values(asked, lambda name: [value_at(cell, name) for cell in gathered.cells])
    chosen = replace(gathered, cells=asked.chosen(gathered.cells))
    drawn = [] if asked.against else view.drawn_of(chosen, asked.look)[:MOST_MAPS]
    only: Only = (None, None)
    if asked.against and is_many(reader.counts(reader.sweep(asked.against).sweep_id)):
        from ollama_sweep.web import many

        values = {name: {value_at(cell, name) for cell in gathered.cells} for name in row.dimensions}
        only = many.places_beside(reader, row, asked, values, sheets), None
    found, left_out = _maps(reader, asked, row, chosen, drawn, only)
    notes = [*view.notices(gathered), *(() if asked.against else left_out)]
    if asked.is_filtered:
        notes.append(f"{len(chosen.cells)} of {gathered.total} cells are chosen.")
    return {
        "gathered": gathered, "count": len(chosen.cells), "maps": found,
        "compared": left_out if asked.against else [], "drawn": drawn, "tiled": (), "notes": notes,
        "charts": charts.of_sweep("s1", chosen, asked.look) if chosen.cells else charts.of_sweep("s1", gathered),
        "tables": tuple(view.tables_of("s1", chosen, cells=False)), "cells": _cells(chosen, asked),
        "choices": _choices(reader, asked, gathered, lambda name: _values(gathered.cells, name),
                            sorted({str(flag) for cell in gathered.cells for flag in cell.flags})),
        "part": "", "steps": (),
    }  # fmt: skip


def _many_parts(reader: Reader, row: SweepRow, asked: Asked, sheets: Sheets) -> dict[str, Any]:
    """The same of a sweep of very many."""
    from ollama_sweep.web import many

    with sheets.of(reader, row) as sheet:
        found = many.shown(reader, row, asked, sheet)
        choices = _choices(reader, asked, found.gathered, lambda name: many.values_of(sheet, name),
                           many.flags_of(sheet))  # fmt: skip
        only: Only = many.both_places(reader, row, asked, sheet, sheets) if asked.against else (None, None)
    shown, compared = list(found.maps), list[str]()
    if asked.against:
        shown, compared = _maps(reader, asked, row, found.gathered, (), only)
    return {**vars(found), "maps": shown, "compared": compared, "choices": choices}


def progress(reader: Reader, row: SweepRow, told: Told) -> dict[str, Any]:
    """How far it is, in the words of `status`."""
    found = status_of(reader, row, is_quick=is_many(reader.counts(row.sweep_id)))
    first, *lines = told.status(found)
    return {"first": first, "lines": [line.strip() for line in lines], "done": found.done, "total": found.total,
            "state": state_of(found), "is_running": found.process is not None,
            "is_paused": found.is_paused}  # fmt: skip


def state_of(found: SweepStatus) -> str:
    """One word for where it stands."""
    if found.process is not None:
        return "waits" if found.waiting else "runs"
    if found.done >= found.total or (found.goal is not None and found.goal.is_reached):
        return "finished"
    return "stopped"


def cell_anew(data: HeatmapData, grid: Grid, result: CellResult, row: SweepRow) -> tuple[str, str] | None:
    """A cell of a map that has changed: its place and its SVG, in which secrets are not hidden yet; None where it is
    not in this map.
    """
    cell = maps.changed(data, grid, result, cell_link(row))
    if cell is None:
        return None
    room = maps.Room(len(data.columns), len(data.rows), maps.left_of(data.y, data.rows))
    return f"{cell.column},{cell.row}", svg.map_cell(cell, room)


def tiles_anew(
    reader: Reader, row: SweepRow, shape: Shape, sheets: Sheets, most: int
) -> Iterator[tuple[str, str, str]]:
    """The tiles of these maps whose cells have had an attempt since: the map, the place, and the SVG; secrets as
    above.
    """
    with sheets.of(reader, row) as sheet:
        shape.last_attempt, positions = reader.touched_since(row.sweep_id, shape.last_attempt, 50 * most)
        rows = sheet.rows_of(positions)
        for tiled in shape.tiled:
            found = sheet.numbers_of(reader, tiled.part.metric.name)
            for place in tiled.put(found, rows)[:most]:
                cell = tiled.tile(*place)
                if cell is not None:
                    yield tiled.id, f"{cell.column},{cell.row}", svg.map_cell(cell, tiled.room)


def _maps(
    reader: Reader, asked: Asked, row: SweepRow, chosen: Gathered, drawn: Sequence[tuple[HeatmapData, Grid]],
    only: Only,
) -> tuple[list[Map], list[str]]:  # fmt: skip
    if not asked.against:
        return view.maps_of("s1", chosen, asked.look, cell_link(row), drawn=drawn or None)
    from ollama_sweep.results.page import ratios

    return ratios.against("s1", reader.path, row.name, reader.sweep(asked.against).name, asked.metric or None,
                          only)  # fmt: skip


def _cells(chosen: Gathered, asked: Asked) -> Table:
    """One page of the table of all cells."""
    start, count = (asked.page - 1) * ROWS, len(chosen.cells)
    if asked.page > 1 and start >= count:
        raise ConfigError(f"{asked.page} is behind the last page, {-(-count // ROWS)}", "page")
    found = tables.cell_table("s1", replace(chosen, cells=chosen.cells[start : start + ROWS]))
    return replace(found, is_long=False, note="")


def _pages(asked: Asked, count: int) -> dict[str, Any]:
    last = max(1, -(-count // ROWS))
    return {
        "at": asked.page, "last": last, "cells": count,
        "before": asked.link(page=asked.page - 1) + "#cells" if asked.page > 1 else "",
        "next": asked.link(page=asked.page + 1) + "#cells" if asked.page < last else "",
    }  # fmt: skip


def _choices(
    reader: Reader, asked: Asked, gathered: Gathered, values_of: Callable[[str], Sequence[Scalar]],
    flags: Sequence[str],
) -> list[Choice]:  # fmt: skip
    """The form: whatever a link can say."""
    cells, row = gathered.cells, gathered.row
    names = sorted({name for cell in cells for name in cell.metrics if not name.endswith(_ENDS)})
    dimensions = list(dict.fromkeys([*row.dimensions, X, Y, "model", "task"]))
    own = [("", "by itself")]
    found = [Choice("metric", "number", (*own, *((name, name) for name in names)), asked.metric)]
    across, down = [("", X), *((name, name) for name in dimensions if name != X)], [
        ("", Y), *((name, name) for name in dimensions if name != Y)]  # fmt: skip
    found += [Choice("x", "across", tuple(across), asked.x), Choice("y", "down", tuple(down), asked.y)]
    only = dict(asked.only)
    for name in dimensions:
        words = [in_word(value) for value in values_of(name)]
        if len(words) > 1:
            options = [("", "all"), *((word, word) for word in words)]
            found.append(Choice(f"{ONLY}{name}", name, tuple(options), only.get(name, ""), len(words) > MOST_OPTIONS))
    statuses = [str(status) for status in Status if gathered.counts.get(status)]
    for name, known, chosen in (("status", statuses, asked.status), ("flag", flags, asked.flag)):
        if len(known) > (name == "status"):
            found.append(Choice(name, name, (("", "all"), *((word, word) for word in known)), chosen))
    others = [one.name for one in reader.sweeps() if one.name != row.name]
    if others:
        found.append(
            Choice("against", "ratio against", (("", "no other sweep"), *((o, o) for o in others)), asked.against)
        )
    return found


def _values(cells: Sequence[CellResult], name: str) -> list[Scalar]:
    found = {value_at(cell, name) for cell in cells}
    return sorted(found, key=in_order)


# -- other pages -----------------------------------------------------------------------------------------------------


def all_sweeps(reader: Reader) -> list[Row]:
    """Every sweep of the database, the one that ran last first."""
    found = []
    for row in reader.sweeps():
        counts = reader.counts(row.sweep_id)
        done = sum(count for status, count in counts.items() if status.is_final)
        words = ", ".join(f"{count:,} {status}" for status, count in counts.items())
        found.append(Row(row.name, Asked(sweep=row.name).link("./"), row.engine, row.machine, done,
                         sum(counts.values()), words, row.last_run_at))  # fmt: skip
    return found


def cell_parts(reader: Reader, asked: Asked, position: int, told: Told) -> dict[str, Any]:
    """All that is known of a cell. Raises ConfigError."""
    from ollama_sweep.results.explain import explain, place_at

    row = row_of(reader, asked)
    found = explain(reader, row, place_at(reader, row, str(position), "at"))
    series = found.last.telemetry if found.last else None
    return {
        "row": row, "asked": asked, "position": position, "total": found.total,
        "place": found.place.coordinates, "lines": list(told.explained(found)),
        "charts": charts.of_series("cell", series) if series else [],
        "commands": list(told.commands(row, found.planned, found.place.coordinates)),
        "before": _neighbour(row, position - 1) if position > 0 else "",
        "next": _neighbour(row, position + 1) if position + 1 < found.total else "",
    }  # fmt: skip


def _neighbour(row: SweepRow, position: int) -> str:
    return f"{Asked(sweep=row.name).link('cell')}&at={position}"
