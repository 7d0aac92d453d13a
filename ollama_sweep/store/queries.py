"""What both the writer and a reader ask: plain functions over a connection."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime

from ollama_sweep.core.cell import Cell, content_hash
from ollama_sweep.core.forecast import RECENT_ATTEMPTS, Took
from ollama_sweep.core.outcome import Status
from ollama_sweep.store.plans import options_of
from ollama_sweep.store.rows import ControlCell, PendingCell, PlannedCell

NEXT_PENDING = """
SELECT cells.id, cells.key, plan.position, cells.attempts
FROM plan INDEXED BY plan_pending CROSS JOIN cells ON cells.id = plan.cell_id
WHERE plan.sweep_id = ? AND plan.pending = 1 ORDER BY plan.position LIMIT 1
"""
CELL_BY_KEY = """
SELECT cells.id, cells.key, plan.position, cells.attempts
FROM cells JOIN plan ON plan.cell_id = cells.id AND plan.sweep_id = ?
WHERE cells.key = ? ORDER BY plan.position LIMIT 1
"""


def next_pending(connection: sqlite3.Connection, sweep_id: int) -> PendingCell | None:
    """The pending cell with the lowest position."""
    return _pending(connection.execute(NEXT_PENDING, (sweep_id,)).fetchone())


def cell_by_key(connection: sqlite3.Connection, sweep_id: int, key: str) -> PendingCell | None:
    """A cell of the sweep's plan, whatever its status; None where the plan does not have it."""
    return _pending(connection.execute(CELL_BY_KEY, (sweep_id, key)).fetchone())


def _pending(row: tuple[int, str, int, int] | None) -> PendingCell | None:
    return None if row is None else PendingCell(cell_id=row[0], key=row[1], position=row[2], attempts=row[3])


def planned(connection: sqlite3.Connection, sweep_id: int, position: int) -> PlannedCell:
    """A cell of the plan as it was registered, so that going on needs no walk over the grid. Raises KeyError."""
    row = connection.execute(
        """SELECT c.key, p.coordinates, COALESCE(p.model, c.model), c.options, c.task, c.task_options, c.server,
                c.model_digest, c.prompt_hash, c.quantization, c.parameter_size, p.skip
            FROM plan AS p JOIN cells AS c ON c.id = p.cell_id WHERE p.sweep_id = ? AND p.position = ?""",
        (sweep_id, position),
    ).fetchone()
    if row is None:
        raise KeyError(position)
    task_options = options_of(row[5])
    cell = Cell(
        coordinates=options_of(row[1]), model=row[2], options=options_of(row[3]), task=row[4],
        task_options=task_options, server=options_of(row[6]), system=str(dict(task_options).get("system") or ""),
    )  # fmt: skip
    return PlannedCell(
        key=row[0], cell=cell, model_digest=row[7], prompt_hash=row[8], quantization=row[9], parameter_size=row[10],
        status=Status.PENDING if row[11] is None else Status.SKIPPED, reason=row[11] or "",
    )  # fmt: skip


def counts(connection: sqlite3.Connection, sweep_id: int) -> dict[Status, int]:
    """How many cells of the sweep have each status; those without any are left out."""
    rows = connection.execute("SELECT status, cells FROM status_counts WHERE sweep_id = ? AND cells > 0", (sweep_id,))
    return {Status(status): count for status, count in rows}


def history(connection: sqlite3.Connection, sweep_id: int) -> list[Took]:
    """What the last finished attempts of the sweep took, the newest first; none that the computer slept through."""
    rows = connection.execute(
        """SELECT cell_id, started_at, finished_at FROM main.attempts INDEXED BY attempts_sweep
            WHERE sweep_id = ? AND finished_at IS NOT NULL AND status NOT IN ('interrupted', 'discarded')
            ORDER BY id DESC LIMIT ?""",
        (sweep_id, RECENT_ATTEMPTS),
    )
    return [Took(cell, _seconds(start, end)) for cell, start, end in rows]


def _seconds(start: str, end: str) -> float:
    return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


def former_statuses(connection: sqlite3.Connection, cell_id: int) -> frozenset[Status]:
    """How the cell's ended attempts ended."""
    sql = "SELECT DISTINCT status FROM attempts WHERE cell_id = ? AND finished_at IS NOT NULL"
    return frozenset(Status(status) for (status,) in connection.execute(sql, (cell_id,)))


def prompt_tokens(
    connection: sqlite3.Connection, engine: str, model_digest: str, modelfile: str, prompt_hash: str
) -> int | None:
    """The prompt's true number of tokens on this model, where it was counted before."""
    row = connection.execute(
        """SELECT tokens FROM prompt_tokens
            WHERE engine = ? AND model_digest = ? AND modelfile_hash = ? AND prompt_hash = ?""",
        (engine, model_digest, content_hash(modelfile), prompt_hash),
    ).fetchone()
    return None if row is None else int(row[0])


def made_prompt(
    connection: sqlite3.Connection, engine: str, model_digest: str, modelfile: str, spec_text: str
) -> str | None:
    """The text that was made for `{tokens: N}` on this model before."""
    row = connection.execute(
        """SELECT text FROM made_prompts
            WHERE engine = ? AND model_digest = ? AND modelfile_hash = ? AND spec = ?""",
        (engine, model_digest, content_hash(modelfile), spec_text),
    ).fetchone()
    return None if row is None else str(row[0])


def control_cell(connection: sqlite3.Connection, sweep_id: int) -> ControlCell | None:
    """The first measured cell of the sweep in the surroundings at hand that is still part of its plan."""
    row = connection.execute(
        """SELECT attempts.cell_id, plan.position, attempts.prompt_eval_rate
            FROM attempts JOIN sweeps ON sweeps.id = attempts.sweep_id AND sweeps.segment_id = attempts.segment_id
            JOIN plan ON plan.sweep_id = attempts.sweep_id AND plan.cell_id = attempts.cell_id
            JOIN cells ON cells.id = attempts.cell_id AND cells.task = 'prompt_eval'
            WHERE attempts.sweep_id = ? AND attempts.status = 'ok' AND attempts.prompt_eval_rate > 0
            ORDER BY attempts.id LIMIT 1""",
        (sweep_id,),
    ).fetchone()
    return None if row is None else ControlCell(*row)


def drifts(connection: sqlite3.Connection, sweep_id: int, n: int) -> list[tuple[str, float]]:
    """The last control measurements, the newest first: when, and the drift as a share."""
    rows = connection.execute(
        "SELECT measured_at, drift FROM controls WHERE sweep_id = ? ORDER BY id DESC LIMIT ?", (sweep_id, n)
    )
    return [(str(at), float(drift)) for at, drift in rows]


def segment_of(connection: sqlite3.Connection, sweep_id: int) -> tuple[int, dict[str, object]] | None:
    """The surroundings the sweep was last measured in: number and fingerprint."""
    row = connection.execute(
        "SELECT g.id, g.fingerprint FROM sweeps JOIN segments AS g ON g.id = segment_id WHERE sweeps.id = ?",
        (sweep_id,),
    ).fetchone()
    return None if row is None else (int(row[0]), json.loads(row[1]))
