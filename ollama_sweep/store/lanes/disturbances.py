"""What `doctor --lanes` found: whether lanes of a sweep disturb each other, by the sweep's name."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

from ollama_sweep.store import checksum, values
from ollama_sweep.store.plans import canonical_json
from ollama_sweep.store.values import Notes, Unreadable

if TYPE_CHECKING:
    from ollama_sweep.core.lanes.disturbance import Compared
    from ollama_sweep.core.lanes.lane import Lane


def keep(connection: sqlite3.Connection, sweep: str, found: Compared, now: str) -> None:
    """From now on this is what counts for the sweep. Doing it again changes nothing."""
    lanes = [{"name": one.name, "host": one.host, "gpu": one.gpu} for one in found.lanes]
    texts = json.dumps(lanes), canonical_json(dict(found.coordinates)), *map(json.dumps, (found.alone, found.beside))
    connection.execute(
        """INSERT INTO disturbances (sweep, lanes, coordinates, alone, beside, is_there, measured_at)
            SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE NOT EXISTS
                (SELECT 1 FROM disturbances WHERE sweep = ?1 AND measured_at = ?7 AND alone = ?4 AND beside = ?5)""",
        (sweep, *texts, found.disturbance.is_there, now),
    )
    checksum.seal_rows(connection, "disturbances", "sweep = ? AND checksum IS NULL", (sweep,))


_NEWEST = """SELECT lanes, coordinates, alone, beside, measured_at FROM disturbances
    WHERE id = (SELECT max(id) FROM disturbances WHERE sweep = ?)"""


def newest(connection: sqlite3.Connection, sweep: str, notes: Notes) -> Compared | None:
    """What counts for a sweep; None where nothing was measured."""
    rows = values.rows_of(connection, _NEWEST, (sweep,))
    return next(notes.rows(f"what doctor --lanes found of {sweep}", _compared, rows), None)


def flagging(connection: sqlite3.Connection, sweep_id: int, notes: Notes) -> Compared | None:
    """What flags cells that lanes of this sweep have measured; None where nothing does."""
    lanes = connection.execute("SELECT name, host, gpu FROM lanes WHERE sweep_id = ?", (sweep_id,)).fetchall()
    name = connection.execute("SELECT name FROM sweeps WHERE id = ?", (sweep_id,)).fetchone()
    found = newest(connection, name[0], notes) if lanes and name is not None else None
    if found is None or not found.disturbance.is_there:
        return None
    from ollama_sweep.core.lanes.lane import Lane  # a sweep without lanes needs none of it

    return found if any(found.tells_of(Lane(*lane)) for lane in lanes) else None


def last(connection: sqlite3.Connection) -> int:
    """The number of the newest of all; 0 where there is none."""
    return int(connection.execute("SELECT COALESCE(max(id), 0) FROM disturbances").fetchone()[0])


def _compared(lanes: object, coordinates: object, alone: object, beside: object, at: object) -> Compared:
    from ollama_sweep.core.lanes.disturbance import Compared

    return Compared(
        tuple(map(_lane, values.json_list(lanes))), values.scalars(coordinates), _rates(alone), _rates(beside),
        values.text(at),
    )  # fmt: skip


def _lane(found: Any) -> Lane:
    from ollama_sweep.core.lanes.lane import Lane

    if not isinstance(found, dict):
        raise Unreadable("no lane")
    name, host = values.text(found.get("name")), values.text(found.get("host"))
    return Lane(name, host, values.optional_whole(found.get("gpu")))


def _rates(value: object) -> tuple[float, ...]:
    found = tuple(map(values.number, values.json_list(value)))
    if len(found) < 2 or min(found) <= 0:
        raise Unreadable("no rates")
    return found
