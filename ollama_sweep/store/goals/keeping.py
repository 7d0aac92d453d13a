"""Keep what a sweep is for, why a cell was chosen, and what the goal came to."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from ollama_sweep.core.surface.goal import Goal, goal_of
from ollama_sweep.store import checksum, values
from ollama_sweep.store.plans import canonical_json
from ollama_sweep.store.values import Notes

UNKNOWN = "?"


@dataclass(frozen=True)
class Chosen:
    """Why a planner chose a cell, and how far its goal was then."""

    goal: str
    reason: str
    how_far: str


@dataclass(frozen=True)
class KeptGoal:
    """The goal of a sweep. `of_file` is what its file said when it was given: "" for nothing, UNKNOWN where the command
    line gave it.

    `says` is what it came to, or how far it was before the last cell; `answers` are keys of the cells that it names.
    """

    goal: Goal
    of_file: str
    is_reached: bool
    has_ended: bool
    says: str
    answers: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        return {**self.goal.as_dict(), "reached": self.is_reached, "ended": self.has_ended, "says": self.says,
                "answers": list(self.answers)}  # fmt: skip


_GOAL = """SELECT goal, of_file, is_reached, ended_at IS NOT NULL, CASE WHEN ended_at IS NULL THEN COALESCE((
        SELECT how_far FROM choices JOIN attempts ON attempts.id = attempt_id
        WHERE attempts.sweep_id = goals.sweep_id AND attempts.started_at >= goals.begun_at
        ORDER BY attempt_id DESC LIMIT 1), '') ELSE says END, answers
    FROM goals WHERE sweep_id = ?"""


def goal(connection: sqlite3.Connection, sweep_id: int, notes: Notes) -> KeptGoal | None:
    """The goal of a sweep; None where it has none."""
    rows = values.rows_of(connection, _GOAL, (sweep_id,))
    return next((one for one in notes.rows("the goal of the sweep", _goal, rows) if one is not None), None)


def _goal(
    text: object, of_file: object, is_reached: object, has_ended: object, says: object, answers: object
) -> KeptGoal | None:
    found = goal_of(values.json_object(text))
    if found is None:
        return None
    named = tuple(str(key) for key in json.loads(values.text(answers)))
    return KeptGoal(found, values.text(of_file), bool(is_reached), bool(has_ended), values.text(says), named)


def keep_goal(connection: sqlite3.Connection, sweep_id: int, goal: Goal, of_file: str, now: str) -> None:
    """The sweep is for this from now on; another one begins anew, the same one goes on."""
    connection.execute(
        """INSERT INTO goals (sweep_id, goal, of_file, begun_at) VALUES (?, ?, ?, ?)
            ON CONFLICT (sweep_id) DO UPDATE SET of_file = excluded.of_file,
                begun_at = CASE WHEN goal = excluded.goal THEN begun_at ELSE excluded.begun_at END,
                ended_at = CASE WHEN goal = excluded.goal THEN ended_at END,
                is_reached = CASE WHEN goal = excluded.goal THEN is_reached ELSE 0 END,
                says = CASE WHEN goal = excluded.goal THEN says ELSE '' END,
                answers = CASE WHEN goal = excluded.goal THEN answers ELSE '[]' END,
                goal = excluded.goal""",
        (sweep_id, text_of(goal), of_file, now),
    )
    _seal(connection, sweep_id)


def _seal(connection: sqlite3.Connection, sweep_id: int) -> None:
    """Whoever changes a goal seals it anew."""
    checksum.seal_rows(connection, "goals", "sweep_id = ?", (sweep_id,))


def begin(connection: sqlite3.Connection, sweep_id: int, attempt_id: int, chosen: Chosen) -> None:
    """Why this attempt was begun; the goal is not reached."""
    connection.execute(
        "INSERT OR REPLACE INTO choices (attempt_id, goal, reason, how_far) VALUES (?, ?, ?, ?)",
        (attempt_id, chosen.goal, chosen.reason, chosen.how_far),
    )
    checksum.seal_rows(connection, "choices", "attempt_id = ?", (attempt_id,))
    reopened = connection.execute(
        """UPDATE goals SET ended_at = NULL, is_reached = 0, says = '', answers = '[]'
            WHERE sweep_id = ? AND ended_at IS NOT NULL""",
        (sweep_id,),
    )
    if reopened.rowcount:
        _seal(connection, sweep_id)


def end(
    connection: sqlite3.Connection, sweep_id: int, says: str, answers: Sequence[str], now: str, *, is_reached: bool
) -> None:
    """What the goal came to, and the keys of the cells it names."""
    connection.execute(
        "UPDATE goals SET ended_at = ?, is_reached = ?, says = ?, answers = ? WHERE sweep_id = ?",
        (now, is_reached, says, canonical_json(list(answers)), sweep_id),
    )
    _seal(connection, sweep_id)


def chosen(connection: sqlite3.Connection, attempt_id: int, notes: Notes) -> Chosen | None:
    """Why a planner chose this attempt's cell; None where none did."""
    sql = "SELECT goal, reason, how_far FROM choices WHERE attempt_id = ?"
    rows = values.rows_of(connection, sql, (attempt_id,))
    return next(notes.rows("the reason of an attempt", lambda *row: Chosen(*map(values.text, row)), rows), None)


def text_of(goal: Goal | None) -> str:
    """A goal as it is compared with what a file said; "" for none."""
    return "" if goal is None else canonical_json(goal.as_dict())


def settled(given: Goal | None, stored: KeptGoal | None) -> tuple[Goal | None, str]:
    """The goal of this session, and what the file says of it as far as that is known.

    The command line's, which is kept until it or the file says another one; else the file's.
    """
    if given is not None and given.is_given:
        return given, UNKNOWN
    of_file = text_of(given)
    if stored is not None and stored.of_file in (UNKNOWN, of_file):
        return stored.goal, of_file
    return given, of_file
