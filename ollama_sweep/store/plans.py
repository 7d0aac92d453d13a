"""Register a sweep: its plan in order, what a dead session left open, and which cells take the result of another one.

Set-based SQL.
"""

# ruff: noqa: S608 - what is put into SQL here is our own text; values are always bound

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

from ollama_sweep.core.options import Options, Scalar
from ollama_sweep.core.outcome import Status
from ollama_sweep.store import checksum
from ollama_sweep.store.rows import DEATHS_UNTIL_PARKED, DIED, PARKED, REBOOT, PlannedCell, SweepHeader
from ollama_sweep.store.schema import add_view_columns
from ollama_sweep.store.values import BROKEN

_CHUNK = 2000


def canonical_json(value: object) -> str:
    """JSON as it is stored. NaN and infinity are refused (ValueError)."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def options_json(options: Options) -> str:
    return canonical_json(dict(options)) if options else "{}"


def options_of(text: str) -> Options:
    pairs: Mapping[str, Scalar] = json.loads(text)
    return tuple(pairs.items())


def save_sweep(connection: sqlite3.Connection, header: SweepHeader, repeats: int, now: str) -> int:
    """Insert or update the sweep by its name; it becomes the one that ran last."""
    row = connection.execute(
        """INSERT INTO sweeps (name, engine, config_path, spec, plan_fingerprint, machine, dimensions, repeats,
                created_at, last_run_at, run_order, pid)
            VALUES (?, ?, ?, ?, '', ?, ?, ?, ?, ?, (SELECT COALESCE(max(run_order), 0) + 1 FROM sweeps), ?)
            ON CONFLICT (name) DO UPDATE SET engine = excluded.engine, config_path = excluded.config_path,
                spec = excluded.spec, machine = excluded.machine, dimensions = excluded.dimensions,
                repeats = excluded.repeats, last_run_at = excluded.last_run_at, run_order = excluded.run_order,
                pid = excluded.pid
            RETURNING id""",
        (header.name, header.engine, header.config_path, canonical_json(header.spec), header.machine,
         canonical_json(header.dimensions), repeats, now, now, os.getpid()),
    ).fetchone()  # fmt: skip
    return int(row[0])


def known_sweep(connection: sqlite3.Connection, header: SweepHeader) -> int | None:
    """The number of the sweep whose materialised plan is this very one."""
    row = connection.execute(
        "SELECT id FROM sweeps WHERE name = ? AND plan_fingerprint = ?", (header.name, header.plan_fingerprint)
    ).fetchone()
    return None if row is None else int(row[0])


def replace_plan(
    connection: sqlite3.Connection, sweep_id: int, header: SweepHeader, cells: Iterable[PlannedCell]
) -> None:
    """Insert the cells nobody knows yet and make the plan anew; known cells are left as they are."""
    connection.execute("DELETE FROM plan WHERE sweep_id = ?", (sweep_id,))
    connection.execute("DELETE FROM status_counts WHERE sweep_id = ?", (sweep_id,))
    position, frontiers = 0, 0
    for chunk in _chunks(cells):
        connection.executemany(_INSERT_CELL, (_cell_row(header.engine, planned) for planned in chunk))
        rows = [_plan_row(sweep_id, position + offset, planned) for offset, planned in enumerate(chunk)]
        connection.executemany(_INSERT_PLAN, rows)
        position += len(chunk)
        frontiers = max(frontiers, *(planned.frontier for planned in chunk))
    if frontiers:
        connection.execute(_FIRST_OF_FRONTIER, {"sweep_id": sweep_id})
        connection.execute("UPDATE plan SET late = 2 WHERE sweep_id = ? AND late > 2", (sweep_id,))
    checksum.seal_rows(connection, "plan", "sweep_id = ?", (sweep_id,))
    connection.execute(
        """INSERT INTO status_counts (sweep_id, status, cells)
            SELECT sweep_id, status, count(*) FROM plan JOIN cells ON cells.id = cell_id
            WHERE sweep_id = ? GROUP BY status""",
        (sweep_id,),
    )
    connection.execute("UPDATE sweeps SET plan_fingerprint = ? WHERE id = ?", (header.plan_fingerprint, sweep_id))
    add_view_columns(connection, header.dimensions, "dimension")


def end_what_died(
    connection: sqlite3.Connection,
    now: str,
    boot_id: str | None,
    say: Callable[[str], None],
    end_further: Callable[[sqlite3.Connection, int], None],
    is_spared: Callable[[int], bool] = lambda attempt_id: False,
) -> None:
    """End every open attempt as interrupted; its cell is pending again, or parked after too many unexplained deaths.

    Those that are spared are measured by others. One with a purpose leaves its cell as it is; `end_further` says what
    becomes of that load.
    """
    rows = connection.execute(
        "SELECT id, cell_id, sweep_id, boot_id, purpose FROM attempts WHERE finished_at IS NULL"
    ).fetchall()
    for attempt_id, cell_id, sweep_id, attempt_boot, purpose in rows:
        if is_spared(attempt_id):
            continue
        rebooted = boot_id and attempt_boot and boot_id != attempt_boot
        connection.execute(
            "UPDATE attempts SET status = 'interrupted', reason = ?, finished_at = ? WHERE id = ?",
            (REBOOT if rebooted else DIED, now, attempt_id),
        )
        checksum.seal(connection, attempt_id)
        if purpose is not None:
            end_further(connection, attempt_id)
            continue
        (deaths,) = connection.execute(
            "UPDATE cells SET status = 'pending', reason = '', deaths = deaths + 1 WHERE id = ? RETURNING deaths",
            (cell_id,),
        ).fetchone()
        if deaths >= DEATHS_UNTIL_PARKED:
            _park(connection, cell_id, sweep_id, say)


def _park(connection: sqlite3.Connection, cell_id: int, sweep_id: int, say: Callable[[str], None]) -> None:
    connection.execute("UPDATE cells SET status = 'error', reason = ? WHERE id = ?", (PARKED, cell_id))
    row = connection.execute(
        "SELECT coordinates FROM plan WHERE cell_id = ? AND sweep_id = ?", (cell_id, sweep_id)
    ).fetchone()
    try:
        label = ", ".join(f"{name} {value}" for name, value in options_of(row[0]))
    except BROKEN:  # no row, or one that cannot be read
        label = f"cell {cell_id}"
    say(f"{label}: the sweep died {DEATHS_UNTIL_PARKED} times in a row in this cell; it is left out. --retry error")


_INSERT_CELL = """
INSERT INTO cells (key, engine, model, model_digest, num_ctx, num_batch, options, server, task, task_options,
    prompt_hash, quantization, parameter_size, status, reason)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING
"""
_INSERT_PLAN = """
INSERT INTO plan (sweep_id, position, cell_id, coordinates, model, skip, late, same_as, pending)
SELECT ?, ?, id, ?, NULLIF(?, model), ?, ?, (SELECT id FROM cells WHERE key = ?), status = 'pending'
FROM cells WHERE key = ?
"""
_FIRST_OF_FRONTIER = """
UPDATE plan SET late = 1 WHERE sweep_id = :sweep_id AND position IN (SELECT position FROM (
    SELECT position, row_number() OVER (
        PARTITION BY late ORDER BY num_ctx * num_batch, num_ctx, position) AS place
    FROM plan JOIN cells ON cells.id = cell_id WHERE sweep_id = :sweep_id AND late > 1 AND pending = 1)
    WHERE place = 1)
"""
"""While the plan is made, `late` of what comes last is one more than the number of its frontier."""


def _cell_row(engine: str, planned: PlannedCell) -> tuple[str | int | None, ...]:
    cell = planned.cell
    if planned.status not in (Status.PENDING, Status.SKIPPED):
        raise ValueError(f"a planned cell is pending or skipped, not {planned.status}")
    return (
        planned.key, engine, cell.model, planned.model_digest, cell.num_ctx, cell.num_batch, options_json(cell.options),
        options_json(cell.server), cell.task, options_json(cell.task_options), planned.prompt_hash,
        planned.quantization, planned.parameter_size, planned.status.value, planned.reason,
    )  # fmt: skip


def _plan_row(sweep_id: int, position: int, planned: PlannedCell) -> tuple[str | int | None, ...]:
    skip = planned.reason if planned.status is Status.SKIPPED else None
    late = planned.frontier + 1 if planned.frontier else 0
    cell, same_as = planned.cell, planned.same_as or None
    return sweep_id, position, options_json(cell.coordinates), cell.model, skip, late, same_as, planned.key


def _chunks(cells: Iterable[PlannedCell]) -> Iterator[list[PlannedCell]]:
    iterator = iter(cells)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


# -- cells that are the same configuration ---------------------------------------------------------------------------
#
# The plan says which cells are the same (`same_as`, the first of them). `reused` says whose result a cell has: it
# points at the same attempt, and a trigger lets it follow whatever becomes of the original. Its own number is kept.

_MIRRORED = """status = CASE o.status WHEN 'started' THEN 'pending' ELSE o.status END, reason = o.reason,
    attempt_id = o.attempt_id, runs = o.runs, repeats = o.repeats, timeout_s = o.timeout_s,
    flags = o.flags"""
_IN_PLAN = "cell_id IN (SELECT cell_id FROM plan WHERE sweep_id = :sweep)"
_MEMBERS = """
SELECT COALESCE(same_as, plan.cell_id), plan.cell_id, reused.original_id,
    reused.cell_id IS NULL AND cells.status NOT IN ('pending', 'started', 'skipped')
        OR EXISTS (SELECT 1 FROM attempts WHERE attempts.cell_id = cells.id AND attempts.status = 'ok'),
    (SELECT o.status NOT IN ('pending', 'started', 'skipped') FROM cells AS o WHERE o.id = reused.original_id)
FROM plan JOIN cells ON cells.id = plan.cell_id LEFT JOIN reused ON reused.cell_id = plan.cell_id
WHERE sweep_id = :sweep AND skip IS NULL
    AND (same_as IS NOT NULL OR reused.cell_id IS NOT NULL
        OR plan.cell_id IN (SELECT same_as FROM plan WHERE sweep_id = :sweep AND same_as IS NOT NULL))
ORDER BY position
"""
"""Of each cell that is the same as others: the first of them, itself, whose result it has, whether it has one of its
own, and whether that whose result it has is done."""


def let_reuse(connection: sqlite3.Connection, sweep_id: int, *, reuses: bool) -> None:
    """Let the cells of a plan take results of others, or (`reuses` is false) become pending where they had one."""
    wanted = dict(_wanted(connection, sweep_id)) if reuses else {}
    sweep = {"sweep": sweep_id}
    had = dict(connection.execute(f"SELECT cell_id, original_id FROM reused WHERE {_IN_PLAN}", sweep))
    lost = json.dumps([cell for cell in had if cell not in wanted])
    connection.execute("DELETE FROM reused WHERE cell_id IN (SELECT value FROM json_each(?))", (lost,))
    connection.execute(
        """UPDATE cells SET status = 'pending', reason = '', runs = 0, repeats = 0, timeout_s = NULL, deaths = 0,
                flags = '',
                attempt_id = (SELECT id FROM attempts WHERE cell_id = cells.id AND finished_at IS NOT NULL
                    AND purpose IS NULL AND status NOT IN ('interrupted', 'discarded') ORDER BY number DESC LIMIT 1)
            WHERE id IN (SELECT value FROM json_each(?)) AND status <> 'skipped'""",
        (lost,),
    )
    connection.executemany(
        "INSERT OR REPLACE INTO reused (cell_id, original_id) VALUES (?, ?)",
        [pair for pair in wanted.items() if had.get(pair[0]) != pair[1]],
    )
    connection.execute(
        f"""UPDATE cells SET {_MIRRORED} FROM reused JOIN cells AS o ON o.id = reused.original_id
            WHERE cells.id = reused.cell_id AND reused.{_IN_PLAN}
                AND (cells.status, cells.reason, cells.attempt_id, cells.runs, cells.flags) IS NOT
                    (CASE o.status WHEN 'started' THEN 'pending' ELSE o.status END, o.reason, o.attempt_id, o.runs,
                        o.flags)""",
        sweep,
    )


def _wanted(connection: sqlite3.Connection, sweep_id: int) -> Iterator[tuple[int, int]]:
    """Each cell that takes a result, and of which cell: of the first with one of its own, else of the first in order.

    A result that was taken before is kept, also where its cell is not in this plan.
    """
    groups: dict[int, list[tuple[int, int | None, bool, bool]]] = {}
    for first, cell, original, is_own, is_done in connection.execute(_MEMBERS, {"sweep": sweep_id}):
        groups.setdefault(first, []).append((cell, original, bool(is_own), bool(is_done)))
    for first, members in groups.items():
        own = (cell for cell, _, is_own, _ in members if is_own)
        taken = (original for _, original, _, is_done in members if is_done and original is not None)
        chosen = next(own, None) or next(taken, None) or first
        for cell, _, is_own, _ in members:
            if not is_own and cell != chosen:
                yield cell, chosen


def note_own(connection: sqlite3.Connection, cell_id: int) -> None:
    """This cell was measured itself."""
    connection.execute("DELETE FROM reused WHERE cell_id = ?", (cell_id,))


def copies_of(connection: sqlite3.Connection, cell_id: int) -> int:
    """How many cells take the result of this one."""
    sql = "SELECT count(*) FROM reused WHERE original_id = ?"
    return int(connection.execute(sql, (cell_id,)).fetchone()[0])


def waiting_copies(connection: sqlite3.Connection, sweep_id: int) -> int:
    """How many pending cells of a sweep are not measured themselves: they wait for the result of another one."""
    sql = """SELECT count(*) FROM reused JOIN cells ON cells.id = reused.cell_id AND cells.status = 'pending'
        WHERE EXISTS (SELECT 1 FROM plan WHERE plan.cell_id = cells.id AND plan.sweep_id = ?)"""
    return int(connection.execute(sql, (sweep_id,)).fetchone()[0])
