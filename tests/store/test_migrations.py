"""A database that an older version of this program made: it is brought up to date whole or not at all."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest
from sweep_runner import statuses
from sweeping import Program, label, program

from ollama_sweep.core.cell import content_hash
from ollama_sweep.store import schema
from ollama_sweep.store.transactions import Guarding
from ollama_sweep.store.writer import Store

DONE = {label(512, 2): 4, label(512, 4): 4}
FINISHED = """select num_ctx, num_batch, status, flags, attempts, runs, prompt_eval_count, prompt_eval_rate,
    prompt_eval_rate_min, started_at, finished_at, cell from results where status = 'ok' order by position"""
OBJECTS = "select name, sql from sqlite_master where type <> 'view' and name not like '%sqlite%'"
BACK_TO_1 = """
DROP VIEW results;
DROP TRIGGER cells_reused;
DROP TABLE reused;
DROP TABLE scans;
DROP TABLE disturbances;
DROP TABLE leases;
DROP TABLE lanes;
DROP TABLE goals;
DROP TABLE choices;
ALTER TABLE plan DROP COLUMN same_as;
ALTER TABLE plan DROP COLUMN checksum;
ALTER TABLE controls DROP COLUMN checksum;
DROP TABLE corrections;
DROP TABLE load_values;
DROP TABLE spreads;
DROP TABLE intervals;
DROP TABLE further_loads;
DROP TABLE second_looks;
ALTER TABLE attempts DROP COLUMN purpose;
ALTER TABLE attempts DROP COLUMN loads;
ALTER TABLE attempts DROP COLUMN choice;
ALTER TABLE cells DROP COLUMN flags;
ALTER TABLE controls DROP COLUMN attempt_id;
DROP TABLE checksums;
DROP TABLE origin;
DROP TABLE answers;
DROP TABLE out_of_memory;
DROP INDEX plan_witness;
DROP INDEX plan_pending;
DROP TRIGGER cells_status_changed;
ALTER TABLE plan DROP COLUMN late;
ALTER TABLE plan DROP COLUMN witness_id;
ALTER TABLE runs DROP COLUMN ttft_s;
DROP TABLE telemetry;
ALTER TABLE runs DROP COLUMN started_s;
ALTER TABLE runs DROP COLUMN thinking_count;
ALTER TABLE runs DROP COLUMN thinking_duration_s;
CREATE VIEW results AS SELECT s.name AS sweep, s.engine, COALESCE(p.model, c.model) AS model, c.num_ctx, c.num_batch,
    c.task, c.status, COALESCE(a.flags, '') AS flags, c.attempts, a.runs, a.prompt_eval_count, a.prompt_eval_rate,
    a.prompt_eval_rate_min, a.prompt_eval_rate_max, a.prompt_eval_duration_s, a.eval_rate, c.reason, a.started_at,
    a.finished_at, p.position, c.key AS cell
FROM sweeps AS s JOIN plan AS p ON p.sweep_id = s.id JOIN cells AS c ON c.id = p.cell_id
    LEFT JOIN attempts AS a ON a.id = c.attempt_id;
DELETE FROM _sqlite_migrations WHERE name <> '1_tables';
PRAGMA user_version = 1;
"""


@pytest.fixture
def old(program: Program) -> Path:
    """A database of version 1 with two finished cells."""
    program("run", program.grid(num_ctx=512)).must()
    path = program.folder / "sweeps.db"
    with (
        contextlib.closing(sqlite3.connect(path)) as connection,
        contextlib.closing(sqlite3.connect(":memory:")) as first,
    ):
        first.executescript(schema._TABLES_1)
        connection.executescript(BACK_TO_1)
        for (sql,) in first.execute(
            "SELECT sql FROM sqlite_master WHERE name IN ('plan_pending', 'cells_status_changed')"
        ):
            connection.execute(sql)
    return path


def version(path: Path) -> int:
    """The version in the file's header; its integrity and its tables are those of that version."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        columns = {row[1] for row in connection.execute("PRAGMA table_info(runs)")}
        migrations = [name for (name,) in connection.execute("SELECT name FROM _sqlite_migrations ORDER BY id")]
    assert ("answers" in tables, "ttft_s" in columns, len(migrations)) == (found >= 2, found >= 2, found)
    return int(found)


def test_the_first_version_is_the_one_that_is_tested(old: Path, tmp_path: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(tmp_path / "first.db")) as first,
        contextlib.closing(sqlite3.connect(old)) as found,
    ):
        first.executescript(schema._TABLES_1)
        assert set(found.execute(OBJECTS)) == set(first.execute(OBJECTS))
    assert version(old) == 1


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (schema._TABLES_1, "sha256:4d5bb71935c73f222cc576935e6a83ec89d639f1f99a5c1650910cd042be5272"),
        (schema._TABLES_2, "sha256:afadd3743bb4da752cd6d413108e9ddb703a73f47d972af09fcbfc9b2b7cfd08"),
    ],
    ids=["1", "2"],
)
def test_a_migration_is_never_changed(text: str, known: str) -> None:
    """There are files that were made with it: a change of them is a migration of its own."""
    assert content_hash(text) == known


def test_run_brings_it_up_to_date_keeps_what_is_there_and_goes_on(program: Program, old: Path) -> None:
    before = program.rows(sql=FINISHED)
    said = program("run", program.grid()).must().stdout
    assert version(old) == schema.USER_VERSION
    assert "2 of 4 cells already done, 2 to run" in said
    assert program.measured() == {**DONE, label(1024, 2): 4, label(1024, 4): 4}
    assert program.rows(sql=FINISHED)[:2] == before
    assert set(statuses(program.rows()).values()) == {"ok"}
    assert [row["ttft_s"] is None for row in program.rows(sql="select ttft_s from runs order by attempt_id")] == (
        [True] * 8 + [False] * 8
    )


def dies_at(path: Path, statement: int) -> bool:
    """Open the database in a process that is killed before its n-th statement; whether it came so far."""

    class Dies(sqlite3.Connection):
        def __init__(self, *arguments: object, **named: object) -> None:
            super().__init__(*arguments, **named)  # type: ignore[arg-type]
            self.seen = 0
            self.set_trace_callback(self.count)

        def count(self, _sql: str) -> None:
            self.seen += 1
            if self.seen == statement:
                os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            Store.open(path, guarding=Guarding(factory=Dies)).close()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_a_death_at_any_statement_leaves_the_old_version_or_the_new_one(program: Program, old: Path) -> None:
    import sqlite_utils  # once, and not anew by each child

    before, kept = program.rows(sql=FINISHED), old.with_name("kept.db")
    shutil.copy(old, kept)
    seen: list[int] = []
    while True:
        for name in ("sweeps.db", "sweeps.db-wal", "sweeps.db-shm"):
            old.with_name(name).unlink(missing_ok=True)
        shutil.copy(kept, old)
        died = dies_at(old, len(seen) + 1)
        seen.append(version(old))
        assert program.rows(sql=FINISHED) == before
        if len(seen) % 16 and died and seen[-2:].count(1) != 1:
            continue  # as the one before: to go on from each sixteenth one is enough, and from the first new one
        said = program("run", program.grid(num_ctx=512)).must().stdout
        assert "2 of 2 cells already done, 0 to run" in said
        assert version(old) == schema.USER_VERSION
        assert program.rows(sql=FINISHED) == before
        if not died:
            break
    assert program.measured() == DONE
    assert seen == sorted(seen), "once it is the new one it stays so"
    assert seen.count(1) > 10
    assert seen[-1] == schema.USER_VERSION


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["watch"],
        ["heatmap"],
        ["export", "--format", "csv"],
        ["best"],
        ["report"],
        ["plot", "heatmap"],
        ["plan", "grid.yaml"],
    ],
    ids=lambda words: words[0],
)
def test_a_reader_shows_it_as_it_is_and_leaves_it_so(words: list[str], program: Program, old: Path) -> None:
    """What it says is what it says of the same file when that is up to date."""
    found = program(*words).must()
    assert found.stdout
    assert version(old) == 1
    Store.open(old).close()
    again = program(*words).must()
    assert (found.stdout, found.stderr) == (again.stdout, again.stderr)


def test_doctor_says_so_and_recover_copies_it(program: Program, old: Path) -> None:
    before = program.rows(sql=FINISHED)
    line = "sweeps.db was made by an older version; `ollama-sweep run` brings it up to date"
    assert line in program("doctor", "grid.yaml").stdout
    program("recover", "--to", "copy.db").must()
    assert version(program.folder / "copy.db") == schema.USER_VERSION
    assert program.rows("copy.db", FINISHED) == before
    assert version(old) == 1
