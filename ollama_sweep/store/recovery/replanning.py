"""Places in the plan for cells that a sweep has measured and whose own rows of it are lost.

The next `run` makes the plan anew of the sweep's file. Until then, and where there is no such file any more, what was
measured is shown all the same.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

from ollama_sweep.core.options import Scalar
from ollama_sweep.store import checksum
from ollama_sweep.store.plans import options_json, options_of

_WITHOUT_A_PLACE = """
SELECT DISTINCT attempts.sweep_id, sweeps.dimensions, cells.id, cells.num_ctx, cells.num_batch, cells.model, cells.task,
    cells.options, cells.server
FROM attempts JOIN cells ON cells.id = attempts.cell_id JOIN sweeps ON sweeps.id = attempts.sweep_id
WHERE cells.attempt_id IS NOT NULL AND NOT EXISTS
    (SELECT 1 FROM plan WHERE plan.sweep_id = attempts.sweep_id AND plan.cell_id = cells.id)
ORDER BY attempts.sweep_id, cells.id
"""
_PLACED = "INSERT INTO plan (sweep_id, position, cell_id, coordinates, pending) VALUES (?, ?, ?, ?, 0)"


def place_measured_cells(connection: sqlite3.Connection) -> int:
    """Give them the first places that are free, in the order in which cells were made; how many there were."""
    rows = connection.execute(_WITHOUT_A_PLACE).fetchall()
    free: dict[int, Iterator[int]] = {}
    for sweep_id, dimensions, cell_id, num_ctx, num_batch, model, task, *texts in rows:
        known: dict[str, Scalar] = {"num_ctx": num_ctx, "num_batch": num_batch, "model": model, "task": task}
        for text in texts:
            known |= options_of(text)
        if sweep_id not in free:
            free[sweep_id] = _free(connection, sweep_id)
        position = next(free[sweep_id])
        coordinates = _coordinates(json.loads(dimensions), known)
        connection.execute(_PLACED, (sweep_id, position, cell_id, coordinates))
        checksum.seal_rows(connection, "plan", "sweep_id = ? AND position = ?", (sweep_id, position))
    return len(rows)


def _free(connection: sqlite3.Connection, sweep_id: int) -> Iterator[int]:
    taken = {
        position for (position,) in connection.execute("SELECT position FROM plan WHERE sweep_id = ?", (sweep_id,))
    }
    return (position for position in itertools.count() if position not in taken)


def _coordinates(dimensions: Any, known: Mapping[str, Scalar]) -> str:
    """What the cell itself says of the sweep's dimensions; the length of a prompt is none of that."""
    return options_json(tuple((name, known[name]) for name in dimensions if name in known))
