"""Copy what can be read of a damaged database to a new one that is sound: what lost its parent is left out, and said.

Everything is made in a folder beside the new database; it takes its name only when it is whole.
"""

# ruff: noqa: S608 - what is put into SQL here are our own names of tables and columns; values are always bound
from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ollama_sweep.core.errors import ConfigError, DatabaseInUse, StorageError
from ollama_sweep.core.outcome import RETRIED, Answer, Effective, Flag, Line, Outcome, Run, Series, Status, Summary
from ollama_sweep.core.summary import own_load
from ollama_sweep.store import attempts, lock, one_cell, schema, verify
from ollama_sweep.store import file as files
from ollama_sweep.store.beside import check_database
from ollama_sweep.store.lanes.tables import LANE
from ollama_sweep.store.loads import spreads
from ollama_sweep.store.memory.tables import LEFT_OUT, SHOWN
from ollama_sweep.store.plans import options_of
from ollama_sweep.store.recovery import pages
from ollama_sweep.store.recovery.pages import Reading, Row, Table
from ollama_sweep.store.recovery.replanning import place_measured_cells
from ollama_sweep.store.rows import PARKED
from ollama_sweep.store.values import Notes
from ollama_sweep.store.writer import Store

_MADE_ANEW = frozenset({"status_counts", "origin"})
_MANY = 20
_FOLDER = re.compile(r"\.recovering-(\d+)-")


@dataclass(frozen=True)
class TableCount:
    """What came of a table. `lost` rows could not be read (None: nobody knows how many), `dropped` ones lost their
    parent: an attempt without its cell, a run without its attempt.
    """

    table: str
    copied: int
    lost: int | None
    dropped: int = 0


@dataclass(frozen=True)
class Recovered:
    """What came of it all. `pending_again` cells had a result that is lost; `rescued` has a line for each file.

    `differences` names what is not as it was measured, and is not among the results any more or is there in part.
    """

    tables: tuple[TableCount, ...]
    pending_again: int
    unreadable_bytes: int
    rescued: tuple[str, ...]
    differences: tuple[verify.Difference, ...] = ()


def recover(damaged: Path, to: Path, *, allow_network: bool = False) -> Recovered:
    """Make the new database. Raises ConfigError, DatabaseInUse and StorageError; then nothing was made."""
    _check(damaged, to, allow_network)
    try:
        with _folder_beside(to) as folder:
            new = folder / "new.db"
            found = _recover(damaged, folder / "damaged.db", new)
            if to.exists():
                raise ConfigError(f"{to} exists; --to takes the name of a new file")
            new.replace(to)
            return found
    except sqlite3.Error as error:
        if not files.is_storage(error):
            raise
        raise files.storage_error(error, to) from error
    except OSError as error:
        raise files.storage_error(error, to) from error


def _check(damaged: Path, to: Path, allow_network: bool) -> None:
    check_database(damaged)
    if not damaged.exists():
        raise ConfigError(f"no database at {damaged}")
    if to.exists() or to.is_symlink():
        raise ConfigError(f"{to} exists; --to takes the name of a new file")
    files.check_place(to, allow_network, files.file_system)
    files.check_writable(to)
    if not os.access(damaged, os.R_OK):
        raise StorageError(f"{damaged} cannot be read")
    if (holder := lock.holder(damaged)) is not None:
        raise DatabaseInUse(f"{lock.already_running(holder)}. Stop it first")


@contextlib.contextmanager
def _folder_beside(to: Path) -> Iterator[Path]:
    """A folder for the work; those that a killed process left are removed."""
    import psutil

    start = f".{to.name}.recovering-"
    for old in to.resolve().parent.glob(f"{glob.escape(start)}*"):
        owner = _FOLDER.search(old.name)
        if owner and not psutil.pid_exists(int(owner.group(1))):
            shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{start}{os.getpid()}-", dir=to.resolve().parent) as name:
        yield Path(name)


def _recover(damaged: Path, copy: Path, new: Path) -> Recovered:
    unreadable_bytes = pages.copy_damaged(damaged, copy)
    Store.open(new, allow_network=True).close()
    with contextlib.closing(files.connect_rw(new)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        tables = {name: table for name, table in pages.tables_of(connection).items() if name not in _MADE_ANEW}
        with contextlib.closing(pages.open_copy(copy, damaged, tables)) as reading:
            copying = {name: _copy_table(reading, connection, table) for name, table in _plan_last(tables)}
        _copy_leaves(copy, connection, copying, tables)
        with _transaction(connection):
            _name_lost_sweeps(connection)
            differences = _lose_what_differs(connection, copying)
            dropped = _drop_orphans(connection, tables)
            if copying["plan"].lost != 0:
                place_measured_cells(connection)
            pending_again = _settle(connection)
        if not connection.execute("SELECT EXISTS (SELECT 1 FROM cells)").fetchone()[0]:
            raise StorageError(f"no cell could be read from {damaged}; no new database was made")
        rescued = [_take_over(connection, file) for file in _rescued_files(damaged)]
        _check_result(connection)
    counts = tuple(copying[name].count(dropped[name]) for name in tables)
    return Recovered(counts, pending_again, unreadable_bytes, tuple(rescued), tuple(differences))


def _plan_last(tables: Mapping[str, Table]) -> list[tuple[str, Table]]:
    """It is read sweep by sweep, and where the sweeps are lost the attempts know their numbers."""
    return sorted(tables.items(), key=lambda pair: pair[0] == "plan")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


# -- rows ------------------------------------------------------------------------------------------------------------


@dataclass
class _Copying:
    """One table on its way: `broken` rows could be read and are nonsense."""

    table: Table
    copied: int = 0
    broken: int = 0
    expected: int | None = None
    unreadable: int | None = None

    def take(self, new: sqlite3.Connection, columns: Sequence[str], rows: Iterable[Row]) -> None:
        has_bare_rowid = self.table.key == ("rowid",) and not self.table.has_id
        names = ["rowid", *columns] if has_bare_rowid else columns
        sql = f"INSERT INTO {self.table.name} ({', '.join(names)}) VALUES ({', '.join('?' for _ in names)})"
        with _transaction(new):
            for row in rows:
                is_stored = (
                    not _is_torn(row)
                    and verify.is_sound(columns, row[1:])
                    and _insert(new, sql, row if has_bare_rowid else row[1:])
                )
                self.copied += is_stored
                self.broken += not is_stored

    def lose(self, new: sqlite3.Connection, where: str, *values: object) -> int:
        """Take a row back that turned out to be nonsense; how many these were."""
        gone = new.execute(f"DELETE FROM {self.table.name} WHERE {where}", values).rowcount
        self.copied -= gone
        self.broken += gone
        return gone

    @property
    def lost(self) -> int | None:
        """None: nobody knows how many."""
        known = None if self.unreadable is None else self.unreadable + self.broken
        return known if self.expected is None else max(self.expected - self.copied, known or 0)

    def count(self, dropped: int) -> TableCount:
        return TableCount(self.table.name, self.copied - dropped, self.lost, dropped)


def _copy_table(reading: sqlite3.Connection, new: sqlite3.Connection, table: Table) -> _Copying:
    found, copying = Reading(reading, table), _Copying(table)
    columns = found.columns()
    if columns:
        numbers = new.execute("SELECT id FROM sweeps UNION SELECT sweep_id FROM attempts ORDER BY 1").fetchall()
        copying.take(new, columns, found.rows(columns, [int(number) for (number,) in numbers]))
        copying.expected = found.expected()
        copying.unreadable = None if found.is_open_ended else found.unreadable
    elif pages.is_older(reading) and not pages.has_table(reading, table.name):
        copying.unreadable = 0
    return copying


def _copy_leaves(
    copy: Path, new: sqlite3.Connection, copying: Mapping[str, _Copying], tables: Mapping[str, Table]
) -> None:
    """Look for the rows of tables that are not whole on every page of the file."""
    torn = [one for one in copying.values() if one.lost != 0 and one.table.key == ("rowid",)]
    if not torn:
        return
    with contextlib.closing(pages.Leaves(copy, tables)) as leaves:
        for one in torn:
            more = _Copying(one.table)
            more.take(new, one.table.columns, leaves.rows(one.table))
            one.copied += more.copied
            if one.unreadable:
                one.unreadable = max(0, one.unreadable - more.copied)


def _is_torn(row: Row) -> bool:
    """A text ends in zeros: only the first sectors of its page reached the disk. Nobody here writes a zero in one."""
    return any(isinstance(value, str) and "\0" in value for value in row)


def _insert(new: sqlite3.Connection, sql: str, row: Row) -> bool:
    """False for a row that the schema does not take: another type, an unknown status, a key that is there already."""
    try:
        new.execute(sql, row)
    except sqlite3.IntegrityError:
        return False
    return True


def _flags(words: Sequence[str]) -> frozenset[Flag]:
    return frozenset(Flag(word) for word in words)


# -- what hangs together ---------------------------------------------------------------------------------------------


def _name_lost_sweeps(connection: sqlite3.Connection) -> None:
    """Attempts without their sweep get one: their cells are then found by any sweep that has them in its plan."""
    connection.execute(
        """INSERT INTO sweeps (id, name, engine, config_path, spec, plan_fingerprint, machine, dimensions, repeats,
                created_at, last_run_at, run_order)
            SELECT sweep_id, 'recovered ' || sweep_id, min(engine), '', '{}', '', '', '["num_ctx","num_batch"]',
                max(attempts.repeats), min(started_at), max(started_at), 0
            FROM attempts JOIN cells ON cells.id = cell_id
            WHERE sweep_id NOT IN (SELECT id FROM sweeps) GROUP BY sweep_id"""
    )


def _lose_what_differs(connection: sqlite3.Connection, copying: Mapping[str, _Copying]) -> list[verify.Difference]:
    """A cell, an attempt or a row that is not what was written is lost; where only runs differ the result is kept."""
    found = list(verify.differing_attempts(connection))
    (attempts_there,) = connection.execute("SELECT count(*) FROM attempts").fetchone()
    lost = [one for one in found if one.is_lost and one.attempt_id is not None]
    if len(lost) > max(_MANY, attempts_there / 2):  # no damage does that, so they are only named
        lost = []
    for one in lost:
        if f"{verify.CELL} differs" in one.what:
            copying["cells"].lose(connection, "id = (SELECT cell_id FROM attempts WHERE id = ?)", one.attempt_id)
        else:
            copying["attempts"].lose(connection, "id = ?", one.attempt_id)
    rows = [*verify.misplaced(connection), *verify.differing_rows(connection)]
    return found + [row.difference for row in rows if copying[row.table].lose(connection, row.where, *row.key)]


def _drop_orphans(connection: sqlite3.Connection, tables: Mapping[str, Table]) -> dict[str, int]:
    """Rows whose parent is lost go, with their own children; a reference that may be empty is emptied."""
    dropped = dict.fromkeys(tables, 0)
    while True:
        changed = 0
        for table in tables:
            must = {row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[3]}
            for _, _, parent, column, key, *_ in connection.execute(f"PRAGMA foreign_key_list({table})").fetchall():
                lost = f"""{column} IS NOT NULL AND NOT EXISTS
                    (SELECT 1 FROM {parent} AS parent WHERE parent.{key} = {table}.{column})"""
                if column in must:
                    gone = connection.execute(f"DELETE FROM {table} WHERE {lost}").rowcount
                    dropped[table] += gone
                    changed += gone
                else:
                    connection.execute(f"UPDATE {table} SET {column} = NULL WHERE {lost}")
        if not changed:
            return dropped


_SETTLE = (
    # A result is only one together with its own attempt.
    """UPDATE cells SET attempt_id = NULL WHERE attempt_id IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM attempts WHERE id = attempt_id AND status <> 'started' AND cell_id IN
            (cells.id, (SELECT original_id FROM reused WHERE reused.cell_id = cells.id)))""",
    """UPDATE cells SET status = 'pending' WHERE status = 'started'
        AND NOT EXISTS (SELECT 1 FROM attempts WHERE cell_id = cells.id AND finished_at IS NULL)""",
    # What a cell repeats of its attempts is taken from them.
    f"""UPDATE cells SET reason = (SELECT reason FROM attempts WHERE id = attempt_id) WHERE reason <> '{PARKED}'
        AND EXISTS (SELECT 1 FROM attempts WHERE id = attempt_id AND status = cells.status)""",
    """UPDATE cells SET attempts = (SELECT count(*) FROM attempts
        WHERE cell_id = cells.id AND status NOT IN ('started', 'interrupted', 'discarded'))""",
    # The plan is made anew by the next `run`, which walks over the cells only where the fingerprint is another one.
    "UPDATE sweeps SET plan_fingerprint = ''",
    f"""UPDATE plan SET pending = (SELECT status = 'pending' FROM cells WHERE cells.id = plan.cell_id)
        AND skip IS NOT '{LEFT_OUT}'""",
    "DELETE FROM status_counts",
    f"""INSERT INTO status_counts (sweep_id, status, cells)
        SELECT sweep_id, {SHOWN}, count(*) FROM plan JOIN cells ON cells.id = cell_id GROUP BY 1, 2""",
)
_MEASURE_AGAIN = f"""UPDATE cells SET status = 'pending', reason = '', runs = 0, repeats = 0, timeout_s = NULL
    WHERE attempt_id IS NULL AND status NOT IN ('pending', 'started', 'skipped') AND reason <> '{PARKED}'"""


def _make_loads_again(connection: sqlite3.Connection) -> None:
    """What a load said comes of its runs: it is made again where it is lost and they are not."""
    sql = """SELECT id FROM attempts WHERE status = 'ok' AND loads IS NOT NULL
        AND id NOT IN (SELECT attempt_id FROM load_values)"""
    lacking = {attempt_id for (attempt_id,) in connection.execute(sql)}
    if not lacking:
        return
    for one in one_cell.stored_attempts(connection, Notes(Path())):  # nobody is told twice
        for metric, load in own_load(one.runs).items() if one.attempt_id in lacking else ():
            spreads.keep(connection, one.attempt_id, metric, load)


def _settle(connection: sqlite3.Connection) -> int:
    """Make everything that is kept twice fit again; how many cells lost their result and are pending again."""
    connection.execute(_SETTLE[0])
    pending_again = connection.execute(_MEASURE_AGAIN).rowcount
    for sql in _SETTLE[1:]:
        connection.execute(sql)
    _make_loads_again(connection)
    spreads.make_again(connection)
    for (dimensions,) in connection.execute("SELECT dimensions FROM sweeps").fetchall():
        schema.add_view_columns(connection, json.loads(dimensions), "dimension")
    if connection.execute("SELECT EXISTS (SELECT 1 FROM lanes)").fetchone()[0]:
        schema.add_view_columns(connection, [LANE], "dimension")
    scores = connection.execute("SELECT DISTINCT name FROM scores WHERE part = ?", (attempts.WHOLE,)).fetchall()
    schema.add_view_columns(connection, [name for (name,) in scores], "score")
    schema.create_view(connection)
    return pending_again


def _check_result(connection: sqlite3.Connection) -> None:
    found = [str(row) for row in connection.execute("PRAGMA foreign_key_check").fetchall()]
    found += [str(row[0]) for row in connection.execute("PRAGMA integrity_check").fetchall() if row[0] != "ok"]
    if found:
        raise StorageError(f"the new database would not be sound ({'; '.join(found[:3])}); it was not made")


# -- cells that were saved to files ----------------------------------------------------------------------------------


def _rescued_files(damaged: Path) -> list[Path]:
    return sorted(damaged.parent.glob(f"{glob.escape(damaged.name)}.rescued-*.json"))


def _take_over(connection: sqlite3.Connection, file: Path) -> str:
    """Store a cell that `run` saved beside the database as a finished attempt; a line that says what came of it."""
    try:
        content = json.loads(file.read_text("utf-8"))
        key, outcome = str(content["key"]), _outcome(content["outcome"])
        attempts.check_finite(outcome)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return f"{file.name} is not a saved cell; it was left alone"
    row = connection.execute(
        """SELECT cells.id, cells.status, plan.sweep_id, plan.coordinates FROM cells
            JOIN plan ON plan.cell_id = cells.id JOIN sweeps ON sweeps.id = plan.sweep_id
            WHERE cells.key = ? ORDER BY sweeps.run_order DESC LIMIT 1""",
        (key,),
    ).fetchone()
    if row is None:
        return f"{file.name}: its cell is not in the plan; the file was left alone"
    cell_id, status, sweep_id, coordinates = row
    label = ", ".join(f"{name} {value}" for name, value in options_of(coordinates))
    if Status(status).is_final:
        return f"{file.name}: {label} is {status} already"
    when = datetime.fromtimestamp(file.stat().st_mtime, UTC).isoformat(timespec="milliseconds")
    try:
        with _transaction(connection):
            _store_rescued(connection, cell_id, sweep_id, outcome, when)
    except sqlite3.IntegrityError:
        return f"{file.name} is not a saved cell; it was left alone"
    return f"{label} was taken over from {file.name}"


def _store_rescued(connection: sqlite3.Connection, cell_id: int, sweep_id: int, outcome: Outcome, when: str) -> None:
    """It ends the attempt that was open when it was saved; where that is lost it is an attempt of its own."""
    sql = "SELECT id FROM attempts WHERE cell_id = ? AND finished_at IS NULL ORDER BY number DESC LIMIT 1"
    row = connection.execute(sql, (cell_id,)).fetchone()
    attempt_id = int(row[0]) if row else attempts.begin(connection, sweep_id, cell_id, 0.0, when, None)
    if row is None:
        connection.execute("UPDATE attempts SET timeout_s = NULL, pid = NULL WHERE id = ?", (attempt_id,))
    is_last_word = outcome.status.counts and outcome.status not in RETRIED
    attempts.finish(connection, attempt_id, outcome, outcome.status if is_last_word else Status.PENDING, when)


def _outcome(content: Any) -> Outcome:
    """What `dataclasses.asdict` made of an outcome. Raises ValueError, TypeError, KeyError, AttributeError."""
    effective = content["effective"]
    values = {
        **content,
        "status": Status(content["status"]),
        "flags": _flags(content["flags"]),
        "runs": tuple(_run(run) for run in content["runs"]),
        "summary": Summary(**content["summary"]),
        "effective": Effective(**{**effective, "others_loaded": tuple(effective["others_loaded"])}),
        "series": _series(content.get("series") or {}),
    }
    return Outcome(**values)


def _series(content: Any) -> Series:
    lines = content.get("lines", {}).items()
    found = {name: Line(line["low"], line["high"], tuple(line["points"])) for name, line in lines}
    return Series(**{**content, "lines": found})


def _run(content: Any) -> Run:
    answer = content.get("answer")
    return Run(**{**content, "answer": None if answer is None else Answer(**answer)})
