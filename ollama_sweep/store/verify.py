"""Is everything in a database what was written? Checksums, and values that cannot be read. It only reads."""

# ruff: noqa: S608 - what is put into SQL here are our own names of tables and columns; values are always bound
from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ollama_sweep.core.cell import PROMPT_TOKENS, content_hash, made_length
from ollama_sweep.store import checksum, schema, values
from ollama_sweep.store.recovery import pages

CELL, ATTEMPT = "cell", "attempt"
_JSON = frozenset({
    "spec", "dimensions", "fingerprint", "options", "server", "task_options", "coordinates", "scores", "details",
    "combination", "lanes", "alone", "beside",
})  # fmt: skip
_BELONG_TO = {"attempts": "id", "runs": "attempt_id", "scores": "attempt_id", "answers": "attempt_id",
              "raw_outputs": "attempt_id", "checksums": "attempt_id", "telemetry": "attempt_id"}  # fmt: skip
"""Tables whose rows belong to an attempt, by this column."""
_MANY = 100


@dataclass(frozen=True)
class Difference:
    """Something that is not what it was. `attempt` is the number of the cell's attempt; empty where there is none.

    `what` are parts of an attempt (`cell`, `attempt`, `runs`, `scores`, `answers`, `prompts`, `telemetry`) that differ
    from their checksum, or words for what cannot be read.
    """

    sweep: str
    coordinates: Mapping[str, object]
    cell: str
    attempt: int | None
    what: tuple[str, ...]
    attempt_id: int | None = None

    @property
    def is_lost(self) -> bool:
        """It is the cell's or the attempt's own numbers that differ."""
        return bool({f"{CELL} differs", f"{ATTEMPT} differs"} & set(self.what))

    def words(self) -> str:
        """One line."""
        place = ", ".join(f"{name} {value}" for name, value in self.coordinates.items()) or self.cell
        where = [f"sweep {self.sweep}" if self.sweep else "", place, f"attempt {self.attempt}" if self.attempt else ""]
        return f"{': '.join(word for word in where if word) or 'the file'}: {', '.join(self.what)}"


@dataclass(frozen=True)
class Verified:
    """What `verify` found. `unchecked` attempts were made by a version that kept no checksums."""

    checked: int
    unchecked: int
    differences: tuple[Difference, ...]


@dataclass
class _Counts:
    checked: int = 0
    unchecked: int = 0


def verify(connection: sqlite3.Connection) -> Verified:
    """Look at everything. The connection may be one that only reads."""
    counts = _Counts()
    tables: Mapping[str, pages.Table] = {}
    with contextlib.suppress(sqlite3.DatabaseError):
        tables = pages.tables_of(connection)
    with _bytes_for_texts(connection):
        found = [*damage(connection), *differing_attempts(connection, counts)]
        found += [one.difference for one in (*misplaced(connection), *differing_rows(connection))]
        found += _unowned_results(connection)
        found += _unreadable_values(connection, tables, found)
    return Verified(counts.checked, counts.unchecked, tuple(found))


@contextlib.contextmanager
def _bytes_for_texts(connection: sqlite3.Connection) -> Iterator[None]:
    before = connection.text_factory
    connection.text_factory = checksum.Text
    try:
        yield
    finally:
        connection.text_factory = before


def damage(connection: sqlite3.Connection) -> Iterator[Difference]:
    """What SQLite's own check says."""
    try:
        found = [_text(row[0]) for row in connection.execute(f"PRAGMA quick_check({_MANY})")]
    except sqlite3.DatabaseError as error:
        found = [str(error)]
    for line in found:
        if line != "ok":
            yield Difference("", {}, "", None, (" ".join(line.split()),))


def differing_attempts(connection: sqlite3.Connection, counts: _Counts | None = None) -> Iterator[Difference]:
    """Attempts that are not what their checksums say."""
    counts = counts or _Counts()
    sql = """SELECT attempts.id, checksum FROM main.attempts LEFT JOIN checksums ON attempt_id = attempts.id
        WHERE status <> 'started' ORDER BY attempts.id"""
    for attempt_id, stored in _rows(connection, sql):
        if stored is None:
            counts.unchecked += 1
            continue
        counts.checked += 1
        try:
            what = tuple(f"{part} differs" if part in (CELL, ATTEMPT) else f"{part} differ"
                         for part in checksum.differing(connection, attempt_id, _text(stored)))  # fmt: skip
        except sqlite3.DatabaseError as error:
            what = (f"cannot be read ({error})",)
        if what:
            yield of_attempt(connection, attempt_id, what)
    sql = "SELECT attempt_id FROM checksums WHERE attempt_id NOT IN (SELECT id FROM main.attempts) ORDER BY 1"
    for (attempt_id,) in _rows(connection, sql):
        yield Difference("", {}, "", None, (f"attempt {attempt_id} of the table attempts is gone",), attempt_id)


@dataclass(frozen=True)
class WrongRow:
    """A row that belongs to no attempt's checksum and is not what was written: its table, and which one it is."""

    table: str
    where: str
    key: tuple[object, ...]
    difference: Difference


_PLACE = "sweep_id = ? AND position = ?"
_KEYS = {"plan": (("sweep_id", "position"), _PLACE), "load_values": (("attempt_id",), "attempt_id = ?")}
"""What a load said is lost for each metric, and made again of its runs."""
_NAMES = {"plan": "its place in the plan differs", "load_values": "what its load said differs",
          "corrections": "its correction differs", "out_of_memory": "the record of its memory differs",
          "choices": "why it was chosen differs", "goals": "its goal differs",
          "lanes": "one of its lanes differs", "leases": "which lane measured it differs",
          "disturbances": "what doctor --lanes found differs"}  # fmt: skip


def differing_rows(connection: sqlite3.Connection) -> Iterator[WrongRow]:
    """Rows that are not what their own checksums say; those of earlier versions have none."""
    for table, names in checksum.ROWS.items():
        key, where = _KEYS.get(table, (("rowid",), "rowid = ?"))
        sql = f"SELECT {', '.join((*key, *names))}, checksum FROM main.{table} WHERE checksum IS NOT NULL"
        for row in _rows(connection, sql):
            values_ = row[len(key) : -1]
            if checksum.row_checksum(table, values_) == row[-1]:
                continue
            found = _of_row(connection, table, row[: len(key)], dict(zip(names, values_, strict=True)))
            yield WrongRow(table, where, row[: len(key)], found)


def _of_row(connection: sqlite3.Connection, table: str, key: tuple[object, ...], row: Mapping[str, Any]) -> Difference:
    """Which cell a row is about, as far as it still says so."""
    if "attempt_id" in row:
        return of_attempt(connection, row["attempt_id"], (_NAMES[table],))
    sql = "SELECT (SELECT name FROM main.sweeps WHERE id = ?), (SELECT key FROM main.cells WHERE id = ?)"
    sweep, cell = next(_rows(connection, sql, row.get("sweep_id"), row.get("cell_id")), ("", ""))
    sweep = sweep or row.get("sweep")
    if table == "plan":
        return Difference(_text(sweep), _object(row["coordinates"]), _text(cell), None, (_NAMES[table],))
    what = _NAMES.get(table, f"row {key[0]} of the table {table} differs")
    return Difference(_text(sweep), {}, _text(cell), None, (what,))


def _unowned_results(connection: sqlite3.Connection) -> Iterator[Difference]:
    """Cells whose result is no attempt of theirs, nor of the cell whose result they take."""
    sql = """SELECT key FROM main.cells LEFT JOIN main.attempts AS a ON a.id = attempt_id WHERE attempt_id IS NOT NULL
        AND (a.cell_id IS NULL OR a.cell_id NOT IN
            (cells.id, COALESCE((SELECT original_id FROM reused WHERE reused.cell_id = cells.id), cells.id)))"""
    for (key,) in _rows(connection, sql):
        yield Difference("", {}, f"cell {_text(key)}", None, ("its result is no attempt of its own",))


def misplaced(connection: sqlite3.Connection) -> Iterator[WrongRow]:
    """The coordinates of a place are values of its cell: its context, its batch, its options."""
    sql = """SELECT sweep_id, position, sweeps.name, coordinates, key, num_ctx, num_batch, prompt_hash, options, server
        FROM main.plan JOIN main.cells ON cells.id = cell_id JOIN main.sweeps ON sweeps.id = sweep_id"""
    for sweep_id, position, sweep, coordinates, key, num_ctx, num_batch, prompt, *others in _rows(connection, sql):
        here, *more = (_object(text) for text in (coordinates, *others))
        cell = {"num_ctx": num_ctx or None, "num_batch": num_batch or None, PROMPT_TOKENS: made_length(_text(prompt))}
        for values_ in more:
            cell.update(values_)
        wrong = [name for name, value in here.items() if name in cell and cell[name] != value]
        if wrong:
            what = tuple(f"its place in the plan says another {name} than the cell ({cell[name]})" for name in wrong)
            found = Difference(_text(sweep), here, _text(key), None, what)
            yield WrongRow("plan", _PLACE, (sweep_id, position), found)


def _object(text: object) -> dict[str, object]:
    try:
        return values.json_object(_text(text))
    except values.BROKEN:
        return {}


def of_attempt(connection: sqlite3.Connection, attempt_id: int, what: tuple[str, ...]) -> Difference:
    """A difference with its sweep, its place and the number of its attempt."""
    sql = """SELECT sweeps.name, plan.coordinates, cells.key, number FROM main.attempts AS a
        LEFT JOIN main.sweeps ON sweeps.id = a.sweep_id LEFT JOIN main.cells ON cells.id = a.cell_id
        LEFT JOIN main.plan ON plan.cell_id = a.cell_id AND plan.sweep_id = a.sweep_id WHERE a.id = ? LIMIT 1"""
    for sweep, coordinates, key, number in _rows(connection, sql, attempt_id):
        cell = f"cell {_text(key)}" if key else ""
        return Difference(_text(sweep), _object(coordinates), cell, number, what, attempt_id)
    return Difference("", {}, "", None, (f"attempt {attempt_id}: {', '.join(what)}",), attempt_id)


def _text(value: object) -> str:
    """As it can be shown."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value or "")


def _rows(connection: sqlite3.Connection, sql: str, *bound: object) -> Iterator[tuple[Any, ...]]:
    """Those that can be read; what stops the reading is said by `damage`."""
    with contextlib.suppress(sqlite3.DatabaseError):
        yield from connection.execute(sql, bound)


# -- values ----------------------------------------------------------------------------------------------------------


def _unreadable_values(
    connection: sqlite3.Connection, tables: Mapping[str, pages.Table], known: Sequence[Difference]
) -> Iterator[Difference]:
    """Values of any table that say nothing, but for those of attempts that are named already."""
    named = {one.attempt_id for one in known if one.attempt_id is not None}
    types = schema.column_types()
    for table in tables.values():
        number, belongs = ", ".join(table.key), _BELONG_TO.get(table.name)
        sql = f"SELECT {number}, {', '.join(table.columns)} FROM main.{table.name}"
        for row in _rows(connection, sql):
            found = dict(zip(table.columns, row[len(table.key) :], strict=True))
            wrong = dict.fromkeys([*_of_wrong_type(types.get(table.name, {}), found), *_unsound(found)])
            what = tuple(f"{table.name}.{name} cannot be read" for name in wrong)
            attempt_id = found.get(belongs) if belongs else None
            if not what or attempt_id in named:
                continue
            if isinstance(attempt_id, int):
                yield of_attempt(connection, attempt_id, what)
            else:
                place = f"row {', '.join(_text(value) for value in row[: len(table.key)])}"
                yield Difference("", {}, place, None, what)


def _of_wrong_type(types: Mapping[str, tuple[str, bool]], row: Mapping[str, object]) -> Iterator[str]:
    """Columns that hold something else than they are made for, by our own definitions: the file's may be damaged."""
    for name, value in row.items():
        kind, must = types.get(name, ("", False))
        allowed = _TYPES.get(kind)
        if (must if value is None else allowed is not None and not isinstance(value, allowed)) or (
            kind == "BLOB" and isinstance(value, checksum.Text)
        ):
            yield name


_TYPES: Mapping[str, tuple[type, ...]] = {
    "INTEGER": (int,), "REAL": (int, float), "TEXT": (checksum.Text, str), "BLOB": (bytes,),
}  # fmt: skip


def is_sound(columns: Sequence[str], row: Sequence[object]) -> bool:
    """What the schema cannot check: a row of a torn page may have the right types and still be nonsense."""
    return not _unsound(dict(zip(columns, row, strict=True)))


def _unsound(row: Mapping[str, object]) -> list[str]:
    """The columns of a row that cannot be read."""
    texts = {name: _decoded(value) for name, value in row.items()}
    is_of_sweep = "dimensions" in row  # the `spec` of a made prompt is no JSON
    found = [name for name, value in texts.items()
             if not _is_sound_value(name, value) and (name != "spec" or is_of_sweep)]  # fmt: skip
    return found if found or "hash" not in texts else _unsound_prompt(texts)


def _decoded(value: object) -> object:
    """A text as such; as its bytes where it is none."""
    if isinstance(value, checksum.Text):
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode()
    return value


def _unsound_prompt(row: Mapping[str, object]) -> list[str]:
    """A prompt is named by its hash, but for a made one; where a text has a backslash it may have been cleaned."""
    name, text = str(row["hash"]), str(row["text"])
    if name.startswith("tokens:") or (name.startswith("sha256:") and (name == content_hash(text) or "\\" in text)):
        return []
    return ["hash"]


def _is_sound_value(name: str, value: object) -> bool:
    try:
        if isinstance(value, checksum.Text):
            return False
        if name in _JSON and value is not None:
            json.loads(str(value))
        elif name.endswith("_at") and value:
            datetime.fromisoformat(str(value))
        elif name == "status":
            values.status(value)
        elif name == "flags":
            values.flags(value or "")
        elif isinstance(value, bytes):
            values.unpacked(value)
    except values.BROKEN:
        return False
    return not isinstance(value, float) or math.isfinite(value)
