"""Keep which lanes a sweep has and how they stand, and which lane measures an attempt until when."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from ollama_sweep.core.options import Scalar
from ollama_sweep.store import checksum, values
from ollama_sweep.store.lanes.tables import LANE
from ollama_sweep.store.plans import canonical_json, options_of
from ollama_sweep.store.schema import add_view_columns
from ollama_sweep.store.values import Notes

if TYPE_CHECKING:
    from ollama_sweep.core.lanes.lane import Lane


class State(StrEnum):
    """How a lane stands, as the column `state` has it."""

    STARTS = "starts"
    AT_WORK = "at work"
    AWAY = "away"
    LEFT_OUT = "left out"
    ENDED = "ended"


@dataclass(frozen=True)
class Leased:
    """Which lane measures an attempt, and how many seconds it is waited for."""

    lane: str
    seconds: float


@dataclass(frozen=True)
class LaneRow:
    """A lane of a sweep. `doing` are the coordinates of the cell that it measures now; `since` is when that began, or
    when it came to stand as it does. `ok` and `failed` count its attempts.
    """

    name: str
    host: str
    gpu: int | None
    state: str
    says: str
    since: str
    ok: int = 0
    failed: int = 0
    doing: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def is_in_trouble(self) -> bool:
        """It does not measure for now, or something that it measured failed."""
        return self.state in (State.AWAY, State.LEFT_OUT) or self.failed > 0


def keep_lane(
    connection: sqlite3.Connection, sweep_id: int, lane: Lane, fingerprint: Mapping[str, str], state: State, says: str,
    now: str,
) -> int:  # fmt: skip
    """A lane and how it stands now; its number. An empty fingerprint leaves the known one."""
    (number,) = connection.execute(
        """INSERT INTO lanes (sweep_id, name, host, gpu, fingerprint, state, says, changed_at)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (sweep_id, name) DO UPDATE SET host = excluded.host, gpu = excluded.gpu,
                fingerprint = CASE excluded.fingerprint WHEN '{}' THEN fingerprint ELSE excluded.fingerprint END,
                changed_at = CASE WHEN state = excluded.state AND says = excluded.says THEN changed_at
                    ELSE excluded.changed_at END, state = excluded.state, says = excluded.says
            RETURNING id""",
        (sweep_id, lane.name, lane.host, lane.gpu, canonical_json(dict(sorted(fingerprint.items()))), state.value, says,
         now),
    ).fetchone()  # fmt: skip
    checksum.seal_rows(connection, "lanes", "id = ?", (number,))
    add_view_columns(connection, [LANE], "dimension")
    return int(number)


def lease(connection: sqlite3.Connection, attempt_id: int, sweep_id: int, lane: str, until: str) -> None:
    """This lane measures the attempt, and is waited for so long. Doing it again changes nothing."""
    connection.execute(
        """INSERT INTO leases (attempt_id, lane_id, until_at)
            SELECT ?, id, ? FROM lanes WHERE sweep_id = ? AND name = ? ON CONFLICT (attempt_id) DO NOTHING""",
        (attempt_id, until, sweep_id, lane),
    )
    checksum.seal_rows(connection, "leases", "attempt_id = ?", (attempt_id,))


_LANES = """SELECT l.name, l.host, l.gpu, l.state, l.says, COALESCE(a.started_at, l.changed_at),
    (SELECT count(*) FROM leases JOIN main.attempts AS o ON o.id = attempt_id WHERE lane_id = l.id AND o.status = 'ok'),
    (SELECT count(*) FROM leases JOIN main.attempts AS o ON o.id = attempt_id WHERE lane_id = l.id
        AND o.finished_at IS NOT NULL AND o.status NOT IN ('ok', 'interrupted', 'discarded')),
    (SELECT coordinates FROM main.plan AS p WHERE p.sweep_id = l.sweep_id AND p.cell_id = a.cell_id LIMIT 1)
    FROM lanes AS l LEFT JOIN main.attempts AS a ON a.sweep_id = l.sweep_id AND a.finished_at IS NULL
        AND a.id IN (SELECT attempt_id FROM leases WHERE lane_id = l.id)
    WHERE l.sweep_id = ? ORDER BY l.id"""


def lanes(connection: sqlite3.Connection, sweep_id: int, notes: Notes) -> list[LaneRow]:
    """Those of a sweep, in the order in which they came."""
    return list(notes.rows("a lane", _lane, values.rows_of(connection, _LANES, (sweep_id,))))


def _lane(
    name: object, host: object, gpu: object, state: object, says: object, since: object, ok: object, failed: object,
    doing: object,
) -> LaneRow:  # fmt: skip
    place = {} if doing is None else dict(options_of(values.text(doing)))
    return LaneRow(
        values.text(name), values.text(host), values.optional_whole(gpu), values.text(state), values.text(says),
        values.text(since), values.whole(ok), values.whole(failed), place,
    )  # fmt: skip


def lane_of(connection: sqlite3.Connection, attempt_id: int) -> str:
    """Which lane measured an attempt; "" for one that was measured without lanes."""
    sql = "SELECT name FROM lanes JOIN leases ON lane_id = lanes.id WHERE attempt_id = ?"
    row = connection.execute(sql, (attempt_id,)).fetchone()
    return "" if row is None else values.text(row[0])


_RATES = """WITH now AS (SELECT id, segment_id FROM sweeps WHERE id = :sweep),
    control AS (SELECT cell_id FROM controls JOIN now ON controls.sweep_id = now.id
        AND controls.segment_id = now.segment_id ORDER BY controls.id DESC LIMIT 1)
    SELECT l.name, a.prompt_eval_rate FROM attempts AS a JOIN now ON a.sweep_id = now.id
        AND a.segment_id = now.segment_id JOIN control ON a.cell_id = control.cell_id
        JOIN leases ON leases.attempt_id = a.id JOIN lanes AS l ON l.id = lane_id
    WHERE a.status = 'ok' AND a.prompt_eval_rate > 0 AND (a.purpose IS NULL OR a.purpose = 'control') ORDER BY a.id"""
"""Loads of the control cell by themselves: the attempt of a further load speaks for earlier ones as well."""


def control_rates(connection: sqlite3.Connection, sweep_id: int, notes: Notes) -> dict[str, list[float]]:
    """What the loads of the control cell gave in the surroundings at hand, by lane; in tokens/s."""
    found: dict[str, list[float]] = {}
    rows = values.rows_of(connection, _RATES, {"sweep": sweep_id})
    for name, rate in notes.rows(
        "a control of a lane", lambda *row: (values.text(row[0]), values.number(row[1])), rows
    ):
        found.setdefault(name, []).append(rate)
    return found
