"""The loads that the values of a sweep's cells go by, with all that was asked of each: for forms that compare loads.

Row by row, never all of them in memory. Controls, and earlier loads that are no part of a value, are left out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

from ollama_sweep.core.cell import MAIN_TASK, model_label
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Purpose
from ollama_sweep.store import values
from ollama_sweep.store.loads import compared, stored
from ollama_sweep.store.loads.stored import StoredLoad
from ollama_sweep.store.values import Notes

_COLUMNS = (
    "COALESCE(v.choice, 0)", "place.position", "plan.coordinates", "COALESCE(plan.model, cells.model)",
    "cells.quantization", "cells.parameter_size", "cells.options", "cells.server", "a.effective_num_batch",
    "(SELECT fingerprint FROM segments WHERE segments.id = a.segment_id)",
    "runs.prompt_eval_count", "runs.prompt_eval_duration_s", "runs.prompt_eval_rate", "runs.eval_count",
    "runs.eval_duration_s", "runs.eval_rate",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """A believed run. Counts in tokens, durations in seconds, rates in tokens/s; None is unknown."""

    prompt_eval_count: int | None
    prompt_eval_duration_s: float | None
    prompt_eval_rate: float | None
    eval_count: int | None
    eval_duration_s: float | None
    eval_rate: float | None


@dataclass(frozen=True, slots=True)
class MeasuredLoad:
    """One load of a cell. `model` has no folders; `surroundings` are those it was measured in, empty where unknown."""

    position: int
    coordinates: Mapping[str, Scalar]
    model: str
    quantization: str | None
    parameter_size: str | None
    options: Mapping[str, Scalar]
    server: Mapping[str, Scalar]
    effective_num_batch: int | None
    surroundings: Mapping[str, Any]
    started_at: datetime
    runs: tuple[MeasuredRun, ...]


def segments(connection: sqlite3.Connection, sweep_id: int) -> list[int]:
    """Those in which the values of a sweep were measured, by whichever sweep; the oldest first."""
    sql = """SELECT DISTINCT a.segment_id FROM plan JOIN cells ON cells.id = plan.cell_id
        JOIN attempts AS a ON a.id = cells.attempt_id
        WHERE plan.sweep_id = ? AND a.status = 'ok' AND a.segment_id IS NOT NULL ORDER BY a.segment_id"""
    return [number for (number,) in values.rows_of(connection, sql, (sweep_id,))]


def loads(connection: sqlite3.Connection, notes: Notes, sweep_id: int, segment: int | None) -> Iterator[MeasuredLoad]:
    """Those of the main task's cells now, or in a segment; in the order of the plan, a cell's oldest first."""
    tables = f"""{compared.attempts_sql(segment)}
        CROSS JOIN plan ON plan.sweep_id = :sweep AND plan.position = place.position
        CROSS JOIN runs ON runs.attempt_id = a.id AND runs.warmup = 0 AND runs.believed = 1
        WHERE cells.task = :task"""
    bound = {"sweep": sweep_id, "segment": segment, "task": MAIN_TASK}
    rows = stored.read(connection, tables, _COLUMNS, "place.position, a.number, runs.number", bound)
    for load, of_load in groupby(rows, key=itemgetter(0)):
        found = [row for _, row in of_load]
        if load.purpose == Purpose.CONTROL or load.choice != found[0][0]:
            continue
        made = notes.row(f"attempt {load.attempt_id}", _load, notes, load, found)
        if made is not None and made.runs:
            yield made


def _load(notes: Notes, load: StoredLoad, rows: list[tuple[Any, ...]]) -> MeasuredLoad:
    _, position, coordinates, model, quantization, size, options, server, batch, surroundings, *_ = rows[0]
    runs = notes.rows(f"a run of attempt {load.attempt_id}", _run, (row[10:] for row in rows))
    return MeasuredLoad(
        values.whole(position), values.scalars(coordinates), model_label(values.text(model)),
        values.optional_text(quantization), values.optional_text(size), values.scalars(options),
        values.scalars(server), values.optional_whole(batch),
        {} if surroundings is None else values.json_object(surroundings), values.moment(load.started_at), tuple(runs),
    )  # fmt: skip


def _run(
    count: object, prompt_s: object, rate: object, written: object, eval_s: object, eval_rate: object
) -> MeasuredRun:
    return MeasuredRun(
        values.optional_whole(count), values.optional_number(prompt_s), values.optional_number(rate),
        values.optional_whole(written), values.optional_number(eval_s), values.optional_number(eval_rate),
    )  # fmt: skip
