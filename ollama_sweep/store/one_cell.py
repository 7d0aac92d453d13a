"""Everything that is stored of one cell: where it stands in a plan, its attempts with their runs, its controls."""

# ruff: noqa: S608 - what is put into SQL here are our own names of tables and columns; values are always bound
from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ollama_sweep.core.cell import KEY_VERSION
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Run
from ollama_sweep.store import values
from ollama_sweep.store.attempts import RUN_COLUMNS, run_of
from ollama_sweep.store.values import Notes


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


_PLACES = """SELECT plan.position, cells.key, plan.coordinates FROM plan JOIN cells ON cells.id = plan.cell_id
    WHERE plan.sweep_id = ?"""


def places(connection: sqlite3.Connection, notes: Notes, sweep_id: int) -> Iterator[Place]:
    """Every cell of the plan, in order."""
    return _found(notes, values.rows_of(connection, f"{_PLACES} ORDER BY plan.position", (sweep_id,)))


def place_at(connection: sqlite3.Connection, notes: Notes, sweep_id: int, position: int) -> Place | None:
    """The cell at a position of the plan, None where it has none."""
    rows = values.rows_of(connection, f"{_PLACES} AND plan.position = ?", (sweep_id, position))
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
