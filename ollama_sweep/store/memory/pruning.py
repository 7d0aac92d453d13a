"""Leave out what is at least as large as a cell that ran out of memory in two fresh loads: set-based SQL.

Such a cell is a witness. It leaves out the places of the same plan that are at least as large in num_ctx and num_batch
and equal in everything else, but for a few, which are probed. A place keeps its witness. What is left out is decided
by the plan and by what was measured alone, so it may be decided again at any time.
"""

# ruff: noqa: S608 - what is put into SQL here is our own text; values are always bound
from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ollama_sweep.store import values
from ollama_sweep.store.memory.tables import LEFT_OUT

LOADS = 2
"""Fresh loads in which a cell must run out of memory: a single failure may be an accident."""
SEVERAL = 3
"""A witness that leaves out so many places has the smallest of them probed."""
_SPREAD, _WHOLE, _SHARE = 618034, 1_000_000, 50_000
"""Every twentieth place on average: multiples of the golden section are spread evenly over any order."""


def is_probed(position: int) -> bool:
    """A place that is measured though a witness leaves it out, as one in twenty is."""
    return position * _SPREAD % _WHOLE < _SHARE


def _without_axes(column: str) -> str:
    return f"CASE WHEN json_valid({column}) THEN json_remove({column}, '$.num_ctx', '$.num_batch') ELSE {column} END"


KIND = f"""json_array(cells.engine, cells.model_digest, cells.server, cells.task, cells.task_options, cells.prompt_hash,
    {_without_axes("cells.options")}, {_without_axes("plan.coordinates")})"""
"""Equal for places of a plan that differ in num_ctx and num_batch alone."""
_FRESH_FAILURES = """(SELECT count(*) FROM attempts LEFT JOIN out_of_memory ON attempt_id = attempts.id
    WHERE attempts.cell_id = cells.id AND attempts.status = 'oom' AND COALESCE(is_fresh, 1))"""
_WAS_OK = "EXISTS (SELECT 1 FROM attempts WHERE attempts.cell_id = cells.id AND attempts.status = 'ok')"
IS_WITNESS = f"cells.status = 'oom' AND {_FRESH_FAILURES} >= {LOADS} AND NOT {_WAS_OK}"
_IS_IN_DOUBT = f"cells.status = 'oom' AND {_FRESH_FAILURES} < {LOADS} AND NOT {_WAS_OK}"

_WITNESSES = f"""SELECT cells.id, {KIND}, cells.num_ctx, cells.num_batch
    FROM cells INDEXED BY cells_status CROSS JOIN plan INDEXED BY plan_cell
        ON plan.cell_id = cells.id AND plan.sweep_id = :sweep_id
    WHERE {IS_WITNESS} ORDER BY cells.id"""
_WITNESS = f"""SELECT cells.id, {KIND}, cells.num_ctx, cells.num_batch
    FROM plan INDEXED BY plan_cell JOIN cells ON cells.id = plan.cell_id
    WHERE plan.cell_id = :cell_id AND plan.sweep_id = :sweep_id AND {IS_WITNESS}"""
_LARGE_AND_OK = f"""SELECT {KIND}, cells.num_ctx, max(cells.num_batch) FROM plan JOIN cells ON cells.id = plan.cell_id
    WHERE plan.sweep_id = :sweep_id AND cells.num_ctx >= :num_ctx AND cells.num_batch >= :num_batch AND {_WAS_OK}
    GROUP BY 1, 2"""
_TABLES = """
CREATE TEMP TABLE IF NOT EXISTS steps (
    kind TEXT NOT NULL, num_ctx INTEGER NOT NULL, num_batch INTEGER NOT NULL, witness_id INTEGER NOT NULL,
    PRIMARY KEY (kind, num_ctx)) WITHOUT ROWID;
CREATE TEMP TABLE IF NOT EXISTS decided (
    position INTEGER PRIMARY KEY, witness_id INTEGER NOT NULL, is_open INTEGER NOT NULL, num_ctx INTEGER NOT NULL,
    num_batch INTEGER NOT NULL, is_probed INTEGER NOT NULL DEFAULT 0);
"""
_DECIDE = f"""INSERT INTO decided (position, witness_id, is_open, num_ctx, num_batch)
    SELECT position, witness_id, is_open, num_ctx, num_batch FROM (
        SELECT plan.position, plan.cell_id, cells.status = 'pending' AS is_open, cells.num_ctx, cells.num_batch,
            (SELECT CASE WHEN steps.num_batch <= cells.num_batch THEN steps.witness_id END FROM steps
                WHERE steps.kind = {KIND} AND steps.num_ctx <= cells.num_ctx
                ORDER BY steps.num_ctx DESC LIMIT 1) AS witness_id
        FROM plan JOIN cells ON cells.id = plan.cell_id
        WHERE plan.sweep_id = :sweep_id AND plan.skip IS NULL AND plan.witness_id IS NULL
            AND cells.num_ctx >= :num_ctx AND cells.num_batch >= :num_batch)
    WHERE witness_id <> cell_id"""
"""What is at least as large as a step; its kind is made only for what is large enough at all."""
_PROBE = f"""UPDATE decided SET is_probed = 1 WHERE is_open AND (
    position * {_SPREAD} % {_WHOLE} < {_SHARE} OR position IN (SELECT position FROM (
        SELECT position, witness_id, sum(is_open) OVER (PARTITION BY witness_id) AS places,
            row_number() OVER (PARTITION BY witness_id ORDER BY num_ctx * num_batch, num_ctx, position) AS place
        FROM decided)
    WHERE place = 1 AND places >= {SEVERAL} AND witness_id NOT IN (
        SELECT witness_id FROM plan INDEXED BY plan_witness WHERE sweep_id = :sweep_id AND witness_id IS NOT NULL)))"""
"""The smallest of what a new witness leaves out says most of it, where it is not tried yet; and one in twenty."""
_MARK = f"""UPDATE plan SET witness_id = decided.witness_id, pending = is_open AND is_probed,
        skip = CASE WHEN is_open AND NOT is_probed THEN '{LEFT_OUT}' END
    FROM decided WHERE plan.sweep_id = :sweep_id AND plan.position = decided.position"""
_RELEASE = """UPDATE plan INDEXED BY plan_witness SET witness_id = NULL, skip = NULL,
        pending = (SELECT status = 'pending' FROM cells WHERE cells.id = plan.cell_id)
    WHERE sweep_id = :sweep_id AND witness_id IS NOT NULL AND {}"""
_COUNTED = f"""SELECT count(*) FROM plan INDEXED BY plan_witness JOIN cells ON cells.id = plan.cell_id
    WHERE sweep_id = :sweep_id AND witness_id IS NOT NULL AND skip = '{LEFT_OUT}' AND cells.status = 'pending'"""
_IN_DOUBT = f"""SELECT cells.id, cells.key, plan.position, cells.attempts
    FROM cells INDEXED BY cells_status CROSS JOIN plan INDEXED BY plan_cell
        ON plan.cell_id = cells.id AND plan.sweep_id = :sweep_id
    WHERE cells.num_ctx <= :num_ctx AND cells.num_batch <= :num_batch AND {_IS_IN_DOUBT} AND {KIND} = :kind
        AND NOT EXISTS (SELECT 1 FROM plan AS larger JOIN cells AS its ON its.id = larger.cell_id
            WHERE larger.sweep_id = :sweep_id AND its.status = 'ok' AND its.num_ctx >= cells.num_ctx
                AND its.num_batch >= cells.num_batch
                AND {KIND.replace("cells.", "its.").replace("plan.", "larger.")} = :kind)
    ORDER BY cells.num_ctx * cells.num_batch, plan.position LIMIT 1"""


@dataclass(frozen=True)
class Witness:
    """A cell that ran out of memory in two fresh loads; `kind` is that of its place in the plan."""

    cell_id: int
    kind: str
    num_ctx: int
    num_batch: int


@dataclass(frozen=True)
class Pruned:
    """What the end of an attempt has changed: places that are left out by now, those of them that are probed, or those
    that are no longer left out, and the coordinates of the witness."""

    witness: Mapping[str, object]
    left_out: int = 0
    probed: int = 0
    released: int = 0


def forget_measured(connection: sqlite3.Connection, sweep_id: int) -> None:
    """Places whose cell another sweep has measured are as any other."""
    connection.execute(
        _RELEASE.format(f"""skip = '{LEFT_OUT}'
            AND NOT EXISTS (SELECT 1 FROM cells WHERE cells.id = plan.cell_id AND status = 'pending')"""),
        {"sweep_id": sweep_id},
    )


def apply(connection: sqlite3.Connection, sweep_id: int, *, is_wanted: bool) -> None:
    """Leave out what the witnesses of the plan leave out, and nothing else."""
    found = _witnesses(connection, _WITNESSES, {"sweep_id": sweep_id}) if is_wanted else []
    before = _left_out(connection, sweep_id)
    _release_all_but(connection, sweep_id, found)
    _decide(connection, sweep_id, found)
    _recount(connection, sweep_id, before)


def says_something(connection: sqlite3.Connection, sweep_id: int, cell_id: int) -> bool:
    """Whether `look` may change anything, so that most attempts cost no further commit."""
    row = connection.execute(
        f"""SELECT EXISTS (SELECT 1 FROM cells WHERE cells.id = :cell_id AND {IS_WITNESS}) OR EXISTS (
            SELECT 1 FROM plan INDEXED BY plan_cell JOIN cells ON cells.id = plan.cell_id
            WHERE plan.cell_id = :cell_id AND sweep_id = :sweep_id AND witness_id IS NOT NULL AND {_WAS_OK})""",
        {"sweep_id": sweep_id, "cell_id": cell_id},
    ).fetchone()
    return bool(row[0])


def look(connection: sqlite3.Connection, sweep_id: int, cell_id: int) -> Pruned | None:
    """What the last attempt at a cell has changed; None for nothing. A second time it changes nothing."""
    bound = {"sweep_id": sweep_id, "cell_id": cell_id}
    if found := _witnesses(connection, _WITNESS, bound):
        before = _left_out(connection, sweep_id)
        _decide(connection, sweep_id, found)
        left_out = _recount(connection, sweep_id, before) - before
        probed = connection.execute(
            """SELECT count(*) FROM plan INDEXED BY plan_witness
                WHERE sweep_id = ? AND witness_id = ? AND pending = 1 AND skip IS NULL""",
            (sweep_id, cell_id),
        ).fetchone()[0]
        return Pruned(_coordinates(connection, sweep_id, cell_id), left_out, probed) if left_out else None
    row = connection.execute(
        f"""SELECT witness_id FROM plan INDEXED BY plan_cell JOIN cells ON cells.id = plan.cell_id
            WHERE plan.cell_id = :cell_id AND sweep_id = :sweep_id AND witness_id IS NOT NULL AND {_WAS_OK}""",
        bound,
    ).fetchone()
    if row is None:
        return None
    before, witness = _left_out(connection, sweep_id), _coordinates(connection, sweep_id, row[0])
    apply(connection, sweep_id, is_wanted=True)
    return Pruned(witness, released=before - _left_out(connection, sweep_id))


def in_doubt(connection: sqlite3.Connection, sweep_id: int, position: int) -> tuple[int, str, int, int] | None:
    """The smallest cell that ran out of memory in one fresh load and would leave out this place if it did so again.

    None for a place that is probed: it is measured whatever others are.
    """
    row = connection.execute(
        f"""SELECT {KIND}, cells.num_ctx, cells.num_batch FROM plan JOIN cells ON cells.id = plan.cell_id
            WHERE plan.sweep_id = ? AND plan.position = ? AND plan.witness_id IS NULL""",
        (sweep_id, position),
    ).fetchone()
    if row is None:
        return None
    bound = {"sweep_id": sweep_id, "kind": row[0], "num_ctx": row[1], "num_batch": row[2]}
    found: tuple[int, str, int, int] | None = connection.execute(_IN_DOUBT, bound).fetchone()
    return found


def _witnesses(connection: sqlite3.Connection, sql: str, bound: Mapping[str, object]) -> list[Witness]:
    """Those that nothing speaks against: a cell at least as large that was measured shows that there was memory."""
    found = [Witness(*row) for row in connection.execute(sql, bound)]
    if not found:
        return []
    large = connection.execute(_LARGE_AND_OK, {**bound, **_smallest(found)}).fetchall()
    refuted = {
        one.cell_id for one in found for kind, num_ctx, num_batch in large
        if kind == one.kind and num_ctx >= one.num_ctx and num_batch >= one.num_batch
    }  # fmt: skip
    return [one for one in found if one.cell_id not in refuted]


def _smallest(witnesses: Sequence[Witness]) -> dict[str, int]:
    return {"num_ctx": min(one.num_ctx for one in witnesses), "num_batch": min(one.num_batch for one in witnesses)}


def staircase(witnesses: Iterable[Witness]) -> list[Witness]:
    """Of each kind those that no other one leaves out: num_ctx rises, num_batch falls.

    What is at least as large as any is at least as large as the last one whose num_ctx is not larger.
    """
    steps: list[Witness] = []
    for one in sorted(witnesses, key=lambda one: (one.kind, one.num_ctx, one.num_batch)):
        if not steps or steps[-1].kind != one.kind or one.num_batch < steps[-1].num_batch:
            steps.append(one)
    return steps


def _release_all_but(connection: sqlite3.Connection, sweep_id: int, witnesses: Sequence[Witness]) -> None:
    kept = {one.cell_id for one in witnesses}
    used = [row[0] for row in connection.execute(
        "SELECT DISTINCT witness_id FROM plan INDEXED BY plan_witness WHERE sweep_id = ? AND witness_id IS NOT NULL",
        (sweep_id,),
    )]  # fmt: skip
    for witness in used:
        if witness not in kept:
            connection.execute(_RELEASE.format("witness_id = :witness"), {"sweep_id": sweep_id, "witness": witness})


def _decide(connection: sqlite3.Connection, sweep_id: int, witnesses: Sequence[Witness]) -> None:
    """Give what is not decided yet its witness; the caller counts anew."""
    if not witnesses:
        return
    bound = {"sweep_id": sweep_id, **_smallest(witnesses)}
    for sql in _TABLES.split(";"):
        connection.execute(sql)
    connection.execute("DELETE FROM steps")
    connection.execute("DELETE FROM decided")
    steps = [(one.kind, one.num_ctx, one.num_batch, one.cell_id) for one in staircase(witnesses)]
    connection.executemany("INSERT INTO steps (kind, num_ctx, num_batch, witness_id) VALUES (?, ?, ?, ?)", steps)
    connection.execute(_DECIDE, bound)
    connection.execute(_PROBE, {"sweep_id": sweep_id})
    connection.execute(_MARK, {"sweep_id": sweep_id})
    connection.execute("DELETE FROM decided")


def _left_out(connection: sqlite3.Connection, sweep_id: int) -> int:
    return int(connection.execute(_COUNTED, {"sweep_id": sweep_id}).fetchone()[0])


def _recount(connection: sqlite3.Connection, sweep_id: int, before: int) -> int:
    """Bring the counts in line with what is left out now, which is returned."""
    now = _left_out(connection, sweep_id)
    for status, more in (("skipped", now - before), ("pending", before - now)):
        connection.execute(
            """INSERT INTO status_counts (sweep_id, status, cells) VALUES (?, ?, ?)
                ON CONFLICT (sweep_id, status) DO UPDATE SET cells = cells + excluded.cells""",
            (sweep_id, status, more),
        )
    return now


def _coordinates(connection: sqlite3.Connection, sweep_id: int, cell_id: int) -> Mapping[str, object]:
    row = connection.execute(
        "SELECT coordinates FROM plan INDEXED BY plan_cell WHERE cell_id = ? AND sweep_id = ?", (cell_id, sweep_id)
    ).fetchone()
    try:
        return values.json_object(row[0])
    except values.BROKEN:  # no row, or one that cannot be read
        return {}


# -- for who only asks -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """Keys of cells that ran out of memory: `witnesses` in two fresh loads or more, `in_doubt` in fewer."""

    witnesses: frozenset[str] = frozenset()
    in_doubt: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Decided:
    """Of a stored plan: the witnesses by their keys, and the places that are probed and not tried yet."""

    witnesses: frozenset[str] = frozenset()
    probes: frozenset[int] = frozenset()


def known(connection: sqlite3.Connection) -> Known:
    """What ran out of memory and was never measured."""
    sql = f"SELECT cells.key, {IS_WITNESS} FROM cells WHERE cells.status = 'oom' AND NOT {_WAS_OK}"
    found = {str(key): bool(is_witness) for key, is_witness in connection.execute(sql)}
    return Known(frozenset(key for key, twice in found.items() if twice),
                 frozenset(key for key, twice in found.items() if not twice))  # fmt: skip


def decided(connection: sqlite3.Connection, sweep_id: int) -> Decided:
    """What a stored plan leaves out, and what it does not."""
    witnesses = connection.execute(
        """SELECT DISTINCT cells.key FROM plan JOIN cells ON cells.id = witness_id
            WHERE sweep_id = ? AND witness_id > 0""",
        (sweep_id,),
    )
    probes = connection.execute(
        """SELECT position FROM plan WHERE sweep_id = ? AND witness_id > 0 AND plan.skip IS NULL
            AND pending = 1""",
        (sweep_id,),
    )
    return Decided(frozenset(str(key) for (key,) in witnesses), frozenset(int(place) for (place,) in probes))


def tried(connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, bool]:
    """Of these cells those that are not pending, and whether they were ever measured."""
    sql = f"""SELECT cells.key, {_WAS_OK} FROM cells
        WHERE cells.key IN (SELECT value FROM json_each(?)) AND (cells.status <> 'pending' OR {_WAS_OK})"""
    return {str(key): bool(was_ok) for key, was_ok in connection.execute(sql, (json.dumps(list(keys)),))}
