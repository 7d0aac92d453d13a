"""Everything that is stored of one cell: where it stands in a plan, its attempts with their runs, its controls.

And of each attempt of a database, one after the other: what `verify` makes its numbers again of.
"""

# ruff: noqa: S608 - what is put into SQL here are our own names of tables and columns; values are always bound
from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ollama_sweep.core.cell import KEY_VERSION
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import FAILURES, Run, Series
from ollama_sweep.store import values
from ollama_sweep.store.attempts import (
    RUN_COLUMNS,
    SUMMARY_COLUMNS,
    WHOLE,
    run_of,
    runs_with_answers,
    scores_by_part,
    speaking_runs,
)
from ollama_sweep.store.loads import stored
from ollama_sweep.store.loads.spreads import said_of
from ollama_sweep.store.rows import StoredAttempt
from ollama_sweep.store.values import Notes
from ollama_sweep.store.view.flags import OWN_FLAGS


@dataclass(frozen=True)
class Place:
    """A cell of a sweep's plan: its position, its key, and its coordinates."""

    position: int
    key: str
    coordinates: Mapping[str, Scalar]


@dataclass(frozen=True)
class Control:
    """A measurement of this cell as the control cell: its rate in tokens/s, and the drift it showed as a share."""

    measured_at: str
    prompt_eval_rate: float
    drift: float


def original_of(connection: sqlite3.Connection, notes: Notes, sweep_id: int, key: str) -> Place | None:
    """The cell whose result this one has, without coordinates where it is not part of the plan; None for its own."""
    sql = """SELECT COALESCE(plan.position, -1), o.key, COALESCE(plan.coordinates, '{}')
            FROM cells JOIN reused ON reused.cell_id = cells.id JOIN cells AS o ON o.id = original_id
            LEFT JOIN plan ON plan.cell_id = o.id AND plan.sweep_id = ? WHERE cells.key = ? LIMIT 1"""
    return next(_found(notes, values.rows_of(connection, sql, (sweep_id, key))), None)


_PLACES = """SELECT plan.position, cells.key, plan.coordinates FROM plan JOIN cells ON cells.id = plan.cell_id
    WHERE plan.sweep_id = ?"""


def places(connection: sqlite3.Connection, notes: Notes, sweep_id: int) -> Iterator[Place]:
    """Every cell of the plan, in order."""
    return _found(notes, values.rows_of(connection, f"{_PLACES} ORDER BY plan.position", (sweep_id,)))


def place_at(connection: sqlite3.Connection, notes: Notes, sweep_id: int, position: int) -> Place | None:
    """The cell at a position of the plan, None where it has none."""
    rows = values.rows_of(connection, f"{_PLACES} AND plan.position = ?", (sweep_id, position))
    return next(_found(notes, rows), None)


def witness(connection: sqlite3.Connection, notes: Notes, sweep_id: int, position: int) -> Place | None:
    """The place of the cell because of which another place is left out; None where there is none."""
    rows = values.rows_of(
        connection,
        """SELECT place.position, cells.key, place.coordinates FROM plan
            JOIN plan AS place ON place.cell_id = plan.witness_id AND place.sweep_id = plan.sweep_id
            JOIN cells ON cells.id = place.cell_id WHERE plan.sweep_id = ? AND plan.position = ? LIMIT 1""",
        (sweep_id, position),
    )
    return next(_found(notes, rows), None)


def places_of(connection: sqlite3.Connection, notes: Notes, sweep_id: int, prefix: str, limit: int) -> list[Place]:
    """The first cells of the plan whose keys begin so; the version in front of a key may be left out."""
    start = prefix if ":" in prefix else f"{KEY_VERSION}:{prefix}"
    rows = values.rows_of(
        connection,
        f"{_PLACES} AND cells.key >= ? AND cells.key < ? ORDER BY plan.position LIMIT ?",
        (sweep_id, start, f"{start}\uffff", limit),
    )
    return list(_found(notes, rows))


def _found(notes: Notes, rows: Iterator[tuple[Any, ...]]) -> Iterator[Place]:
    return notes.rows("a place in the plan", _place, rows)


def _place(position: int, key: object, coordinates: object) -> Place:
    return Place(position, values.text(key), values.scalars(coordinates))


def runs(connection: sqlite3.Connection, notes: Notes, attempt_id: int) -> list[Run]:
    """The runs of an attempt in their order, warm-ups first; without what the engine printed, and without answers."""
    sql = f"SELECT {', '.join(RUN_COLUMNS)} FROM runs WHERE attempt_id = ? ORDER BY warmup DESC, number, part"
    rows = values.rows_of(connection, sql, (attempt_id,))
    return list(notes.rows(f"a run of attempt {attempt_id}", run_of, rows))


def telemetry(connection: sqlite3.Connection, notes: Notes, attempt_id: int) -> Series | None:
    """What sensors said while an attempt lasted; None where nothing was kept."""
    rows = values.rows_of(connection, "SELECT series FROM telemetry WHERE attempt_id = ?", (attempt_id,))
    return next(notes.rows(f"the telemetry of attempt {attempt_id}", values.series, rows), None)


def telemetry_of_cells(connection: sqlite3.Connection, notes: Notes, sweep_id: int) -> Iterator[tuple[int, Series]]:
    """That of the attempts which the cells of a plan show, by position and in the order of the plan."""
    sql = """SELECT plan.position, series FROM plan JOIN cells ON cells.id = plan.cell_id
            JOIN telemetry ON telemetry.attempt_id = cells.attempt_id WHERE plan.sweep_id = ? ORDER BY plan.position"""
    rows = values.rows_of(connection, sql, (sweep_id,))
    return notes.rows("the telemetry of a cell", lambda position, packed: (position, values.series(packed)), rows)


def controls(connection: sqlite3.Connection, notes: Notes, sweep_id: int, key: str) -> list[Control]:
    """How often, and with what, this cell was measured to see drift; the oldest first."""
    sql = """SELECT measured_at, controls.prompt_eval_rate, drift FROM controls JOIN cells ON cells.id = cell_id
            WHERE controls.sweep_id = ? AND cells.key = ? ORDER BY controls.id"""
    return list(notes.rows("a control", _control, values.rows_of(connection, sql, (sweep_id, key))))


def _control(measured_at: object, rate: object, drift: object) -> Control:
    return Control(values.text(measured_at), values.number(rate), values.number(drift))


def segments(connection: sqlite3.Connection, notes: Notes) -> dict[int, Mapping[str, object]]:
    """The surroundings by their number."""
    rows = values.rows_of(connection, "SELECT id, fingerprint FROM segments")
    return dict(notes.rows("surroundings", lambda number, text: (number, values.json_object(text)), rows))


# -- each attempt of a database --------------------------------------------------------------------------------------

_IDENTITY = ("model", "model_digest", "options", "server", "task_options", "prompt_hash")
_MODELFILE = "CASE WHEN json_valid(s.spec) THEN json_extract(s.spec, '$.modelfile') END"
_ATTEMPTS = f"""SELECT a.id, a.cell_id, a.number, a.status, a.reason, c.engine, c.task, c.key,
        (SELECT fingerprint FROM segments AS g WHERE g.id = a.segment_id),
        EXISTS (SELECT 1 FROM checksums AS k WHERE k.attempt_id = a.id), a.scores,
        {", ".join(f"a.{name}" for name in SUMMARY_COLUMNS)},
        {", ".join(f"c.{name}" for name in _IDENTITY)}, {_MODELFILE}
    FROM attempts AS a JOIN cells AS c ON c.id = a.cell_id LEFT JOIN sweeps AS s ON s.id = a.sweep_id
    WHERE a.status <> 'started' ORDER BY a.id"""


def stored_attempts(connection: sqlite3.Connection, notes: Notes) -> Iterator[StoredAttempt]:
    """Every attempt that has ended, one in memory at a time. What cannot be read is left out, and is not this one's
    to say.
    """
    with contextlib.suppress(sqlite3.DatabaseError):
        for row in values.rows_of(connection, _ATTEMPTS):
            with contextlib.suppress(sqlite3.DatabaseError):
                found = notes.row("an attempt", lambda *row: _stored(connection, notes, row), *row)
                if found is not None:
                    yield found


def _stored(connection: sqlite3.Connection, notes: Notes, row: tuple[Any, ...]) -> StoredAttempt:
    attempt_id, cell_id, number, status, reason, engine, task, key, surroundings, is_sealed, scores, *others = row
    numbers, identity = others[: len(SUMMARY_COLUMNS)], others[len(SUMMARY_COLUMNS) :]
    by_part = scores_by_part(connection, notes, attempt_id)
    return StoredAttempt(
        attempt_id, cell_id, number, values.status(status), values.text(reason), values.text(engine),
        _version(surroundings), values.text(task), values.text(key), bool(is_sealed),
        {name: values.optional_number(value) for name, value in zip(SUMMARY_COLUMNS, numbers, strict=True)},
        {name: values.number(value) for name, value in values.json_object(scores).items()},
        by_part.get(WHOLE, {}), tuple(runs_with_answers(connection, notes, attempt_id, by_part)),
        dict(notes.rows("an output", lambda part, content: (values.text(part), values.unpacked(content)),
                        values.rows_of(connection, _RAWS, (attempt_id,)))),
        dict(notes.rows("a load", said_of, values.rows_of(connection, _LOADS, (attempt_id,)))),
        dict(zip((*_IDENTITY, "modelfile"), (str(value or "") for value in identity), strict=True)),
    )  # fmt: skip


_LOADS = "SELECT metric, log_median, runs, squares FROM load_values WHERE attempt_id = ?"
_RAWS = "SELECT part, content FROM raw_outputs WHERE attempt_id = ?"


def _version(surroundings: object) -> str:
    """The version of the engine in a fingerprint."""
    try:
        return str(values.json_object(surroundings).get("engine_version") or "")
    except values.BROKEN:
        return ""


@dataclass(frozen=True)
class FormerLoad:
    """The runs of an earlier good load of a cell: those that are believed, and every question that was asked.

    `is_alike`: in the same surroundings as the attempt it stands beside.
    """

    runs: tuple[Run, ...]
    is_alike: bool


def former_loads(connection: sqlite3.Connection, notes: Notes, attempt: StoredAttempt) -> list[FormerLoad]:
    """The earlier loads that the numbers of an attempt may speak for, the oldest first."""
    sql = "SELECT segment_id, COALESCE(choice, 0) FROM attempts WHERE id = ?"
    segment_id, choice = connection.execute(sql, (attempt.attempt_id,)).fetchone()
    return [
        FormerLoad(speaking_runs(connection, notes, load.attempt_id), load.segment_id == segment_id)
        for load in stored.earlier(connection, attempt.cell_id, choice, attempt.number)
    ]


@dataclass(frozen=True)
class StoredControl:
    """A control measurement of a sweep, and the rates of its cell that it may have been held against.

    `own_rate` is that of its attempt; None where an earlier version kept none.
    """

    sweep: str
    coordinates: Mapping[str, Scalar]
    control: Control
    bases: tuple[float, ...]
    own_rate: float | None


def stored_controls(connection: sqlite3.Connection, notes: Notes) -> Iterator[StoredControl]:
    """Every control measurement."""
    sql = """SELECT s.name, p.coordinates, k.measured_at, k.prompt_eval_rate, k.drift, k.cell_id,
            (SELECT a.prompt_eval_rate FROM attempts AS a WHERE a.id = k.attempt_id)
        FROM controls AS k JOIN sweeps AS s ON s.id = k.sweep_id
            LEFT JOIN plan AS p ON p.sweep_id = k.sweep_id AND p.cell_id = k.cell_id
        GROUP BY k.id ORDER BY k.id"""
    of_cell = """SELECT prompt_eval_rate FROM attempts
        WHERE cell_id = ? AND status = 'ok' AND prompt_eval_rate > 0 AND purpose IS NOT 'control' ORDER BY number"""

    def made(sweep: object, coordinates: object, at: object, rate: object, drift: object, *of: Any) -> StoredControl:
        cell_id, own_rate = of
        bases = tuple(values.number(value) for (value,) in connection.execute(of_cell, (cell_id,)))
        where = {} if coordinates is None else values.scalars(coordinates)
        return StoredControl(values.text(sweep), where, _control(at, rate, drift), bases, own_rate)

    with contextlib.suppress(sqlite3.DatabaseError):
        yield from notes.rows("a control", made, values.rows_of(connection, sql))


def corrected_loads(connection: sqlite3.Connection) -> int:
    """How many loads have a rate without the machine's drift."""
    return int(connection.execute("SELECT count(*) FROM corrections").fetchone()[0])


def doubtful_cells(connection: sqlite3.Connection) -> int:
    """How many places of all plans hold a cell that failed or carries a flag."""
    failed = ", ".join(f"'{status}'" for status in FAILURES)
    sql = f"""SELECT count(*) FROM plan JOIN cells AS c ON c.id = plan.cell_id
        LEFT JOIN attempts AS a ON a.id = c.attempt_id
        WHERE plan.skip IS NULL AND (c.status IN ({failed}) OR {OWN_FLAGS} <> '')"""
    return int(connection.execute(sql).fetchone()[0])
