"""Which known cells are measured again, and why: one list of rules, which `run` applies and `plan` asks before."""

# ruff: noqa: S608 - what is put into SQL here is our own text; values are always bound
from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ollama_sweep.core.outcome import FAILURES, Status
from ollama_sweep.store import checksum, plans
from ollama_sweep.store.memory import pruning
from ollama_sweep.store.memory.tables import LEFT_OUT
from ollama_sweep.store.rows import PlannedCell
from ollama_sweep.store.values import Notes, rows_of

ROUNDS = """(SELECT count(*) / count(DISTINCT item) FROM attempts AS a JOIN answers ON answers.attempt_id = a.id
    WHERE a.cell_id = cells.id AND a.status = 'ok' AND part LIKE 'run %')"""
"""How often every question of a cell was asked, answered or not; NULL where its task has no questions."""


@dataclass(frozen=True)
class Wanted:
    """The settings that decide what is measured again.

    `rounds` says how often each task with questions asks them; `repeats_minimum` is for every other task. With `prune`
    what ran out of memory leaves out what is at least as large. `reuses`: cells that are the same configuration are
    measured once.
    """

    timeout_s: float
    repeats_minimum: int
    retry: frozenset[Status] = frozenset()
    rounds: Mapping[str, int] = field(default_factory=dict)
    prune: bool = False
    reuses: bool = False

    def __post_init__(self) -> None:
        if strange := self.retry - FAILURES:
            raise ValueError(f"cannot be retried: {', '.join(sorted(strange))}")

    def values(self) -> dict[str, object]:
        """What the rules bind."""
        return {
            "timeout_s": self.timeout_s,
            "repeats_minimum": self.repeats_minimum,
            "retry": json.dumps(sorted(self.retry)),
            "rounds": json.dumps(dict(self.rounds)),
            "most_rounds": max(self.rounds.values(), default=0),
            "reuses": self.reuses,
        }


NEW, NOT_YET, TAKEN = "new", "not measured yet", "takes the result of another cell"
_FAILED = """EXISTS (SELECT 1 FROM further_loads AS f WHERE f.cell_id = cells.id AND f.purpose = 'repeats'
    AND f.state = 'failed' AND f.number >= max(:repeats_minimum, :most_rounds))"""
"""A load for as many runs has been tried and gave none: it is not tried at every start."""
_TOO_FEW = "has {runs} runs, {asked} are asked for now"
_IS_COPY = "id IN (SELECT cell_id FROM reused)"
_RULES = (
    (f"NOT :reuses AND {_IS_COPY} AND status <> 'skipped'", "had the result of another cell"),
    ("status IN (SELECT value FROM json_each(:retry))", "retry of {status}"),
    (
        "status = 'timeout' AND timeout_s < :timeout_s",
        "timed out after {had_s:g} s, the limit is {limit_s:g} s now",
    ),
    (
        f"""status = 'ok' AND repeats < :repeats_minimum AND runs < :repeats_minimum
            AND task NOT IN (SELECT key FROM json_each(:rounds)) AND NOT {_FAILED}""",
        _TOO_FEW,
    ),
    # The same of a task with questions; `most_rounds` lets the index find that there is nothing to do.
    (
        f"""status = 'ok' AND repeats < :most_rounds
            AND {ROUNDS} < (SELECT value FROM json_each(:rounds) WHERE key = cells.task) AND NOT {_FAILED}""",
        _TOO_FEW,
    ),
    ("status = 'skipped'", "was skipped, fits now"),
)
"""Of a cell that the plan does not leave out: a condition, and what it is called."""

_IS_OK = "status = 'ok'"
_ONCE_MORE = """INSERT INTO further_loads (sweep_id, cell_id, purpose, number, place, reason)
    SELECT :sweep_id, cells.id, 'repeats', max(:repeats_minimum, :most_rounds), min(plan.position),
        'more runs are asked for'
    FROM cells JOIN plan INDEXED BY plan_cell ON plan.cell_id = cells.id AND plan.sweep_id = :sweep_id
    WHERE {} AND skip IS NULL AND NOT EXISTS (SELECT 1 FROM reused WHERE cell_id = cells.id) GROUP BY cells.id"""
"""Of a cell that has a value of its own: it keeps it, and wants a further load."""
_AGAIN = """UPDATE cells SET status = 'pending', reason = '', deaths = 0 WHERE {} AND EXISTS (
    SELECT 1 FROM plan INDEXED BY plan_cell WHERE cell_id = cells.id AND sweep_id = :sweep_id AND skip IS NULL)"""
_LEAVE_OUT = f"""UPDATE cells SET status = 'skipped', reason = plan.skip FROM plan
    WHERE plan.sweep_id = :sweep_id AND plan.skip IS NOT NULL AND plan.skip <> '{LEFT_OUT}' AND cells.id = plan.cell_id
        AND (+cells.status = 'pending' OR (+cells.status = 'skipped' AND cells.reason <> plan.skip))"""
"""Left out by now, or left out for another reason. The `+` keeps SQLite from walking over all pending cells."""
_ASK = f"""SELECT key, status, runs, timeout_s, task, :reuses AND {_IS_COPY},
        CASE {" ".join(f"WHEN {condition} THEN {number}" for number, (condition, _) in enumerate(_RULES))} END
    FROM cells WHERE key IN (SELECT value FROM json_each(:keys))"""


def apply(connection: sqlite3.Connection, sweep_id: int, wanted: Wanted) -> None:
    """Make pending what has to be measured again, and skipped what is left out; everything else keeps its status.

    What has a value keeps that, too, and wants a further load. What is left out for want of memory is left out by this
    sweep's plan alone: the cell stays pending for every other one.
    """
    values = {**wanted.values(), "sweep_id": sweep_id}
    connection.execute(
        """UPDATE further_loads SET state = 'dropped'
            WHERE sweep_id = :sweep_id AND purpose = 'repeats' AND state = 'waiting'""",
        values,
    )
    pruning.forget_measured(connection, sweep_id)
    for condition, _ in _RULES:
        sql = _ONCE_MORE if condition.startswith(_IS_OK) else _AGAIN
        connection.execute(sql.format(condition), values)
    checksum.seal_rows(
        connection, "further_loads", "sweep_id = ? AND state = 'waiting' AND checksum IS NULL", (sweep_id,)
    )
    connection.execute(_LEAVE_OUT, values)
    plans.let_reuse(connection, sweep_id, reuses=wanted.reuses)
    pruning.apply(connection, sweep_id, is_wanted=wanted.prune)


def reasons(connection: sqlite3.Connection, keys: Sequence[str], wanted: Wanted, notes: Notes) -> dict[str, str]:
    """Why `run` would measure each of these cells, "" where it is done; those that nobody knows are left out."""
    found = rows_of(connection, _ASK, {**wanted.values(), "keys": json.dumps(keys)})
    return dict(notes.rows("a cell", lambda key, *row: (str(key), _words(wanted, *row)), found))


def _words(
    wanted: Wanted, status: str, runs: int, had_s: float | None, task: str, is_copy: bool, rule: int | None
) -> str:
    if is_copy and (rule is not None or not Status(status).is_final):
        return TAKEN
    if not Status(status).is_final:
        return NOT_YET
    if rule is None:
        return ""
    asked = wanted.rounds.get(task, wanted.repeats_minimum)
    return _RULES[rule][1].format(status=status, runs=runs, had_s=had_s, limit_s=wanted.timeout_s, asked=asked)


def why(planned: PlannedCell, known: Mapping[str, str]) -> str:
    """Why `run` would measure a cell, in words; "" where it would not. `known` are the `reasons` of all known cells."""
    return "" if planned.status is Status.SKIPPED else known.get(planned.key, NEW)
