"""What both the writer and a reader ask: plain functions over a connection."""

# ruff: noqa: S608 - what is put into SQL here are our own names of columns; values are always bound
from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Collection
from functools import partial
from typing import Any

from ollama_sweep.core.cell import Cell, content_hash
from ollama_sweep.core.forecast import RECENT_ATTEMPTS, SAMPLED_ATTEMPTS, ControlsSeen, Took, Work, WorkLeft
from ollama_sweep.core.loading.change import Change, LoadKey, change, is_more_than_reloads
from ollama_sweep.core.noise.drift import Point
from ollama_sweep.core.options import LOAD_OPTIONS, Options
from ollama_sweep.core.outcome import Status
from ollama_sweep.core.units import parameters_of
from ollama_sweep.store import values
from ollama_sweep.store.beside import CalledDone
from ollama_sweep.store.memory import pruning
from ollama_sweep.store.memory.tables import LEFT_OUT
from ollama_sweep.store.plans import options_json
from ollama_sweep.store.rows import ControlCell, LeftOut, PendingCell, PlannedCell
from ollama_sweep.store.values import Notes

WORK_SEEN = 20_000
NEXT_PENDING = """
SELECT cells.id, cells.key, plan.position, cells.attempts
FROM plan INDEXED BY plan_pending CROSS JOIN cells ON cells.id = plan.cell_id
WHERE plan.sweep_id = ? AND plan.pending = 1 AND NOT EXISTS (SELECT 1 FROM reused WHERE cell_id = plan.cell_id)
ORDER BY plan.late, plan.position LIMIT 1
"""
CELL_BY_KEY = """
SELECT cells.id, cells.key, plan.position, cells.attempts
FROM cells JOIN plan ON plan.cell_id = cells.id AND plan.sweep_id = ?
WHERE cells.key = ? ORDER BY plan.position LIMIT 1
"""


def next_pending(connection: sqlite3.Connection, sweep_id: int, but: Collection[int] = ()) -> PendingCell | None:
    """The pending cell with the lowest position, of those that do not take the result of another one, `but` of these.

    Those that come last only when there is no other.
    """
    sql = NEXT_PENDING if not but else NEXT_PENDING.replace("LIMIT 1", f"LIMIT {len(but) + 1}")
    return _pending(next((row for row in connection.execute(sql, (sweep_id,)) if row[0] not in but), None))


def cell_by_key(connection: sqlite3.Connection, sweep_id: int, key: str) -> PendingCell | None:
    """A cell of the sweep's plan, whatever its status; None where the plan does not have it."""
    return _pending(connection.execute(CELL_BY_KEY, (sweep_id, key)).fetchone())


def in_doubt(connection: sqlite3.Connection, sweep_id: int, position: int) -> PendingCell | None:
    """A cell whose second failure would leave out this place."""
    return _pending(pruning.in_doubt(connection, sweep_id, position))


def left_out(connection: sqlite3.Connection, sweep_id: int) -> LeftOut:
    """What the plan leaves out for want of memory."""
    sql = """SELECT count(*), count(DISTINCT witness_id) FROM plan JOIN cells ON cells.id = cell_id
        WHERE sweep_id = ? AND witness_id > 0 AND plan.skip = ? AND cells.status = 'pending'"""
    return LeftOut(*connection.execute(sql, (sweep_id, LEFT_OUT)).fetchone())


def late(connection: sqlite3.Connection, sweep_id: int) -> int:
    """How many pending places of the plan come last."""
    sql = "SELECT count(*) FROM plan WHERE sweep_id = ? AND pending = 1 AND late > 0"
    return int(connection.execute(sql, (sweep_id,)).fetchone()[0])


def _pending(row: tuple[int, str, int, int] | None) -> PendingCell | None:
    return None if row is None else PendingCell(cell_id=row[0], key=row[1], position=row[2], attempts=row[3])


def planned(connection: sqlite3.Connection, sweep_id: int, position: int) -> PlannedCell:
    """A cell of the plan as it was registered, so that going on needs no walk over the grid.

    Raises KeyError, and Unreadable: what it says is what would be measured.
    """
    sql = """SELECT c.key, p.coordinates, COALESCE(p.model, c.model), c.options, c.task, c.task_options, c.server,
                c.model_digest, c.prompt_hash, c.quantization, c.parameter_size, p.skip
            FROM plan AS p JOIN cells AS c ON c.id = p.cell_id WHERE p.sweep_id = ? AND p.position = ?"""
    row = next(values.rows_of(connection, sql, (sweep_id, position)), None)
    if row is None:
        raise KeyError(position)
    options = {name: tuple(values.json_object(row[at]).items()) for name, at in _OPTIONS.items()}
    cell = Cell(
        model=values.text(row[2]), task=values.text(row[4]), **options,
        system=str(dict(options["task_options"]).get("system") or ""),
    )  # fmt: skip
    return PlannedCell(
        key=values.text(row[0]), cell=cell, model_digest=values.text(row[7]), prompt_hash=values.text(row[8]),
        quantization=values.optional_text(row[9]), parameter_size=values.optional_text(row[10]),
        status=Status.PENDING if row[11] is None else Status.SKIPPED, reason=values.optional_text(row[11]) or "",
    )  # fmt: skip


_OPTIONS = {"coordinates": 1, "options": 3, "task_options": 5, "server": 6}
"""Where `planned` finds what."""


def counts(connection: sqlite3.Connection, sweep_id: int, notes: Notes) -> dict[Status, int]:
    """How many cells of the sweep have each status; those without any are left out."""
    sql = "SELECT status, cells FROM status_counts WHERE sweep_id = ? AND cells > 0"
    rows = values.rows_of(connection, sql, (sweep_id,))
    return dict(notes.rows("a count", lambda status, cells: (values.status(status), values.whole(cells)), rows))


def called_done(connection: sqlite3.Connection) -> CalledDone | None:
    """Which database this is, and how many cells it was told are done; None of an older version's."""
    row = connection.execute("SELECT id, called_done FROM origin").fetchone()
    return CalledDone(*row) if row and isinstance(row[0], str) and isinstance(row[1], int) else None


def missing_cells(connection: sqlite3.Connection, said: CalledDone | None) -> int:
    """How many more cells were called done, by what was said before, than this file has."""
    found = called_done(connection) if said else None
    if said is None or found is None or found.database_id != said.database_id:
        return 0
    return max(0, said.cells - found.cells)


def history(
    connection: sqlite3.Connection, sweep_id: int, notes: Notes, known: dict[int, Took] | None = None
) -> list[Took]:
    """What finished attempts of the sweep took, the newest first; none that the computer slept through.

    The last ones; where cells differ in what they ask or need some from all over the sweep as well. `known` is what an
    earlier call found, by attempt, and is brought up to date: what has ended does not change while the plan stays.
    """
    known = {} if known is None else known
    is_varied = _is_varied(connection, sweep_id)
    bound = {"sweep": sweep_id, "most": RECENT_ATTEMPTS, "ids": "[]"}
    if is_varied:
        bound["ids"] = json.dumps(_sampled(connection, sweep_id))
    wanted = [number for (number,) in connection.execute(_SAMPLED if is_varied else _RECENT, bound)]
    found = {number: known[number] for number in wanted if number in known}
    known.clear()
    known.update(found)
    bound["ids"] = json.dumps([number for number in wanted if number not in found])
    rows = values.rows_of(connection, f"{_TOOK} AND a.id IN (SELECT value FROM json_each(:ids))", bound)
    for number, is_settled, took in notes.rows("the time of an attempt", partial(_numbered, is_varied=is_varied), rows):
        found[number] = took
        if is_settled:
            known[number] = took
    return [found[number] for number in wanted if number in found]


def _is_varied(connection: sqlite3.Connection, sweep_id: int) -> bool:
    """Cells of the sweep differ in what they ask, or in what they need before that."""
    row = connection.execute("SELECT dimensions FROM sweeps WHERE id = ?", (sweep_id,)).fetchone()
    try:
        return row is not None and is_more_than_reloads(json.loads(row[0]))
    except values.BROKEN:
        return False


def _sampled(connection: sqlite3.Connection, sweep_id: int) -> list[int]:
    """The ids of the last attempts of the sweep, and of others evenly from all of them: as quick for a million."""
    last = [number for (number,) in connection.execute(_LAST, (sweep_id, RECENT_ATTEMPTS))]
    (first,) = connection.execute("SELECT min(id) FROM main.attempts WHERE sweep_id = ?", (sweep_id,)).fetchone()
    if first is None:
        return last
    points = list(range(first, last[-1], max(1, (last[-1] - first) // SAMPLED_ATTEMPTS)))
    found = connection.execute(_NEXT_OF_SWEEP, {"sweep": sweep_id, "points": json.dumps(points)})
    return sorted({*last, *(number for (number,) in found if number is not None)})


_LAST = "SELECT id FROM main.attempts WHERE sweep_id = ? ORDER BY id DESC LIMIT ?"
_NEXT_OF_SWEEP = """SELECT (SELECT min(id) FROM main.attempts WHERE sweep_id = :sweep AND id >= value)
    FROM json_each(:points)"""
_COORDINATE = "CASE WHEN json_valid(plan.coordinates) THEN json_extract(plan.coordinates, '$.{}') END"
# The plus: SQLite would else go through the sweep's whole plan for each attempt, by the key that begins with the sweep.
_IN_PLAN = f"(SELECT {_COORDINATE} FROM plan WHERE plan.cell_id = a.cell_id AND +plan.sweep_id = :sweep LIMIT 1)"
_LOAD_PATHS = ", ".join(f"'$.{name}'" for name in sorted(LOAD_OPTIONS))
_LOAD_KEY = f"""{{0}}.server, {{0}}.model,
    CASE WHEN json_valid({{0}}.options) THEN json_extract({{0}}.options, {_LOAD_PATHS}) END"""
_ENDED = "a.sweep_id = :sweep AND a.finished_at <> '' AND a.status NOT IN ('interrupted', 'discarded')"
_OF_CELLS = f"SELECT a.id FROM attempts AS a WHERE {_ENDED} AND a.purpose IS NOT 'control'"
_RECENT = f"{_OF_CELLS} ORDER BY a.id DESC LIMIT :most"
_SAMPLED = f"{_OF_CELLS} AND a.id IN (SELECT value FROM json_each(:ids)) ORDER BY a.id DESC"
_TOOK = f"""
SELECT a.id, before.id IS NULL OR before.finished_at IS NOT NULL,
    CASE WHEN a.purpose IS NULL THEN a.cell_id ELSE -a.id END, a.started_at, a.finished_at, cells.task,
    COALESCE({_IN_PLAN.format("prompt_tokens")}, a.prompt_eval_count), {_IN_PLAN.format("concurrency")},
    (SELECT sum(client_duration_s) FROM runs WHERE attempt_id = a.id),
    before.pid IS a.pid, before.status IS NOT 'ok' OR a.purpose IS NOT NULL,
    cells.parameter_size, {_LOAD_KEY.format("cells")}, {_LOAD_KEY.format("last")}
FROM attempts AS a JOIN cells ON cells.id = a.cell_id
    LEFT JOIN attempts AS before
        ON before.id = (SELECT max(id) FROM main.attempts WHERE sweep_id = a.sweep_id AND id < a.id)
    LEFT JOIN cells AS last ON last.id = before.cell_id
WHERE {_ENDED}
"""
"""With the attempt before it, by which one knows what it needed once that one has ended."""


def _numbered(number: object, is_settled: object, *row: Any, is_varied: bool) -> tuple[int, bool, Took]:
    """An attempt's number, whether what it took is told for good, and that."""
    return values.whole(number), bool(is_settled), _took(*row, is_varied=is_varied)


def _took(
    cell: int, start: object, end: object, task: object, tokens: object, at_once: object, asking_s: object,
    is_same_session: object, is_released: object, size: object, *loads: object, is_varied: bool,
) -> Took:  # fmt: skip
    seconds = _seconds(start, end)
    now, before = _load_key(*loads[:3]), _load_key(*loads[3:])
    needs = change(before if is_same_session else None, now, is_released=bool(is_released)) if is_varied else None
    work = _work(task, tokens, at_once, now[1], needs, size)
    return Took(cell, seconds, work, min(seconds, values.optional_number(asking_s) or 0.0))


def _load_key(server: object, model: object, options: object) -> LoadKey:
    return "" if server == "{}" else server, str(model), options


def _work(task: object, tokens: object, at_once: object, model: str, needs: Change | None, size: object) -> Work:
    asked = values.text(task), values.optional_whole(tokens) or None, values.optional_whole(at_once) or 1
    if needs is None:
        return Work(*asked)
    return Work(*asked, model, needs, parameters_of(values.optional_text(size)))


def _seconds(start: object, end: object) -> float:
    return max(0.0, (values.moment(end) - values.moment(start)).total_seconds())


def work_left(connection: sqlite3.Connection, sweep_id: int, notes: Notes) -> WorkLeft:
    """What the pending cells of the plan ask and need, in what shares: the next ones, where they are very many; and the
    further loads that wait. Empty for a sweep whose cells do not differ in that.
    """
    if not _is_varied(connection, sweep_id):
        return WorkLeft()
    in_order, after_control, controls = Counter[Work](), Counter[Work](), Counter[Work]()
    bound = {"sweep": sweep_id, "most": WORK_SEEN, "pid": os.getpid()}
    before = next((_load_key(*row) for row in connection.execute(_LAST_LOAD, bound)), None)
    control = next(values.rows_of(connection, _CONTROL_WORK, bound), None)
    loaded_by_control = None if control is None else _load_key(*control[5:])

    def add(counts: Counter[Work], row: tuple[Any, ...], last: LoadKey | None) -> None:
        task, tokens, at_once, is_further, size, *load = row
        now = _load_key(*load)
        needs = change(last, now, is_released=bool(is_further))
        counts.update(notes.rows("a pending cell", _work, [(task, tokens, at_once, now[1], needs, size)]))

    for row in values.rows_of(connection, _LEFT, bound):
        add(in_order, row, before)
        before = _load_key(*row[5:])
        if control is not None:
            add(after_control, row, loaded_by_control)
            add(controls, control, before)
    return WorkLeft(in_order, after_control, controls)


def controls_seen(connection: sqlite3.Connection, sweep_id: int, notes: Notes) -> ControlsSeen:
    """What is known of the loads of the sweep's control cell."""
    bound = {"sweep": sweep_id, "most": RECENT_ATTEMPTS}
    place = connection.execute(f"SELECT position FROM ({_CONTROL})", bound).fetchone()
    if place is None:
        return ControlsSeen()
    made = partial(_numbered, is_varied=_is_varied(connection, sweep_id))
    rows = notes.rows("the time of a control", made, values.rows_of(connection, _CONTROLS_TOOK, bound))
    return ControlsSeen(values.optional_whole(place[0]), tuple(took for _, _, took in rows))


_CONTROL = """SELECT position, coordinates, cell_id FROM plan WHERE +sweep_id = :sweep AND cell_id = COALESCE(
    (SELECT cell_id FROM controls WHERE sweep_id = :sweep ORDER BY id DESC LIMIT 1),
    (SELECT a.cell_id FROM main.attempts AS a JOIN main.cells ON cells.id = a.cell_id AND cells.task = 'prompt_eval'
        WHERE a.sweep_id = :sweep AND a.status = 'ok' AND a.prompt_eval_rate > 0 ORDER BY a.id LIMIT 1)) LIMIT 1"""
"""The cell that was the control last, else the first that can be it."""
_CONTROL_WORK = f"""
SELECT cells.task, {_COORDINATE.format("prompt_tokens")}, {_COORDINATE.format("concurrency")}, 1, cells.parameter_size,
    {_LOAD_KEY.format("cells")}
FROM ({_CONTROL}) AS plan JOIN main.cells ON cells.id = plan.cell_id"""
_CONTROLS_TOOK = f"""{_TOOK} AND a.id IN (SELECT attempt_id FROM controls WHERE sweep_id = :sweep ORDER BY id DESC
    LIMIT :most) ORDER BY a.id DESC"""
_LAST_LOAD = f"""SELECT {_LOAD_KEY.format("cells")} FROM main.attempts AS a JOIN main.cells ON cells.id = a.cell_id
    WHERE a.id = (SELECT max(id) FROM main.attempts WHERE sweep_id = :sweep)
        AND (a.finished_at IS NULL OR a.pid = :pid)"""
"""What is loaded, while somebody measures: a session of this process, or one that has a cell at hand."""
_LEFT = f"""
SELECT cells.task, {_COORDINATE.format("prompt_tokens")}, {_COORDINATE.format("concurrency")}, is_further,
    cells.parameter_size, {_LOAD_KEY.format("cells")}
FROM (SELECT * FROM (
        SELECT cell_id, coordinates, 0 AS is_further, late AS rank, position AS place FROM plan
        WHERE sweep_id = :sweep AND pending = 1
            AND NOT EXISTS (SELECT 1 FROM reused WHERE reused.cell_id = plan.cell_id)
        ORDER BY late, position LIMIT :most)
    UNION ALL SELECT * FROM (
        SELECT f.cell_id, p.coordinates, 1, f.place, f.id FROM further_loads AS f
            CROSS JOIN main.plan AS p INDEXED BY plan_cell ON p.cell_id = f.cell_id AND p.sweep_id = f.sweep_id
        WHERE f.sweep_id = :sweep AND f.state = 'waiting' ORDER BY f.place, f.id LIMIT :most)) AS plan
    JOIN cells ON cells.id = plan.cell_id ORDER BY is_further, rank, plan.place"""
"""Pending cells in their order, then the loads that wait."""


def weights(connection: sqlite3.Connection, sweep_id: int) -> dict[int, tuple[str, str]]:
    """By position the model and the settings of the server of each cell: what is dear to change."""
    sql = """SELECT position, cells.model, server FROM plan JOIN cells ON cells.id = cell_id WHERE sweep_id = ?
        ORDER BY position"""
    same: dict[tuple[str, str], tuple[str, str]] = {}
    rows = connection.execute(sql, (sweep_id,))
    return {position: same.setdefault((model, server), (model, server)) for position, model, server in rows}


def rests(connection: sqlite3.Connection, sweep_id: int, notes: Notes) -> list[float]:
    """The seconds between the last cells of the sweep, the newest first: from the end of one to the begin of the next,
    measured by one process.
    """
    sql = """SELECT before.finished_at, after.started_at FROM main.attempts AS after
            JOIN main.attempts AS before ON before.id = (SELECT max(id) FROM main.attempts WHERE id < after.id)
            WHERE after.sweep_id = ? AND after.id > (SELECT max(id) FROM main.attempts) - ? AND before.finished_at <> ''
                AND before.sweep_id = after.sweep_id AND before.cell_id <> after.cell_id AND before.pid = after.pid
            ORDER BY after.id DESC"""
    rows = values.rows_of(connection, sql, (sweep_id, RECENT_ATTEMPTS))
    found = notes.rows("the time between two attempts", _seconds, rows)
    return list(found)


def former_statuses(connection: sqlite3.Connection, cell_id: int, notes: Notes) -> frozenset[Status]:
    """How the cell's ended attempts ended."""
    sql = "SELECT DISTINCT status FROM attempts WHERE cell_id = ? AND finished_at IS NOT NULL"
    return frozenset(notes.rows("a status", values.status, values.rows_of(connection, sql, (cell_id,))))


def last_moment(connection: sqlite3.Connection, engine: str) -> str | None:
    """The latest time that is stored of this engine's sweeps."""
    row = connection.execute(
        """SELECT max(COALESCE(a.finished_at, a.started_at, s.last_run_at), s.last_run_at) FROM sweeps AS s
            LEFT JOIN attempts AS a ON a.sweep_id = s.id WHERE s.engine = ? ORDER BY 1 DESC LIMIT 1""",
        (engine,),
    ).fetchone()
    return None if row is None or row[0] is None else str(row[0])


def loads_ended(connection: sqlite3.Connection, sweep_id: int, coordinates: Options) -> int:
    """How many attempts at the cell of this place ended with what says something of it."""
    rows = connection.execute(
        """SELECT status FROM attempts WHERE cell_id IN
            (SELECT cell_id FROM main.plan WHERE sweep_id = ? AND coordinates = ?)""",
        (sweep_id, options_json(coordinates)),
    )
    return sum(Status(status).counts for (status,) in rows)


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
    """The first measured cell of the sweep in the surroundings at hand that is still part of its plan: that which has
    been loaded as such, where one has.
    """
    found = connection.execute(_MEASURED.format("attempts.purpose = 'control'"), (sweep_id,)).fetchone()
    same = "true" if found is None else f"attempts.cell_id = {int(found[0])}"
    row = connection.execute(_MEASURED.format(f"""attempts.status = 'ok' AND attempts.prompt_eval_rate > 0
        AND {same}"""), (sweep_id,)).fetchone()  # fmt: skip
    is_sound = row is not None and isinstance(row[2], int | float)
    return ControlCell(*row) if is_sound else None


_MEASURED = """SELECT attempts.cell_id, plan.position, attempts.prompt_eval_rate
    FROM attempts JOIN sweeps ON sweeps.id = attempts.sweep_id AND sweeps.segment_id = attempts.segment_id
    JOIN plan ON plan.sweep_id = attempts.sweep_id AND plan.cell_id = attempts.cell_id
    JOIN cells ON cells.id = attempts.cell_id AND cells.task = 'prompt_eval'
    WHERE attempts.sweep_id = ? AND {} ORDER BY attempts.id LIMIT 1"""


def control_points(connection: sqlite3.Connection, sweep_id: int, notes: Notes) -> list[Point]:
    """What the control cell gave in the surroundings at hand, its own load first; seconds from that one."""
    rows = values.rows_of(
        connection,
        """WITH now AS (SELECT id, segment_id FROM sweeps WHERE id = :sweep_id),
            control AS (SELECT cell_id FROM controls JOIN now ON controls.sweep_id = now.id
                AND controls.segment_id = now.segment_id ORDER BY controls.id DESC LIMIT 1)
        SELECT finished_at, prompt_eval_rate FROM (
            SELECT a.id, a.finished_at, a.prompt_eval_rate FROM attempts AS a JOIN now ON a.sweep_id = now.id
                AND a.segment_id = now.segment_id JOIN control ON a.cell_id = control.cell_id
            WHERE a.status = 'ok' AND a.purpose IS NULL ORDER BY a.id LIMIT 1)
        UNION ALL SELECT measured_at, prompt_eval_rate FROM (
            SELECT c.measured_at, c.prompt_eval_rate FROM controls AS c JOIN now ON c.sweep_id = now.id
                AND c.segment_id = now.segment_id JOIN control ON c.cell_id = control.cell_id ORDER BY c.id)""",
        {"sweep_id": sweep_id},
    )
    found = list(notes.rows("a control", lambda at, rate: (values.moment(at), values.number(rate)), rows))
    return [Point((at - found[0][0]).total_seconds(), rate) for at, rate in found if rate > 0]


def drifts(connection: sqlite3.Connection, sweep_id: int, n: int, notes: Notes) -> list[tuple[str, float]]:
    """The last control measurements, the newest first: when, and the drift as a share."""
    sql = "SELECT measured_at, drift FROM controls WHERE sweep_id = ? ORDER BY id DESC LIMIT ?"
    rows = values.rows_of(connection, sql, (sweep_id, n))
    return list(notes.rows("a control", lambda at, drift: (str(at), values.number(drift)), rows))


def segment_of(connection: sqlite3.Connection, sweep_id: int, notes: Notes) -> tuple[int, dict[str, object]] | None:
    """The surroundings the sweep was last measured in: number and fingerprint."""
    sql = "SELECT g.id, g.fingerprint FROM sweeps JOIN segments AS g ON g.id = segment_id WHERE sweeps.id = ?"
    rows = values.rows_of(connection, sql, (sweep_id,))
    found = notes.rows("the surroundings", lambda number, text: (number, values.json_object(text)), rows)
    return next(found, None)
