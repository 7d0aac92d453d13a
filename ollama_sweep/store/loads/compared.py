"""The cells of a sweep with every load of theirs, read for `compare`: row by row, never all runs in memory.

An attempt is a load. Those of a cell are its ok attempts by one sweep in one segment, the one in which its value was
measured, now or by what was asked for. Its value is that of those that were as often chosen for it.
"""

# ruff: noqa: S608 - what is put into SQL here are our own names of tables and columns; values are always bound
from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from operator import itemgetter
from typing import Any

from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Flag, Purpose, Status
from ollama_sweep.core.rates import streamed_decode_rate
from ollama_sweep.store import values
from ollama_sweep.store.loads import stored
from ollama_sweep.store.loads.stored import StoredLoad
from ollama_sweep.store.values import Notes
from ollama_sweep.store.view.flags import OWN_FLAGS

_RUN_COLUMNS = {
    **{name: f"runs.{name}" for name in ("prompt_eval_rate", "prompt_eval_duration_s", "eval_rate", "eval_duration_s",
                                         "total_duration_s", "ttft_s", "thinking_duration_s")},
    "latency_s": "runs.client_duration_s",
}  # fmt: skip
_ATTEMPT_COLUMNS = ("size_bytes", "size_vram_bytes", "load_duration_s")


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
        AND own.segment_id = :segment AND {stored.gives_value_sql("own")})"""


def _among(positions: Sequence[int] | None) -> str:
    """SQL: only these places of the plan."""
    return "" if positions is None else "AND plan.position IN (SELECT value FROM json_each(:positions))"


def _bound(positions: Sequence[int] | None) -> str | None:
    return None if positions is None else json.dumps(list(map(int, positions)))


def cells(
    connection: sqlite3.Connection, notes: Notes, sweep_id: int, segment: int | None,
    positions: Sequence[int] | None = None,
) -> Iterator[PlanCell]:  # fmt: skip
    """Every cell of the plan once, in order, or those at these positions; with a segment only those that were attempted
    in it.
    """
    status, join = ("cells.status", "LEFT JOIN") if segment is None else ("a.status", "CROSS JOIN")
    sql = f"""SELECT min(plan.position), plan.coordinates, cells.engine, COALESCE(plan.model, cells.model),
            cells.model_digest, cells.task, cells.task_options, cells.prompt_hash, {status},
            CASE WHEN {status} = a.status THEN a.reason ELSE cells.reason END,
            {OWN_FLAGS.replace("c.flags", "cells.flags")}, a.id
        FROM plan CROSS JOIN cells ON cells.id = plan.cell_id {join} attempts AS a ON a.id = {_value_attempt(segment)}
        WHERE plan.sweep_id = :sweep {_among(positions)} GROUP BY cells.id ORDER BY plan.position"""
    rows = values.rows_of(connection, sql, {"sweep": sweep_id, "segment": segment, "positions": _bound(positions)})
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
    connection: sqlite3.Connection, notes: Notes, sweep_id: int, segment: int | None, metric: str,
    positions: Sequence[int] | None = None,
) -> Iterator[tuple[int, list[LoadRow]]]:  # fmt: skip
    """The loads of each measured cell, or of those at these positions, with its position, in the order of the plan."""
    source = source_of(connection, sweep_id, metric)
    attempts = attempts_sql(segment, positions)
    tables, of_load, order = (
        _of_attempts(metric, attempts) if source is Source.LOAD else _of_runs(source, metric, attempts)
    )
    bound = {"sweep": sweep_id, "segment": segment, "metric": _score(metric), "path": f'$."{metric}"',
             "positions": _bound(positions)}  # fmt: skip
    rows = stored.read(connection, tables, ("place.position", "COALESCE(v.choice, 0)", *of_load), order, bound)
    for position, of_cell in groupby(rows, key=lambda row: row[1][0]):
        found = [_load(notes, source, load, list(group)) for load, group in groupby(of_cell, key=itemgetter(0))]
        if kept := [load for load in found if load is not None and load.values]:
            yield position, kept


def attempts_sql(segment: int | None, positions: Sequence[int] | None = None) -> str:
    """SQL: the loads `a` of each measured cell of the plan of `:sweep`, or of those at `:positions`, beside the one `v`
    that its value goes by.
    """
    return f"""(SELECT cell_id, min(position) AS position FROM plan WHERE sweep_id = :sweep {_among(positions)}
            GROUP BY cell_id) AS place
        CROSS JOIN cells ON cells.id = place.cell_id
        CROSS JOIN attempts AS v ON v.id = {_value_attempt(segment)} AND v.status = 'ok'
        CROSS JOIN attempts AS a ON {stored.same_time("a", "v")} AND a.status = 'ok'"""


Asked = tuple[str, tuple[str, ...], str]
"""Of what tables, which columns (a value, its question, seconds of the request and to its first piece), what order."""


def _of_runs(source: Source, metric: str, attempts: str) -> Asked:
    score = "(SELECT value FROM scores WHERE attempt_id = a.id AND part = runs.part AND name = {})"
    value = {
        Source.RUN_COLUMN: _RUN_COLUMNS.get(metric, "NULL"),
        Source.DECODE: "runs.eval_count",
        Source.RUN_SCORE: score.format(":metric"),
        Source.QUALITY: f"CASE WHEN runs.believed THEN COALESCE({score.format(repr('score'))}, 0) ELSE 0 END",
        Source.ANSWERED: "runs.believed",
    }[source]
    asked = "" if source in (Source.QUALITY, Source.ANSWERED) else "AND runs.believed = 1"
    tables = f"""{attempts}
        CROSS JOIN runs ON runs.attempt_id = a.id AND runs.warmup = 0 {asked}
        LEFT JOIN answers ON answers.attempt_id = runs.attempt_id AND answers.part = runs.part"""
    columns = (value, "COALESCE(answers.item, '')", "runs.client_duration_s", "runs.ttft_s")
    return tables, columns, "place.position, a.number, runs.number"


def _of_attempts(metric: str, attempts: str) -> Asked:
    value = f"a.{metric}" if metric in _ATTEMPT_COLUMNS else (
        "CASE WHEN json_valid(a.scores) THEN json_extract(a.scores, :path) END"
    )  # fmt: skip
    return attempts, (value, "''", "NULL", "NULL"), "place.position, a.number"


def _load(notes: Notes, source: Source, load: StoredLoad, rows: list[tuple[Any, tuple[Any, ...]]]) -> LoadRow | None:
    attempt, found = load.attempt_id, []
    choice = rows[0][1][1]
    for _, (_, _, *said) in rows:
        number = notes.field(f"a value of attempt {attempt}", lambda said: _value(source, *said), said, None)
        item = None if number is None else notes.field(f"a question of attempt {attempt}", _kept, said[1], None)
        if number is not None and item is not None:
            found.append((number, item))
    numbers, items = tuple(number for number, _ in found), tuple(item for _, item in found)
    is_value = load.purpose != Purpose.CONTROL and load.choice == choice
    return notes.row(
        f"attempt {attempt}",
        lambda: LoadRow(attempt, values.whole(load.choice), is_value, values.text(load.started_at), numbers, items),
    )


def _value(source: Source, value: object, _: object, latency_s: object, ttft_s: object) -> float | None:
    if source is Source.DECODE:
        latency, first = values.number(latency_s), values.optional_number(ttft_s)
        return streamed_decode_rate(values.optional_whole(value), latency, first)
    return values.optional_number(value)
