"""What each load said, how far runs and loads differ in a segment of a sweep, and what that makes of an interval.

The sums behind a spread are kept beside it, so that one more load costs the same at a million cells.
"""

# ruff: noqa: S608 - what is put into SQL here are our own names of columns; values are always bound
from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ollama_sweep.core.noise.spread import Load, Spread, Spreads, Sums, half_width, sums_of
from ollama_sweep.core.summary import PROMPT_RATE
from ollama_sweep.store import checksum, values
from ollama_sweep.store.loads import stored as stored_loads
from ollama_sweep.store.loads.stored import StoredLoad
from ollama_sweep.store.values import Notes

_SAID = ("v.log_median", "v.runs", "v.squares")
_BESIDE = f"""attempts AS this CROSS JOIN attempts AS a ON {stored_loads.same_time("a", "this")}
        AND {stored_loads.same_choice("a", "this")} AND a.id <> this.id
    JOIN load_values AS v ON v.attempt_id = a.id AND v.metric = :metric WHERE this.id = :attempt_id"""


def add(connection: sqlite3.Connection, attempt_id: int, found: Mapping[str, Load]) -> None:
    """Store what a load said by metric, and bring the spreads of its sweep and segment up to date."""
    for metric, load in found.items():
        bound = {"metric": metric, "attempt_id": attempt_id}
        before = [Load(*said) for _, said in stored_loads.read(connection, _BESIDE, _SAID, bound=bound)]
        keep(connection, attempt_id, metric, load)
        _add(connection, attempt_id, metric, sums_of([*before, load]).plus(sums_of(before), -1))


def keep(connection: sqlite3.Connection, attempt_id: int, metric: str, load: Load) -> None:
    """Store what a load said, and leave the spreads as they are."""
    connection.execute(
        "INSERT INTO load_values (attempt_id, metric, log_median, runs, squares) VALUES (?, ?, ?, ?, ?)",
        (attempt_id, metric, load.log_median, load.runs, load.squares),
    )
    checksum.seal_rows(connection, "load_values", "attempt_id = ? AND metric = ?", (attempt_id, metric))


def _add(connection: sqlite3.Connection, attempt_id: int, metric: str, more: Sums) -> None:
    place = _place(connection, attempt_id, metric)
    if place["segment_id"] is None:
        return
    spreads = _save(connection, place, _sums_at(connection, place).plus(more))
    shapes = connection.execute(f"SELECT loads, runs FROM intervals WHERE {_AT}", place).fetchall()
    _set_factors(connection, place, spreads, shapes)


def _save(connection: sqlite3.Connection, place: Mapping[str, object], sums: Sums) -> Spreads:
    spreads = sums.spreads
    connection.execute(
        f"""INSERT OR REPLACE INTO spreads (sweep_id, segment_id, metric, runs_spread, loads_spread, {", ".join(_SUMS)})
            VALUES (:sweep_id, :segment_id, :metric, :runs, :loads, {", ".join(f":{name}" for name in _SUMS)})""",
        {
            **place,
            **vars(sums),
            "runs": spreads.runs.sigma if spreads.runs.df else None,
            "loads": spreads.loads.sigma if spreads.loads.df else None,
        },
    )
    return spreads


_SUMS = ("runs_squares", "runs_df", "loads_squares", "loads_df", "of_medians")
_KEY = ("sweep_id", "segment_id", "metric")
_AT = "sweep_id = :sweep_id AND segment_id = :segment_id AND metric = :metric"


def shape(connection: sqlite3.Connection, attempt_id: int, metrics: Iterable[str], *, loads: int, runs: int) -> None:
    """An attempt's numbers speak for so many loads and runs: there is an interval for that.

    `runs` is 0 for what each load has once.
    """
    for metric in metrics:
        place = _place(connection, attempt_id, metric)
        if place["segment_id"] is not None:
            _set_factors(connection, place, _sums_at(connection, place).spreads, [(loads, runs)])


def _place(connection: sqlite3.Connection, attempt_id: int, metric: str) -> dict[str, object]:
    """The row of `spreads` that an attempt belongs to; its segment is None where nobody knows it."""
    row = connection.execute("SELECT sweep_id, segment_id FROM attempts WHERE id = ?", (attempt_id,)).fetchone()
    return {"sweep_id": row[0], "segment_id": row[1], "metric": metric}


def _sums_at(connection: sqlite3.Connection, place: Mapping[str, object]) -> Sums:
    known = connection.execute(f"SELECT {', '.join(_SUMS)} FROM spreads WHERE {_AT}", place).fetchone()
    return Sums(*known) if known else Sums()


def _set_factors(
    connection: sqlite3.Connection,
    place: Mapping[str, object],
    spreads: Spreads,
    shapes: Iterable[tuple[int, int]],
) -> None:
    for loads, runs in shapes:
        half = half_width(spreads, runs=runs, loads=loads)
        connection.execute(
            """INSERT OR REPLACE INTO intervals (sweep_id, segment_id, metric, loads, runs, factor)
                VALUES (:sweep_id, :segment_id, :metric, :loads, :runs, :factor)""",
            {**place, "loads": loads, "runs": runs, "factor": None if half is None else math.exp(half)},
        )


def of_segment(connection: sqlite3.Connection, sweep_id: int, segment_id: int, notes: Notes) -> dict[str, Spreads]:
    """Both spreads of each metric in a segment of a sweep."""
    sql = """SELECT metric, runs_spread, runs_df, loads_spread, loads_df FROM spreads
        WHERE sweep_id = ? AND segment_id = ?"""
    rows = values.rows_of(connection, sql, (sweep_id, segment_id))
    return dict(notes.rows("a spread", _spreads, rows))


def of_sweep(connection: sqlite3.Connection, sweep_id: int, notes: Notes) -> dict[str, Spreads]:
    """The same of the surroundings that the sweep was last measured in."""
    row = connection.execute("SELECT segment_id FROM sweeps WHERE id = ?", (sweep_id,)).fetchone()
    return of_segment(connection, sweep_id, row[0], notes) if row and row[0] is not None else {}


def _spreads(metric: object, runs: object, runs_df: object, loads: object, loads_df: object) -> tuple[str, Spreads]:
    return values.text(metric), Spreads(
        Spread(values.optional_number(runs) or 0.0, values.whole(runs_df)),
        Spread(values.optional_number(loads) or 0.0, values.whole(loads_df)),
    )


_SHAPES = """SELECT DISTINCT a.sweep_id, a.segment_id, v.metric, COALESCE(a.loads, 1),
        CASE WHEN EXISTS (SELECT 1 FROM load_values AS p WHERE p.attempt_id = a.id AND p.metric = ?)
            THEN a.runs ELSE 0 END
    FROM attempts AS a JOIN load_values AS v ON v.attempt_id = a.id WHERE a.segment_id IS NOT NULL"""


def make_again(connection: sqlite3.Connection) -> None:
    """All spreads and intervals anew, of what the loads said that are there: for a database that has lost some."""
    connection.execute("DELETE FROM spreads")
    connection.execute("DELETE FROM intervals")
    rows = [_one(*row) for row in stored_loads.read(connection, _EACH, ("v.metric", *_SAID), _IN_GROUPS)]
    for place, made in _sums_by_place(rows):
        _save(connection, dict(zip(_KEY, place, strict=True)), made)
    for *place, loads, runs in connection.execute(_SHAPES, (PROMPT_RATE,)).fetchall():
        at = dict(zip(_KEY, place, strict=True))
        _set_factors(connection, at, _sums_at(connection, at).spreads, [(loads, runs)])


# -- once more, for `verify` -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StoredSpread:
    """The spreads of a metric in a segment of a sweep as they are stored; `made` are the sums of its loads once more.

    `shapes` maps so many loads and runs to the factor of their interval.
    """

    sweep: str
    segment: int
    metric: str
    sums: Sums | None
    spreads: tuple[float | None, float | None]
    shapes: Mapping[tuple[int, int], float | None]
    made: Sums


_EACH = "load_values AS v JOIN attempts AS a ON a.id = v.attempt_id WHERE a.segment_id IS NOT NULL"
_IN_GROUPS = "a.sweep_id, a.segment_id, v.metric, a.cell_id, COALESCE(a.choice, 0)"


def stored(connection: sqlite3.Connection, notes: Notes) -> Iterator[StoredSpread]:
    """Every spread, with the sums of all its loads made again; one cell's loads in memory at a time."""
    with contextlib.suppress(sqlite3.DatabaseError):
        rows = notes.rows("a load", _one, stored_loads.read(connection, _EACH, ("v.metric", *_SAID), _IN_GROUPS))
        for place, made in _sums_by_place(rows):
            if found := notes.row("a spread", _stored, connection, place, made):
                yield found


def _sums_by_place(rows: Iterable[tuple[StoredLoad, str, Load]]) -> Iterator[tuple[tuple[Any, ...], Sums]]:
    """Sweep, segment and metric, and the sums of all loads there; the rows are in that order."""
    for place, of_place in groupby(rows, key=lambda row: (row[0].sweep_id, row[0].segment_id, row[1])):
        made = Sums()
        for _, of_group in groupby(of_place, key=lambda row: row[0].group):
            made = made.plus(sums_of([load for _, _, load in of_group]))
        yield place, made


def _one(load: StoredLoad, said: tuple[Any, ...]) -> tuple[StoredLoad, str, Load]:
    metric, found = said_of(*said)
    return load, metric, found


def said_of(metric: object, log_median: object, runs: object, squares: object) -> tuple[str, Load]:
    """A row of `load_values`. Raises Unreadable."""
    found = Load(values.number(log_median), values.whole(runs), values.number(squares))
    if found.runs < 1:
        raise values.Unreadable("a load without runs")
    return values.text(metric), found


def _stored(connection: sqlite3.Connection, place: tuple[Any, ...], made: Sums) -> StoredSpread:
    at = dict(zip(_KEY, place, strict=True))
    (sweep,) = connection.execute("SELECT name FROM sweeps WHERE id = ?", place[:1]).fetchone()
    sql = f"SELECT runs_spread, loads_spread, {', '.join(_SUMS)} FROM spreads WHERE {_AT}"
    runs, loads, *sums = connection.execute(sql, at).fetchone() or (None, None)
    shapes = connection.execute(f"SELECT loads, runs, factor FROM intervals WHERE {_AT}", at).fetchall()
    return StoredSpread(
        values.text(sweep), values.whole(place[1]), values.text(place[2]),
        Sums(*map(values.number, sums)) if sums else None,  # type: ignore[arg-type]  # df are whole in the table
        (values.optional_number(runs), values.optional_number(loads)),
        {(of_loads, of_runs): values.optional_number(factor) for of_loads, of_runs, factor in shapes}, made,
    )  # fmt: skip
