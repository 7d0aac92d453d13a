"""How loads are read, for everybody who asks: an attempt is a load, and here alone stands which ones belong together.

`explain` shows those of a cell, `verify` makes numbers and spreads of them again, `compare` takes those of a sweep, and
a further load speaks for the earlier ones of its cell.
"""

# ruff: noqa: S608 - what is put into SQL here are our own names of columns and tables; values are always bound
from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ollama_sweep.core.outcome import Purpose, Status
from ollama_sweep.store import values


class StoredLoad(NamedTuple):
    """A load as it is stored. `choice` is how often its cell had been chosen for its value by then.

    `purpose` is that of a `Purpose`, None for the cell's own load; `segment_id` None where nobody knows it.
    """

    attempt_id: int
    cell_id: int
    number: int
    sweep_id: int
    segment_id: int | None
    choice: int
    purpose: str | None
    status: str
    started_at: str

    @property
    def group(self) -> tuple[int, int | None, int, int]:
        """Loads of one group differ in nothing but the time, and none was made because of the value of another one."""
        return self.sweep_id, self.segment_id, self.cell_id, self.choice


_COLUMNS = """a.id, a.cell_id, a.number, a.sweep_id, a.segment_id, COALESCE(a.choice, 0), a.purpose, a.status,
    a.started_at"""


def read(
    connection: sqlite3.Connection,
    tables: str,
    also: Sequence[str] = (),
    order: str = "a.number",
    bound: Mapping[str, object] | None = None,
) -> Iterator[tuple[StoredLoad, tuple[Any, ...]]]:
    """Loads, with what else is asked of each. `tables` is SQL in which the attempts are called `a`."""
    sql = f"SELECT {', '.join([_COLUMNS, *also])} FROM {tables} ORDER BY {order}"
    count = len(StoredLoad._fields)
    for row in values.rows_of(connection, sql, bound or {}):
        yield StoredLoad._make(row[:count]), row[count:]


def same_choice(one: str, other: str) -> str:
    """SQL: two attempts of a cell that was as often chosen for its value."""
    return f"COALESCE({one}.choice, 0) = COALESCE({other}.choice, 0)"


def same_time(one: str, other: str) -> str:
    """SQL: two attempts at one cell by one sweep in one segment.

    Found by the cell: a `+` keeps SQLite from the index of sweeps, by which it would look at all attempts each time.
    """
    rest = " AND ".join(f"+{one}.{name} IS {other}.{name}" for name in ("sweep_id", "segment_id"))
    return f"{one}.cell_id IS {other}.cell_id AND {rest}"


_COUNTING = ", ".join(f"'{status}'" for status in Status if status.counts)


def gives_value_sql(attempt: str) -> str:
    """SQL: as `gives_value` says it."""
    return f"""{attempt}.status IN ({_COUNTING}) AND {attempt}.purpose IS NOT 'control'
        AND ({attempt}.purpose IS NULL OR {attempt}.status = 'ok')"""


def gives_value(purpose: Purpose | None, status: Status) -> bool:
    """The cell stands at what such an attempt says, where it is the last one.

    A control measurement, and a further load that gave no number, leave the cell as it was.
    """
    if purpose is None:
        return status.counts
    return status is Status.OK and purpose is not Purpose.CONTROL


def earlier(connection: sqlite3.Connection, cell_id: int, choice: int, before: int | None = None) -> list[StoredLoad]:
    """The good loads that a further one of the same choice stands beside, the oldest first; `before` is its number."""
    tables = f"""attempts AS a WHERE a.cell_id = :cell_id AND a.status = 'ok' AND {gives_value_sql("a")}
        AND COALESCE(a.choice, 0) = :choice AND (:before IS NULL OR a.number < :before)"""
    bound = {"cell_id": cell_id, "choice": choice, "before": before}
    return [load for load, _ in read(connection, tables, bound=bound)]
