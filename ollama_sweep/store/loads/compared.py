"""The cells of a sweep with every load of theirs, read for `compare`: row by row, never all runs in memory.

An attempt is a load. Those of a cell are its ok attempts by one sweep in one segment, the one in which its value was
measured, now or by what was asked for. Its value is that of those that were as often chosen for it.
"""

# ruff: noqa: S608 - what is put into SQL here are our own names of tables and columns; values are always bound
from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from operator import itemgetter
from typing import Any

from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Flag, Status
from ollama_sweep.core.rates import streamed_decode_rate
from ollama_sweep.store import values
from ollama_sweep.store.values import Notes

_RUN_COLUMNS = {
    **{name: f"runs.{name}" for name in ("prompt_eval_rate", "prompt_eval_duration_s", "eval_rate", "eval_duration_s",
                                         "total_duration_s", "ttft_s", "thinking_duration_s")},
    "latency_s": "runs.client_duration_s",
}  # fmt: skip
_ATTEMPT_COLUMNS = ("size_bytes", "size_vram_bytes", "load_duration_s")
_COUNTING = ", ".join(f"'{status}'" for status in Status if status.counts)


class Source(StrEnum):
    """Where the values of a metric stand."""

    RUN_COLUMN = "run column"
    DECODE = "decode speed"
    RUN_SCORE = "run score"
    QUALITY = "quality"
    ANSWERED = "answered"
    LOAD = "load"


@dataclass(frozen=True, slots=True)
class PlanCell:
    """A cell of a sweep's plan, and what it stands at: now, or in the segment that was asked for.

    `attempt_id` is the attempt that says so, None where none counts. `coordinates` is JSON, in the plan's order.
    """

    position: int
    coordinates: Mapping[str, Scalar]
    engine: str
    model: str
    model_digest: str
    task: str
    task_options: str
    prompt_hash: str
    status: Status
    reason: str
    flags: frozenset[Flag]
    attempt_id: int | None


@dataclass(frozen=True, slots=True)
class LoadRow:
    """What one load measured: its values, each with the question it answers ("" where there are none).

    `choice` is how often its cell had been chosen for its value: loads of one choice tell how far loads differ. Of an
    earlier one they are no part of the cell's value, and a control never is.
    """

    attempt_id: int
    choice: int
    is_value: bool
    started_at: str
    values: tuple[float, ...]
    items: tuple[str, ...]


def segments_of(connection: sqlite3.Connection, sweep_id: int) -> list[int]:
    """The segments in which the sweep attempted anything, the oldest first."""
    sql = "SELECT DISTINCT segment_id FROM attempts WHERE sweep_id = ? AND segment_id IS NOT NULL ORDER BY segment_id"
    return [number for (number,) in values.rows_of(connection, sql, (sweep_id,)) if isinstance(number, int)]


def _value_attempt(segment: int | None) -> str:
    if segment is None:
        return "cells.attempt_id"
    return f"""(SELECT max(own.id) FROM attempts AS own WHERE own.cell_id = cells.id AND own.sweep_id = :sweep
        AND own.segment_id = :segment AND own.status IN ({_COUNTING})
        AND own.purpose IS NOT 'control'
        AND (own.purpose IS NULL OR own.status = 'ok'))"""


def cells(connection: sqlite3.Connection, notes: Notes, sweep_id: int, segment: int | None) -> Iterator[PlanCell]:
    """Every cell of the plan once, in order; with a segment only those that were attempted in it."""
    status, join = ("cells.status", "LEFT JOIN") if segment is None else ("a.status", "CROSS JOIN")
    sql = f"""SELECT min(plan.position), plan.coordinates, cells.engine, COALESCE(plan.model, cells.model),
            cells.model_digest, cells.task, cells.task_options, cells.prompt_hash, {status},
            CASE WHEN {status} = a.status THEN a.reason ELSE cells.reason END,
            COALESCE(a.flags, '') || ',' || cells.flags, a.id
        FROM plan CROSS JOIN cells ON cells.id = plan.cell_id {join} attempts AS a ON a.id = {_value_attempt(segment)}
        WHERE plan.sweep_id = :sweep GROUP BY cells.id ORDER BY plan.position"""
    rows = values.rows_of(connection, sql, {"sweep": sweep_id, "segment": segment})
    return notes.rows("a cell of the plan", _cell, rows)


def _cell(position: int, coordinates: object, *rest: Any) -> PlanCell:
    engine, model, digest, task, options, prompt, status, reason, flags, attempt = rest
    return PlanCell(
        values.whole(position), values.scalars(coordinates), _kept(engine), _kept(model), _kept(digest), _kept(task),
        sys.intern(json.dumps(values.json_object(options), sort_keys=True)), _kept(prompt), values.status(status),
        _kept(reason or ""), values.flags(flags), attempt,
    )  # fmt: skip


def _kept(value: object) -> str:
    """A text that thousands of cells share is one in memory."""
    return sys.intern(values.text(value))


def source_of(connection: sqlite3.Connection, sweep_id: int, metric: str) -> Source:
    """Where this metric's values stand in this sweep."""
    if metric in _RUN_COLUMNS:
        return Source.RUN_COLUMN
    special = {"decode_tps": Source.DECODE, "quality": Source.QUALITY, "success_rate": Source.ANSWERED}
    if metric in special:
        return special[metric]
    sql = """SELECT EXISTS (SELECT 1 FROM plan CROSS JOIN cells ON cells.id = plan.cell_id
        CROSS JOIN scores ON scores.attempt_id = cells.attempt_id AND scores.part LIKE 'run %' AND scores.name = ?
        WHERE plan.sweep_id = ?)"""
    (found,) = next(values.rows_of(connection, sql, (_score(metric), sweep_id)))
    return Source.RUN_SCORE if found else Source.LOAD


def _score(metric: str) -> str:
    """The accuracy of a task with choices is the mean of its answers' scores."""
    return "score" if metric == "accuracy" else metric


def loads(
    connection: sqlite3.Connection, notes: Notes, sweep_id: int, segment: int | None, metric: str
) -> Iterator[tuple[int, list[LoadRow]]]:
    """The loads of each measured cell, with its position, in the order of the plan.

    This is the one place that says which attempts of a cell stand beside one another. None may stand beside one because
    of whose value it was made: those have another `choice`.
    """
    source = source_of(connection, sweep_id, metric)
    sql = _of_loads(metric, segment) if source is Source.LOAD else _of_runs(source, metric, segment)
    bound = {"sweep": sweep_id, "segment": segment, "metric": _score(metric), "path": f'$."{metric}"'}
    rows = values.rows_of(connection, sql, bound)
    for position, of_cell in groupby(rows, key=itemgetter(0)):
        found = [_load(notes, source, list(of_load)) for _, of_load in groupby(of_cell, key=itemgetter(1))]
        if kept := [load for load in found if load is not None and load.values]:
            yield position, kept


def _attempts(segment: int | None) -> str:
    return f"""FROM (SELECT cell_id, min(position) AS position FROM plan WHERE sweep_id = :sweep GROUP BY cell_id)
            AS place
        CROSS JOIN cells ON cells.id = place.cell_id
        CROSS JOIN attempts AS v ON v.id = {_value_attempt(segment)} AND v.status = 'ok'
        CROSS JOIN attempts AS a ON a.cell_id = cells.id AND a.status = 'ok' AND a.sweep_id = v.sweep_id
            AND a.segment_id IS v.segment_id"""


_OF_LOAD = """COALESCE(a.choice, 0), a.purpose IS NOT 'control' AND COALESCE(a.choice, 0) = COALESCE(v.choice, 0)"""


def _of_runs(source: Source, metric: str, segment: int | None) -> str:
    score = "(SELECT value FROM scores WHERE attempt_id = a.id AND part = runs.part AND name = {})"
    value = {
        Source.RUN_COLUMN: _RUN_COLUMNS.get(metric, "NULL"),
        Source.DECODE: "runs.eval_count",
        Source.RUN_SCORE: score.format(":metric"),
        Source.QUALITY: f"CASE WHEN runs.believed THEN COALESCE({score.format(repr('score'))}, 0) ELSE 0 END",
        Source.ANSWERED: "runs.believed",
    }[source]
    asked = "" if source in (Source.QUALITY, Source.ANSWERED) else "AND runs.believed = 1"
    return f"""SELECT place.position, a.id, a.started_at, {_OF_LOAD}, {value}, COALESCE(answers.item, ''),
            runs.client_duration_s, runs.ttft_s
        {_attempts(segment)}
        CROSS JOIN runs ON runs.attempt_id = a.id AND runs.warmup = 0 {asked}
        LEFT JOIN answers ON answers.attempt_id = runs.attempt_id AND answers.part = runs.part
        ORDER BY place.position, a.number, runs.number"""


def _of_loads(metric: str, segment: int | None) -> str:
    value = f"a.{metric}" if metric in _ATTEMPT_COLUMNS else (
        "CASE WHEN json_valid(a.scores) THEN json_extract(a.scores, :path) END"
    )  # fmt: skip
    return f"""SELECT place.position, a.id, a.started_at, {_OF_LOAD}, {value}, '', NULL, NULL
        {_attempts(segment)} ORDER BY place.position, a.number"""


def _load(notes: Notes, source: Source, rows: list[tuple[Any, ...]]) -> LoadRow | None:
    _, attempt, started_at, choice, is_value, *_ = rows[0]
    found = [
        (number, item)
        for row in rows
        if (number := notes.field(f"a value of attempt {attempt}", lambda row: _value(source, row), row, None))
        is not None
        and (item := notes.field(f"a question of attempt {attempt}", _kept, row[6], None)) is not None
    ]
    numbers, items = tuple(number for number, _ in found), tuple(item for _, item in found)
    return notes.row(
        f"attempt {attempt}",
        lambda: LoadRow(attempt, values.whole(choice), bool(is_value), values.text(started_at), numbers, items),
    )


def _value(source: Source, row: tuple[Any, ...]) -> float | None:
    if source is Source.DECODE:
        latency, first = values.number(row[7]), values.optional_number(row[8])
        return streamed_decode_rate(values.optional_whole(row[5]), latency, first)
    return values.optional_number(row[5])
