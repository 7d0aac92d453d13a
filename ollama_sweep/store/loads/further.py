"""Which cells that have a value want a further load, what for, and what came of it.

While it waits, runs, fails or is killed its cell keeps status, value and place. A load of a second look was made
because of the value before it, so it begins a new `choice`: the cell's value is that of the loads made after it.
"""

# ruff: noqa: S608 - what is put into SQL here are our own names of columns; values are always bound
from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ollama_sweep.core.outcome import Flag, Outcome, Purpose, Status
from ollama_sweep.store import attempts, checksum, values
from ollama_sweep.store.loads import stored
from ollama_sweep.store.rows import DEATHS_UNTIL_PARKED
from ollama_sweep.store.values import Notes

SAMPLED, TOGETHER = 4000, 8
"""Attempts that stand for very many, and how many of them lie side by side."""
WAITING, DONE, FAILED, DROPPED = "waiting", "done", "failed", "dropped"

NEXT = """
SELECT f.id, f.cell_id, c.key, p.position, f.purpose, f.number, f.reason, COALESCE(f.choice, a.choice, 0), f.place
FROM further_loads AS f INDEXED BY further_loads_waiting CROSS JOIN cells AS c ON c.id = f.cell_id
    CROSS JOIN attempts AS a ON a.id = c.attempt_id
    CROSS JOIN plan AS p INDEXED BY plan_cell ON p.cell_id = f.cell_id AND p.sweep_id = f.sweep_id
WHERE f.sweep_id = ? AND f.state = 'waiting' AND c.status = 'ok' AND (? = '[]' OR f.purpose IN
    (SELECT value FROM json_each(?))) ORDER BY f.place, f.id LIMIT 1
"""


@dataclass(frozen=True)
class FurtherLoad:
    """A load that a cell with a value is to have.

    `number` is that of the pass or stage, `place` its place in that; `choice` how often the cell was chosen for its
    value, this time included.
    """

    further_id: int
    cell_id: int
    key: str
    position: int
    purpose: Purpose
    number: int
    reason: str
    choice: int
    place: int = 0


@dataclass(frozen=True)
class Wish:
    """A cell of a sweep's plan that is to have a further load, and why."""

    position: int
    reason: str


@dataclass(frozen=True)
class Made:
    """A further load that a cell had, or waits for: what for, why, and where it stands. `attempt_id` None: none yet."""

    purpose: Purpose
    reason: str
    state: str
    attempt_id: int | None


def of_cell(connection: sqlite3.Connection, key: str, notes: Notes) -> list[Made]:
    """Those of a cell, the oldest first."""
    sql = """SELECT f.purpose, f.reason, f.state, f.attempt_id FROM further_loads AS f
        JOIN cells ON cells.id = f.cell_id WHERE cells.key = ? ORDER BY f.id"""

    def made(purpose: object, reason: object, state: object, attempt_id: int | None) -> Made:
        return Made(Purpose(values.text(purpose)), values.text(reason), values.text(state), attempt_id)

    return list(notes.rows("a further load", made, values.rows_of(connection, sql, (key,))))


def following(connection: sqlite3.Connection, sweep_id: int, purposes: Collection[Purpose] = ()) -> FurtherLoad | None:
    """The one whose turn is next, of those made for this where anything is named; None where no cell waits for one."""
    wanted = json.dumps(sorted(purposes))
    row = connection.execute(NEXT, (sweep_id, wanted, wanted)).fetchone()
    if row is None:
        return None
    number, cell_id, key, position, purpose, *rest = row
    return FurtherLoad(number, cell_id, key, position, Purpose(purpose), *rest)


def waiting(connection: sqlite3.Connection, sweep_id: int) -> dict[Purpose, int]:
    """How many wait, by what they are made for."""
    rows = connection.execute(
        """SELECT f.purpose, count(*) FROM further_loads AS f JOIN cells AS c ON c.id = f.cell_id AND c.status = 'ok'
            WHERE f.sweep_id = ? AND f.state = 'waiting'
                AND EXISTS (SELECT 1 FROM plan AS p WHERE p.cell_id = f.cell_id AND p.sweep_id = f.sweep_id)
            GROUP BY f.purpose""",
        (sweep_id,),
    )
    return {Purpose(purpose): count for purpose, count in rows}


def want_pass(connection: sqlite3.Connection, sweep_id: int, number: int, order: Iterable[int]) -> int:
    """Every measured cell of the plan that had no such pass is to be loaded once more, in the order of these positions.

    Returns how many they are.
    """
    connection.execute("CREATE TEMP TABLE places (place INTEGER PRIMARY KEY, position INTEGER)")
    connection.executemany("INSERT INTO places (position) VALUES (?)", ((position,) for position in order))
    found = connection.execute(
        """INSERT INTO further_loads (sweep_id, cell_id, purpose, number, place, reason)
            SELECT p.sweep_id, p.cell_id, 'pass', ?, places.place, 'pass ' || ?
            FROM places JOIN plan AS p ON p.sweep_id = ? AND p.position = places.position
                JOIN cells AS c ON c.id = p.cell_id
            WHERE c.status = 'ok' AND c.attempt_id IS NOT NULL
                AND NOT EXISTS (SELECT 1 FROM reused WHERE reused.cell_id = p.cell_id) AND NOT EXISTS (
                SELECT 1 FROM further_loads AS f INDEXED BY further_loads_cell
                WHERE f.cell_id = p.cell_id AND f.sweep_id = p.sweep_id AND f.purpose = 'pass' AND f.number = ?
                    AND f.state <> 'dropped')""",
        (number, number, sweep_id, number),
    )
    connection.execute("DROP TABLE places")
    _seal(connection, sweep_id)
    return found.rowcount


def _seal(connection: sqlite3.Connection, sweep_id: int) -> None:
    """What waits since now gets its checksum."""
    checksum.seal_rows(connection, "further_loads", f"sweep_id = ? AND state = '{WAITING}' AND checksum IS NULL",
                       (sweep_id,))  # fmt: skip


def want_in_turn(connection: sqlite3.Connection, sweep_id: int) -> None:
    """Every measured cell of the plan of which the sweep has no load of its own is to have one."""
    connection.execute(
        """INSERT INTO further_loads (sweep_id, cell_id, purpose, number, place, reason)
            SELECT p.sweep_id, p.cell_id, 'pair', 1, min(p.position), 'in turn with the other arm'
            FROM plan AS p JOIN cells AS c ON c.id = p.cell_id
            WHERE p.sweep_id = :sweep AND c.status = 'ok' AND c.attempt_id IS NOT NULL
                AND NOT EXISTS (SELECT 1 FROM reused WHERE reused.cell_id = p.cell_id)
                AND NOT EXISTS (SELECT 1 FROM attempts AS a WHERE a.cell_id = p.cell_id AND a.sweep_id = :sweep
                    AND a.status = 'ok' AND a.purpose IS NOT 'control')
                AND NOT EXISTS (SELECT 1 FROM further_loads AS f INDEXED BY further_loads_cell
                    WHERE f.cell_id = p.cell_id AND f.sweep_id = :sweep AND f.purpose = 'pair'
                        AND f.state <> 'dropped')
            GROUP BY p.cell_id""",
        {"sweep": sweep_id},
    )
    _seal(connection, sweep_id)


def want_again(connection: sqlite3.Connection, sweep_id: int, stage: int, wishes: Iterable[Wish], loads: int) -> None:
    """Cells that nobody should believe as they are get so many loads each, in this order, each cell at another time."""
    asked = list(wishes)
    for turn in range(loads):
        for place, wish in enumerate(asked):
            connection.execute(
                """INSERT INTO further_loads (sweep_id, cell_id, purpose, number, place, reason, choice)
                    SELECT p.sweep_id, p.cell_id, 'second_look', ?, ?, ?, max(COALESCE(a.choice, 0) + 1, ?)
                    FROM plan AS p JOIN cells AS c ON c.id = p.cell_id JOIN attempts AS a ON a.id = c.attempt_id
                    WHERE p.sweep_id = ? AND p.position = ? AND c.status = 'ok'
                        AND NOT EXISTS (SELECT 1 FROM reused WHERE reused.cell_id = p.cell_id)""",
                (stage, turn * len(asked) + place, wish.reason, stage, sweep_id, wish.position),
            )
    _seal(connection, sweep_id)


def drop_waiting(connection: sqlite3.Connection, sweep_id: int, purpose: Purpose) -> None:
    """Those that wait are not wanted any more; what was made stays."""
    connection.execute(
        "UPDATE further_loads SET state = 'dropped' WHERE sweep_id = ? AND purpose = ? AND state = 'waiting'",
        (sweep_id, purpose.value),
    )


def begin(connection: sqlite3.Connection, load: FurtherLoad, attempt_id: int) -> None:
    """The attempt that was begun for it."""
    connection.execute("UPDATE further_loads SET attempt_id = ? WHERE id = ?", (attempt_id, load.further_id))
    connection.execute("UPDATE attempts SET choice = ? WHERE id = ?", (load.choice or None, attempt_id))


def finish(
    connection: sqlite3.Connection, load: FurtherLoad, attempt_id: int, outcome: Outcome, now: str, *, is_over: bool
) -> None:
    """Store how it ended. Where it gave numbers they become the cell's, else the cell keeps what it has.

    `is_over` is False where it is to be tried again.
    """
    cell_id = attempts.end(connection, attempt_id, outcome, now)
    if cell_id is None:
        return
    state = DONE if outcome.status is Status.OK else FAILED if is_over else WAITING
    connection.execute("UPDATE further_loads SET state = ? WHERE id = ?", (state, load.further_id))
    if state == DONE:
        attempts.update_cell(connection, cell_id, attempt_id, outcome, Status.OK)
    elif outcome.status.counts:
        connection.execute("UPDATE cells SET attempts = attempts + 1 WHERE id = ?", (cell_id,))
    if state == FAILED:
        unstable = {Flag.UNSTABLE} if outcome.status is Status.OOM else set()
        _add_flags(connection, cell_id, {Flag.LOAD_FAILED} | unstable)


def end_what_died(connection: sqlite3.Connection, attempt_id: int) -> None:
    """The process died in such a load: it waits again, or is given up after too many deaths."""
    row = connection.execute(
        """UPDATE further_loads SET deaths = deaths + 1,
                state = CASE WHEN deaths + 1 >= ? THEN 'failed' ELSE state END
            WHERE attempt_id = ? AND state = 'waiting' RETURNING cell_id, state""",
        (DEATHS_UNTIL_PARKED, attempt_id),
    ).fetchone()
    if row is not None and row[1] == FAILED:
        _add_flags(connection, row[0], {Flag.LOAD_FAILED})


def _add_flags(connection: sqlite3.Connection, cell_id: int, flags: set[Flag]) -> None:
    (text,) = connection.execute("SELECT flags FROM cells WHERE id = ?", (cell_id,)).fetchone()
    both = sorted({*values.known_flags(text), *flags})
    connection.execute("UPDATE cells SET flags = ? WHERE id = ?", (",".join(both), cell_id))


# -- the second look -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """A second look that has begun: how many of its stages were begun, and its share of the sweep's time."""

    look_id: int
    stage: int
    share: float
    is_over: bool


def look(connection: sqlite3.Connection, sweep_id: int) -> Look | None:
    """The sweep's last one."""
    row = connection.execute(
        "SELECT id, stage, share, ended_at IS NOT NULL FROM second_looks WHERE sweep_id = ? ORDER BY id DESC LIMIT 1",
        (sweep_id,),
    ).fetchone()
    return Look(row[0], row[1], row[2], bool(row[3])) if row else None


def begin_look(connection: sqlite3.Connection, sweep_id: int, share: float, now: str) -> None:
    connection.execute(
        "INSERT INTO second_looks (sweep_id, share, stage, begun_at) VALUES (?, ?, 0, ?)", (sweep_id, share, now)
    )
    checksum.seal_rows(connection, "second_looks", "id = last_insert_rowid()")


def begin_stage(
    connection: sqlite3.Connection, look_id: int, stage: int, wishes: Iterable[Wish], *, loads: int
) -> None:
    """The cells of one stage."""
    row = connection.execute("UPDATE second_looks SET stage = ? WHERE id = ? RETURNING sweep_id", (stage, look_id))
    want_again(connection, row.fetchone()[0], stage, wishes, loads)


def end_look(connection: sqlite3.Connection, sweep_id: int, now: str) -> None:
    """What still waits is dropped: its time is over, or nobody wants it any more."""
    drop_waiting(connection, sweep_id, Purpose.SECOND_LOOK)
    connection.execute("UPDATE second_looks SET ended_at = ? WHERE sweep_id = ? AND ended_at IS NULL", (now, sweep_id))


def seconds(
    connection: sqlite3.Connection, sweep_id: int, notes: Notes, *, most: int | None = None
) -> dict[Purpose | None, float]:
    """What the sweep's attempts took over all sessions, by what they were made for; None for the cells' own.

    Of more attempts than `most` it is estimated: by SAMPLED of them, evenly from all, in groups.
    """
    count, first, last = connection.execute(
        "SELECT count(*), min(id), max(id) FROM main.attempts WHERE sweep_id = ?", (sweep_id,)
    ).fetchone()
    bound: dict[str, object] = {"sweep": sweep_id}
    which, share = "sweep_id = :sweep", 1.0
    if most is not None and count > most:
        step = max(1, (last - first) // (SAMPLED // TOGETHER))
        ids = {number for (number,) in connection.execute(
            """SELECT a.id FROM json_each(:points) AS point CROSS JOIN main.attempts AS a ON a.id IN (
                SELECT id FROM main.attempts WHERE sweep_id = :sweep AND id >= point.value ORDER BY id LIMIT :n)""",
            {**bound, "points": json.dumps(list(range(first, last + 1, step))), "n": TOGETHER})}  # fmt: skip
        which, share = "id IN (SELECT value FROM json_each(:ids))", count / len(ids)
        bound["ids"] = json.dumps(sorted(ids))
    rows = values.rows_of(
        connection,
        f"""SELECT purpose, sum(max(0, julianday(finished_at) - julianday(started_at))) * 86400.0 FROM attempts
            WHERE {which} AND finished_at <> '' AND status NOT IN ('interrupted', 'discarded') GROUP BY purpose""",
        bound,
    )
    found = notes.rows("the time of attempts", lambda name, took: (name and Purpose(name), values.number(took)), rows)
    return {purpose: took * share for purpose, took in found}


def has_looked(connection: sqlite3.Connection, look_id: int, stage: int) -> bool:
    """Whether a load of this stage of the look has been made."""
    sql = """SELECT EXISTS (SELECT 1 FROM second_looks AS l JOIN further_loads AS f ON f.sweep_id = l.sweep_id
        JOIN attempts AS a ON a.id = f.attempt_id AND a.started_at >= l.begun_at
        WHERE l.id = ? AND f.purpose = 'second_look' AND f.number = ? AND f.state IN ('done', 'failed'))"""
    return bool(connection.execute(sql, (look_id, stage)).fetchone()[0])


def of_all_loads(connection: sqlite3.Connection, sweep_id: int, reason: str) -> dict[int, dict[str, float]]:
    """What cells of the last second look that were chosen for this reason come to by all their loads of the segment at
    hand, those before the choice as well: by position and metric.
    """
    tables = f"""sweeps AS s JOIN second_looks AS l ON l.id = (SELECT max(id) FROM second_looks WHERE sweep_id = s.id)
        JOIN further_loads AS f ON f.sweep_id = s.id AND f.purpose = 'second_look' AND f.reason = :reason
        JOIN attempts AS its ON its.id = f.attempt_id AND its.started_at >= l.begun_at AND f.state = 'done'
        JOIN plan AS p ON p.sweep_id = s.id AND p.cell_id = f.cell_id
        JOIN attempts AS a ON {stored.same_time("a", "its")} AND a.status = 'ok' AND {stored.gives_value_sql("a")}
        JOIN load_values AS v ON v.attempt_id = a.id WHERE s.id = :sweep"""
    found: dict[int, dict[str, dict[int, float]]] = {}
    bound = {"sweep": sweep_id, "reason": reason}
    for load, (position, metric, log_median) in stored.read(
        connection, tables, ("p.position", "v.metric", "v.log_median"), "p.position", bound
    ):
        found.setdefault(position, {}).setdefault(metric, {})[load.attempt_id] = log_median
    return {
        position: {metric: math.exp(math.fsum(logs.values()) / len(logs)) for metric, logs in by_metric.items()}
        for position, by_metric in found.items()
    }


def made(connection: sqlite3.Connection, sweep_id: int) -> dict[Purpose | None, int]:
    """How many loads of the sweep came to an end, by what they were made for."""
    rows = connection.execute(
        """SELECT purpose, count(*) FROM attempts WHERE sweep_id = ? AND finished_at IS NOT NULL
            AND status NOT IN ('interrupted', 'discarded') GROUP BY purpose""",
        (sweep_id,),
    )
    return {purpose and Purpose(purpose): count for purpose, count in rows}


def wants_first_state(connection: sqlite3.Connection, sweep_id: int) -> bool:
    """Whether a pending cell of the plan has never had a final state."""
    sql = """SELECT EXISTS (SELECT 1 FROM plan INDEXED BY plan_pending CROSS JOIN cells ON cells.id = plan.cell_id
        WHERE plan.sweep_id = ? AND plan.pending = 1 AND cells.attempt_id IS NULL)"""
    return bool(connection.execute(sql, (sweep_id,)).fetchone()[0])
