"""Every cell of a plan as a planner sees it: where it stands, whether it may be measured, and what is known of it."""

# ruff: noqa: S608 - what is put into SQL here is our own text; values are always bound
from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ollama_sweep.core.outcome import Flag, Status
from ollama_sweep.core.surface.places import Found, Known, Place
from ollama_sweep.store import values
from ollama_sweep.store.memory.pruning import KIND
from ollama_sweep.store.rows import PendingCell
from ollama_sweep.store.values import Notes


@dataclass(frozen=True)
class GoalCell:
    """A cell of a plan. `is_open`: it is pending and measured itself. `found` is None where nothing is known."""

    pending: PendingCell
    place: Place
    is_open: bool
    found: Found | None


_KINDS = f"""SELECT plan.position, {KIND} FROM plan JOIN cells ON cells.id = plan.cell_id WHERE plan.sweep_id = ?
    ORDER BY plan.position"""
_CELLS = """SELECT plan.position, cells.id, cells.key, cells.attempts, cells.num_ctx, cells.num_batch,
    plan.pending = 1 AND plan.skip IS NULL AND NOT EXISTS (SELECT 1 FROM reused WHERE reused.cell_id = cells.id),
    CASE WHEN a.id IS NULL OR cells.status <> a.status THEN NULL ELSE cells.status END, COALESCE(a.flags, ''),
    a.prompt_eval_rate, a.runs, COALESCE(a.loads, 1), a.size_bytes, a.load_duration_s,
    a.prompt_eval_count, (julianday(a.finished_at) - julianday(a.started_at)) * 86400.0,
    (SELECT avg(ttft_s) FROM runs WHERE attempt_id = a.id AND warmup = 0),
    (SELECT prompt_eval_rate FROM runs WHERE attempt_id = a.id AND warmup = 1 ORDER BY number LIMIT 1)
    FROM plan JOIN cells ON cells.id = plan.cell_id LEFT JOIN attempts AS a ON a.id = cells.attempt_id
    WHERE plan.sweep_id = ? ORDER BY plan.position"""


def kinds(connection: sqlite3.Connection, sweep_id: int) -> dict[int, str]:
    """By position what a cell is beside its num_ctx and num_batch: equal for those of one grid."""
    return {int(position): str(kind) for position, kind in connection.execute(_KINDS, (sweep_id,))}


def cells(connection: sqlite3.Connection, sweep_id: int, notes: Notes) -> list[GoalCell]:
    """All cells of the plan that have both sizes, in its order."""
    rows = values.rows_of(connection, _CELLS, (sweep_id,))
    return list(_sound(notes.rows("a cell", _cell, rows)))


def _sound(found: Iterator[GoalCell]) -> Iterator[GoalCell]:
    return (cell for cell in found if cell.place.num_ctx > 0 and cell.place.num_batch > 0)


def _cell(
    position: int, cell_id: int, key: object, attempts: int, ctx: object, batch: object, is_open: object,
    status: object, flags: object, *numbers: Any,
) -> GoalCell:  # fmt: skip
    pending = PendingCell(cell_id, values.text(key), position, attempts)
    place = Place(position, values.whole(ctx), values.whole(batch))
    found = None if status is None else _found(values.status(status), values.known_flags(values.text(flags)), numbers)
    return GoalCell(pending, place, bool(is_open), found)


def _found(status: Status, flags: frozenset[Flag], numbers: tuple[Any, ...]) -> Found | None:
    if not status.is_final or status is Status.SKIPPED:
        return None
    rate, runs, loads, size, load_s, count, seconds, ttft_s, first = map(values.optional_number, numbers)
    if status is not Status.OK:
        known = Known.FAILED if status is Status.OOM else Known.TRIED
        return Found(known, loads=1, seconds=max(0.0, seconds or 0.0))
    warming = math.log(first / rate) if first and rate and first > 0 and rate > 0 else None
    return Found(
        Known.SPILLED if Flag.SPILLED in flags else Known.FITS, rate, int(runs or 0), int(loads or 1),
        None if size is None else int(size), max(0.0, seconds or 0.0), load_s,
        None if count is None else int(count), ttft_s, warming,
    )  # fmt: skip
