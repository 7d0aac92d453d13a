"""By how much a load was faster or slower for the time it was made at, by the line through the control cell's loads."""

from __future__ import annotations

import sqlite3

from ollama_sweep.core.noise.drift import line_of
from ollama_sweep.store import checksum, queries, values
from ollama_sweep.store.values import Notes

_HERE = """FROM attempts AS a JOIN sweeps AS s ON s.id = a.sweep_id AND s.segment_id = a.segment_id
    WHERE s.id = ? AND a.status = 'ok' AND a.prompt_eval_rate > 0"""


def make(connection: sqlite3.Connection, sweep_id: int, notes: Notes) -> None:
    """Those of every attempt in the surroundings at hand, anew; none where the line is no better than none.

    One that speaks for several loads has the mean of theirs.
    """
    connection.execute(f"DELETE FROM corrections WHERE attempt_id IN (SELECT a.id {_HERE})", (sweep_id,))  # noqa: S608
    points = queries.control_points(connection, sweep_id, notes)
    if not points or not (line := line_of(points)).is_better:
        return
    first = connection.execute(f"SELECT min(a.finished_at) {_HERE}", (sweep_id,)).fetchone()[0]
    start = values.moment(first)
    beside: dict[tuple[int, int], list[float]] = {}
    made: list[tuple[int, float]] = []
    rows = connection.execute(
        f"SELECT a.id, a.cell_id, a.choice, a.purpose, a.finished_at {_HERE} ORDER BY a.id", (sweep_id,)
    )
    for number, cell_id, choice, purpose, at in rows.fetchall():
        moment = notes.row("the time of an attempt", values.moment, at)
        if moment is None:
            continue
        own = line.correction((moment - start).total_seconds())
        loads = [own] if purpose == "control" else beside.setdefault((cell_id, choice or 0), [])
        if purpose != "control":
            loads.append(own)
        made.append((number, sum(loads) / len(loads)))
    connection.executemany("INSERT INTO corrections (attempt_id, drift) VALUES (?, ?)", made)
    checksum.seal_rows(connection, "corrections", f"attempt_id IN (SELECT a.id {_HERE})", (sweep_id,))
