"""Attempts that another process measures: which are open, whose turn they are, and those whose result came too late."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace

from ollama_sweep.core.outcome import Outcome, Purpose, Status
from ollama_sweep.store import attempts, values
from ollama_sweep.store.loads.further import FurtherLoad

LATE = "late"
"""The reason of an attempt whose result came when nobody waited for it any more."""


@dataclass(frozen=True)
class Known:
    """An attempt as the database has it. `is_open`: it has not ended."""

    attempt_id: int
    sweep_id: int
    cell_id: int
    key: str
    status: Status
    is_open: bool
    purpose: Purpose | None


def known(connection: sqlite3.Connection, attempt_id: int) -> Known | None:
    """An attempt; None where there is none of this number."""
    row = connection.execute(
        """SELECT a.sweep_id, a.cell_id, c.key, a.status, a.finished_at IS NULL, a.purpose
            FROM attempts AS a JOIN cells AS c ON c.id = a.cell_id WHERE a.id = ?""",
        (attempt_id,),
    ).fetchone()
    if row is None:
        return None
    sweep_id, cell_id, key, status, is_open, purpose = row
    return Known(
        attempt_id, sweep_id, cell_id, values.text(key), values.status(status), bool(is_open),
        None if purpose is None else Purpose(purpose),
    )  # fmt: skip


def further_of(connection: sqlite3.Connection, attempt_id: int) -> FurtherLoad | None:
    """The further load that an attempt was begun for."""
    row = connection.execute(
        """SELECT f.id, f.cell_id, c.key, p.position, f.purpose, f.number, f.reason, COALESCE(f.choice, a.choice, 0),
                f.place
            FROM further_loads AS f JOIN cells AS c ON c.id = f.cell_id JOIN attempts AS a ON a.id = f.attempt_id
            JOIN plan AS p ON p.cell_id = f.cell_id AND p.sweep_id = f.sweep_id
            WHERE f.attempt_id = ? LIMIT 1""",
        (attempt_id,),
    ).fetchone()
    if row is None:
        return None
    number, cell_id, key, position, purpose, *rest = row
    return FurtherLoad(number, cell_id, key, position, Purpose(purpose), *rest)


def keep_late(connection: sqlite3.Connection, attempt_id: int, outcome: Outcome, now: str) -> bool:
    """Keep a result whose attempt had been given up, as an attempt of its own that never counts; False where it is kept
    already. Its cell stays as it is.
    """
    error = f"the result of attempt {attempt_id}, which was given up before it came"
    is_kept = connection.execute(
        """SELECT 1 FROM attempts WHERE status = 'discarded' AND reason = ? AND error = ?
            AND cell_id = (SELECT cell_id FROM attempts WHERE id = ?)""",
        (LATE, error, attempt_id),
    ).fetchone()
    if is_kept:
        return False
    (late_id,) = connection.execute(
        """INSERT INTO attempts (cell_id, sweep_id, segment_id, repeats, number, status, timeout_s, started_at, pid,
                boot_id, purpose)
            SELECT cell_id, sweep_id, segment_id, repeats,
                (SELECT max(number) + 1 FROM attempts AS o WHERE o.cell_id = a.cell_id), 'started', timeout_s,
                started_at, pid, boot_id, purpose FROM attempts AS a WHERE a.id = ? RETURNING id""",
        (attempt_id,),
    ).fetchone()
    attempts.end(connection, late_id, _as_late(outcome, error), now)
    return True


def _as_late(outcome: Outcome, error: str) -> Outcome:
    """With its runs, none of which is believed, and without numbers of the whole."""
    runs = tuple(replace(run, believed=False, doubt=run.doubt or "attempt_failed") for run in outcome.runs)
    return Outcome(Status.DISCARDED, LATE, error, runs=runs, effective=outcome.effective, raw=outcome.raw,
                   series=outcome.series)  # fmt: skip
