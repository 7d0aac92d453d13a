"""Columns of very many cells, packed into texts by SQL's own aggregates: never a row for each cell in Python.

A row costs Python ten times what SQLite takes to find it; a text with a thousand numbers costs what one row does. What
cannot be packed (a separator in a text, a value of another type than its column's) is left to who reads rows.
"""

# ruff: noqa: S608 - what is put into SQL here are our own names of columns; values are always bound
from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ollama_sweep.core.options import Scalar
from ollama_sweep.store.lanes.tables import ANY_DISTURBED
from ollama_sweep.store.memory.tables import LEFT_OUT, SHOWN
from ollama_sweep.store.values import Unreadable
from ollama_sweep.store.view import flags

AT_ONCE = 50_000
"""Cells in one text."""
BETWEEN, WITHIN = "\x1e", "\x1f"
"""What stands between the cells of a text, and between the texts of one cell."""
OPEN = "-"
"""The state of a cell that nothing was done with yet."""
NOTHING = -(2**63) + 1
"""The whole number that stands for none."""
LARGEST = 2**62
"""Numbers from here on may be more than a whole number holds."""
RUNS, LOADS, LOOKS, SEGMENTS = 100_000, 1000, 100, 100_000
"""The shape of an attempt is one whole number, made of these: so many and more of them are not expected."""
DIRECT = ("prompt_eval_rate", "prompt_eval_rate_min", "prompt_eval_rate_max", "prompt_eval_count", "eval_rate",
          "total_duration_s", "load_duration_s", "prompt_eval_duration_s", "size_bytes", "size_vram_bytes")  # fmt: skip
"""Columns of the view that are a column of an attempt as it stands."""

_CELLS = """FROM plan AS p CROSS JOIN cells AS c ON c.id = p.cell_id LEFT JOIN attempts AS a ON a.id = c.attempt_id
    {} WHERE p.sweep_id = :sweep AND p.position """
_REUSED = "LEFT JOIN reused AS r ON r.cell_id = c.id"
_PLACES = ("num_ctx", "num_batch")
_ENDS = ("_min", "_max")
_STATUS = SHOWN.replace("plan.", "p.").replace("cells.", "c.")
_REASON = f"CASE WHEN p.skip = '{LEFT_OUT}' AND c.status = 'pending' THEN p.skip ELSE c.reason END"
_MODEL = "COALESCE(p.model, c.model)"
_ALIKE = f"c.task = :task AND {_MODEL} = :model"
_USUAL = """a.runs = :runs AND a.segment_id IS :segment AND a.sweep_id = :sweep AND a.loads IS :loads
    AND a.choice IS :choice"""
_SHAPE = f"""COALESCE(a.runs, 0) + {RUNS} * (COALESCE(a.loads, 1) + {LOADS} * (COALESCE(a.choice, 0)
    + {LOOKS} * (COALESCE(a.segment_id, 0) + {SEGMENTS} * COALESCE(a.sweep_id, 0))))"""


def _state(flags: str, *, is_plain: str, is_calm: bool, has_usual: bool) -> str:
    """The state of a cell; what most cells have is short, and told without looking at more. `is_plain`: further
    conditions of that; `is_calm`: nothing was found of lanes since that would be a flag.
    """
    is_short = is_plain if is_calm else f"{is_plain} AND false"
    usual = f"({_USUAL})" if has_usual else "true"
    shape = f"CASE WHEN c.status <> 'ok' OR {usual} THEN '' ELSE {_SHAPE} END"
    fields = f" || '{WITHIN}' || ".join([_STATUS, _REASON, flags, shape, "c.task", _MODEL])
    return f"""CASE WHEN a.flags = '' AND c.status = 'ok' AND c.flags = '' AND c.reason = ''{is_short} AND {usual}
            THEN ''
        WHEN c.status = 'pending' AND a.id IS NULL AND p.skip IS NULL AND c.flags = '' AND c.reason = ''{is_plain}
            THEN '{OPEN}'
        WHEN c.status <> 'ok' AND a.flags = '' AND p.skip IS NULL AND c.flags = ''{is_plain}
            THEN c.status || '{WITHIN}' || c.reason
        ELSE {fields} END"""


class Unpackable(Unreadable):
    """These cells are to be read one by one."""


@dataclass(frozen=True)
class Usual:
    """What most attempts' numbers rest on; `shape` is all of it as one whole number, which is told once."""

    runs: int
    loads: int | None
    choice: int | None
    segment: int | None
    shape: int


@dataclass(frozen=True)
class Wanted:
    """What is asked of each cell. `numbers` are columns of the view with what each is multiplied by, so that it can be
    told as a whole number; `texts` further columns. Without `has_state` only numbers are asked, without what is `usual`
    not what an attempt's numbers rest on.
    """

    numbers: Mapping[str, float] = field(default_factory=dict)
    texts: Sequence[str] = ()
    has_state: bool = True
    usual: Usual | None = None


@dataclass(frozen=True)
class Packed:
    """Some cells in the order of the plan, a text for each column: whole numbers with commas between, NOTHING for none.

    `positions` are a text as well, or first and last of them where none is missing. A place of 0 is none. A state is ""
    for `ok` and OPEN for `pending` without any more to say; else status and reason, and then all or none of flags,
    shape (what the numbers of an `ok` attempt rest on; "" for the usual), task and model, which else are `alike`.
    `texts` are literals of SQL. Empty is what was not asked.
    """

    positions: str | tuple[int, int]
    places: Mapping[str, str] = field(default_factory=dict)
    states: str = ""
    numbers: Mapping[str, str] = field(default_factory=dict)
    alike: tuple[str, str] = ("", "")
    texts: Mapping[str, str] = field(default_factory=dict)


def blocks(connection: sqlite3.Connection, sweep_id: int) -> Iterator[tuple[int, int]]:
    """First and last position of each part of the plan that is read at once."""
    (last,) = connection.execute("SELECT max(position) FROM plan WHERE sweep_id = ?", (sweep_id,)).fetchone()
    if last is not None:
        yield from ((first, min(last, first + AT_ONCE - 1)) for first in range(0, last + 1, AT_ONCE))


def between(connection: sqlite3.Connection, sweep_id: int, first: int, last: int, wanted: Wanted) -> Packed:
    """The cells of a part of the plan. Raises Unpackable."""
    bound: dict[str, Scalar] = {"sweep": sweep_id, "first": first, "last": last}
    return _read(connection, "BETWEEN :first AND :last", bound, wanted)


def at(connection: sqlite3.Connection, sweep_id: int, positions: Sequence[int], wanted: Wanted) -> Packed:
    """The cells at these positions. Raises Unpackable."""
    bound: dict[str, Scalar] = {"sweep": sweep_id, "positions": json.dumps(sorted(positions))}
    return _read(connection, "IN (SELECT value FROM json_each(:positions))", bound, wanted)


def _read(connection: sqlite3.Connection, where: str, bound: dict[str, Scalar], wanted: Wanted) -> Packed:
    direct = {name: scale for name, scale in wanted.numbers.items() if name in DIRECT}
    rest = {name: scale for name, scale in wanted.numbers.items() if name not in DIRECT}
    columns = {"count": "count(*)", **_numbers(direct, "a.{}")}
    alike, cells, more = ("", ""), _CELLS.format(""), dict[str, Scalar]()
    if wanted.has_state:
        has_reused, has_disturbed = connection.execute(
            f"SELECT EXISTS (SELECT 1 FROM reused), {ANY_DISTURBED}"
        ).fetchone()
        alike = _first(connection, bound, where)
        more = {"task": alike[0], "model": alike[1], **({} if wanted.usual is None else vars(wanted.usual))}
        own = flags.OWN_FLAGS if has_disturbed else flags.STORED_FLAGS
        state = _state(
            flags.flags(own) if has_reused else own,
            is_plain=f" AND {_ALIKE}" + (" AND r.cell_id IS NULL" if has_reused else ""),
            is_calm=not has_disturbed,
            has_usual=wanted.usual is not None,
        )
        cells = _CELLS.format(_REUSED if has_reused else "")
        columns |= {name: _list(f"c.{name}") for name in _PLACES}
        columns |= {"states": f"group_concat({state}, '{BETWEEN}')"}
    found = _row(connection, f"SELECT {', '.join(columns.values())} {cells} {where}", {**bound, **more}, list(columns))
    _check(found, direct)
    further = _from_view(connection, where, bound, wanted.texts, rest) if wanted.texts or rest else {}
    if further and further["count"] != found["count"]:
        raise Unpackable("other cells")
    numbers = {name: _text((found if name in direct else further)[f"number {name}"]) for name in wanted.numbers}
    return Packed(
        _positions(connection, where, bound, found["count"]), {name: _text(found.get(name)) for name in _PLACES},
        _text(found.get("states")), numbers, alike, {name: _text(further[f"text {name}"]) for name in wanted.texts},
    )  # fmt: skip


def _first(connection: sqlite3.Connection, bound: Mapping[str, Scalar], where: str) -> tuple[str, str]:
    """Task and model of one of the cells; most often they are those of all."""
    sql = f"""SELECT c.task, {_MODEL} FROM plan AS p CROSS JOIN cells AS c ON c.id = p.cell_id
        WHERE p.sweep_id = :sweep AND p.position {where} LIMIT 1"""
    found = _row(connection, sql, bound, ("task", "model"))
    return _text(found.get("task")), _text(found.get("model"))


def _positions(
    connection: sqlite3.Connection, where: str, bound: Mapping[str, Scalar], count: object
) -> str | tuple[int, int]:
    """First and last where none is missing between, else all of them."""
    first, last = bound.get("first"), bound.get("last")
    if isinstance(first, int) and isinstance(last, int) and count == last - first + 1:
        return first, last
    sql = f"SELECT group_concat(position) FROM plan WHERE sweep_id = :sweep AND position {where}"
    return _text(connection.execute(sql, bound).fetchone()[0])


def _from_view(
    connection: sqlite3.Connection, where: str, bound: Mapping[str, Scalar], texts: Sequence[str],
    numbers: Mapping[str, float],
) -> dict[str, object]:  # fmt: skip
    """What the view alone knows: dimensions other than the two, scores, ends of intervals."""
    columns = {"count": "count(*)"}
    columns |= {f"text {name}": f"group_concat(quote({_quoted(name)}), '{BETWEEN}')" for name in texts}
    columns |= _numbers({_quoted(name): scale for name, scale in numbers.items()}, "{}")
    sql = f"""SELECT {", ".join(columns.values())} FROM results
        WHERE sweep = (SELECT name FROM sweeps WHERE id = :sweep) AND position {where}"""
    names = [*list(columns)[: 1 + len(texts)], *(f"{kind} {name}" for name in numbers for kind in ("number", "odd"))]
    found = _row(connection, sql, bound, names)
    _check(found, numbers)
    return found


def _numbers(scales: Mapping[str, float], shape: str) -> dict[str, str]:
    """Of each column its whole numbers, and how many of its values are texts, which come after all numbers."""
    found = {}
    for name, scale in scales.items():
        column = shape.format(name)
        found[f"number {name}"] = _list(f"IFNULL(CAST({column} * {scale!r} AS INTEGER), {NOTHING})")
        is_odd = "false" if name.endswith(_ENDS) else f"{column} >= ''"
        found[f"odd {name}"] = f"count(*) FILTER (WHERE {is_odd})"
    return found


def _check(found: Mapping[str, object], numbers: Mapping[str, float]) -> None:
    if any(found[f"odd {name}"] for name in numbers):
        raise Unpackable("a number that is none")


def _row(
    connection: sqlite3.Connection, sql: str, bound: Mapping[str, Scalar], names: Sequence[str]
) -> dict[str, object]:
    try:
        found = connection.execute(sql, bound).fetchone()
    except sqlite3.OperationalError as error:
        if not str(error).startswith("Could not decode to UTF-8"):
            raise
        raise Unpackable("a text that is not UTF-8") from error
    return {} if found is None else dict(zip(names, found, strict=True))


def _list(expression: str) -> str:
    return f"group_concat({expression})"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str | int):
        raise Unpackable("no text")
    return str(value)


# -- what else is known of all of them -------------------------------------------------------------------------------


def factors(connection: sqlite3.Connection, metric: str) -> dict[int, float]:
    """What a value is divided and multiplied by for its interval, by the shape of its attempt without its looks."""
    rows = connection.execute(
        "SELECT sweep_id, segment_id, loads, runs, factor FROM intervals WHERE metric = ? AND factor IS NOT NULL",
        (metric,),
    )
    return {
        runs + RUNS * (loads + LOADS * LOOKS * (segment + SEGMENTS * sweep)): factor
        for sweep, segment, loads, runs, factor in rows
        if runs < RUNS and loads < LOADS and segment < SEGMENTS
    }


def usual(connection: sqlite3.Connection, sweep_id: int) -> Usual:
    """That of the sweep's last attempt that gave numbers."""
    sql = """SELECT runs, loads, choice, segment_id FROM attempts WHERE sweep_id = ? AND status = 'ok'
        ORDER BY id DESC LIMIT 1"""
    runs, loads, choice, segment = connection.execute(sql, (sweep_id,)).fetchone() or (0, None, None, None)
    rest = LOADS * ((choice or 0) + LOOKS * ((segment or 0) + SEGMENTS * sweep_id))
    return Usual(runs, loads, choice, segment, runs + RUNS * ((1 if loads is None else loads) + rest))


def changed(connection: sqlite3.Connection, sweep_id: int, attempt_id: int, n: int) -> tuple[int, list[int]]:
    """The last attempt of all, and the places of the plan, at most so many, whose cell has had an attempt since that
    one, has the result of such a cell, or is left out because of it.

    The one before it is told as well: it may have been under way then.
    """
    (last,) = connection.execute("SELECT COALESCE(max(id), 0) FROM main.attempts").fetchone()
    rows = connection.execute(
        """WITH touched AS (SELECT DISTINCT cell_id FROM main.attempts WHERE id >= :since ORDER BY id DESC LIMIT :n)
        SELECT p.position FROM (SELECT cell_id FROM touched
                UNION SELECT reused.cell_id FROM touched JOIN reused ON reused.original_id = touched.cell_id) AS cells
            CROSS JOIN main.plan AS p ON p.cell_id = cells.cell_id AND +p.sweep_id = :sweep
        UNION SELECT p.position FROM touched CROSS JOIN plan AS p
            ON p.sweep_id = :sweep AND p.witness_id = touched.cell_id LIMIT :n""",
        {"sweep": sweep_id, "since": attempt_id - 1, "n": n},
    )
    return int(last), [int(row[0]) for row in rows]


def recent(connection: sqlite3.Connection, sweep_id: int, n: int) -> list[int]:
    """Positions of cells that the sweep measured last, at most so many."""
    rows = connection.execute(
        """SELECT DISTINCT p.position FROM (SELECT cell_id FROM main.attempts
                WHERE sweep_id = :sweep AND status = 'ok' ORDER BY id DESC LIMIT :n) AS last
            CROSS JOIN main.plan AS p ON p.cell_id = last.cell_id AND +p.sweep_id = :sweep ORDER BY p.position""",
        {"sweep": sweep_id, "n": n},
    )
    return [int(row[0]) for row in rows]


def extent(connection: sqlite3.Connection, sweep_id: int) -> tuple[str, str] | None:
    """When the first and the last of the sweep's own attempts ended; None where none did."""
    sql = """SELECT finished_at FROM main.attempts WHERE sweep_id = ? AND finished_at <> '' ORDER BY id {} LIMIT 1"""
    ends = [connection.execute(sql.format(way), (sweep_id,)).fetchone() for way in ("ASC", "DESC")]
    first, last = (str(row[0]) if row else "" for row in ends)
    return (first, last) if first and last else None
