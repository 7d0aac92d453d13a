"""Rows that belong to no attempt: a value that was changed in one is found, and is lost where it is recovered."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from ollama_fixture import free_port
from sweeping import Program, json_of

from ollama_sweep.store import checksum, verify

CELLS = 8


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A sweep with control measurements that drift, two passes, a second look, a scan, and cells without memory.

    Two others have a goal.
    """
    made = Program(tmp_path_factory.mktemp("rows"))
    made.script(noise=0)
    hosts = [{"name": name, "host": f"127.0.0.1:{free_port()}"} for name in ("a", "b")]
    made("doctor", made.grid("beside", num_ctx=512, num_batch=32, warmup=0, hosts=hosts), "--lanes").must()
    made.script(noise=0.01, oom_above=1024 * 64, slows={"after": 5, "factor": 0.8})
    config = made.grid(
        num_ctx=[512, 1024], num_batch=[32, 64, 128, 256], control=1, second_look="50%", passes=2, interim="off"
    )
    made("run", config, "--no-pause").must()
    made("run", config, "--scan").must()
    hosts = [{"name": "a", "host": "127.0.0.1:1"}]
    made("run", made.grid("in_lanes", num_ctx=512, num_thread=2, num_batch=32, warmup=0, hosts=hosts)).must()
    for name in ("wanted", "wished"):
        made("run", made.grid(name, num_ctx=[512, 1024], num_thread=1, num_batch=[32, 64]), "--goal", "best").must()
    yield made
    made.close()


def changed(value: object) -> object:
    """Another value of the same type, as near as a bit."""
    if isinstance(value, int):
        return value ^ 1
    if isinstance(value, float):
        return value * 1.0001 or 0.5
    digit = re.search(r"\d|[a-z]", str(value))
    return f"{value}x" if digit is None else str(value).replace(digit.group(), chr(ord(digit.group()) ^ 1), 1)


def test_every_value_that_was_changed_is_found(measured: Program) -> None:
    found, missed = verify.verify, []
    with contextlib.closing(sqlite3.connect(measured.folder / "sweeps.db", isolation_level=None)) as connection:
        assert found(connection).differences == ()
        connection.execute("BEGIN")
        for table, names in checksum.ROWS.items():
            count = "SELECT count(*), count(checksum) FROM"
            (rows, sealed) = connection.execute(f"{count} {table}").fetchone()
            assert (table, rows) == (table, sealed)
            assert rows, table
            for name in names:
                connection.execute("SAVEPOINT before")
                (value,) = connection.execute(f"SELECT {name} FROM {table} LIMIT 1").fetchone()
                new = 1 if value is None else changed(value)
                with contextlib.suppress(sqlite3.IntegrityError):  # the file's own rules keep it out
                    key = "position" if table == "plan" else "rowid"
                    connection.execute(f"UPDATE {table} SET {name} = ? WHERE {key} = (SELECT min({key}) FROM {table})",
                                       (new,))  # fmt: skip
                    missed += [] if list(verify.differing_rows(connection)) else [f"{table}.{name}"]
                connection.execute("ROLLBACK TO before")
        connection.execute("ROLLBACK")
    assert missed == []


def test_a_position_that_was_changed_is_told_and_not_shown_as_true(measured: Program, tmp_path: Path) -> None:
    path = measured.folder / "moved.db"
    path.write_bytes((measured.folder / "sweeps.db").read_bytes())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE plan SET position = 64 WHERE position = 0 AND sweep_id = 1")
    said = measured("verify", "--db", "moved.db").must(4).stdout
    assert "sweep grid: num_ctx 512, num_batch 32: its place in the plan differs" in said
    found = json_of(measured("recover", "--db", "moved.db", "--to", "whole.db", "--json"))
    assert [one["what"] for one in found["differences"]] == [["its place in the plan differs"]]
    # What was moved is lost; the cell itself, which was measured, says which of the sweep's it is.
    told = [(row["position"], row["num_ctx"], row["num_batch"]) for row in measured.rows("whole.db")
            if row["sweep"] == "grid"]  # fmt: skip
    assert [position for position, *_ in told] == [*range(CELLS)]
    assert told[0] == (0, 512, 32)
    measured("verify", "--db", "whole.db").must()


def test_a_goal_that_was_changed_is_told_and_the_others_are_kept(measured: Program) -> None:
    """What it came to and why a cell was chosen are said by `status` and `explain`, so they are held to what was."""
    path = measured.folder / "goals.db"
    path.write_bytes((measured.folder / "sweeps.db").read_bytes())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("""UPDATE goals SET says = replace(says, '1', '7')
            WHERE sweep_id = (SELECT id FROM sweeps WHERE name = 'wanted')""")
        (chosen,) = connection.execute("SELECT max(attempt_id) FROM choices").fetchone()
        connection.execute("UPDATE choices SET reason = 'because' WHERE attempt_id = ?", (chosen,))
    said = measured("verify", "--db", "goals.db").must(4).stdout
    assert "sweep wanted: its goal differs" in said
    assert said.count("why it was chosen differs") == 1
    choices = len(measured.rows("goals.db", "SELECT * FROM choices"))
    measured("recover", "--db", "goals.db", "--to", "good.db").must()
    measured("verify", "--db", "good.db").must()
    assert len(measured.rows("good.db", "SELECT * FROM choices")) == choices - 1
    sweeps = "SELECT name FROM sweeps JOIN goals ON goals.sweep_id = sweeps.id"
    assert [row["name"] for row in measured.rows("good.db", sweeps)] == ["wished"]
    assert [row for row in measured.rows("good.db") if row["sweep"] == "wanted"] == [
        row for row in measured.rows("goals.db") if row["sweep"] == "wanted"
    ], "what was measured for it is kept"


def test_a_goal_of_an_earlier_version_gets_its_checksum_when_it_changes(tmp_path: Path) -> None:
    program = Program(tmp_path)
    with contextlib.closing(program):
        config = program.grid(num_batch=[2, 4, 8])
        program("run", config, "--goal", "best").must()
        with contextlib.closing(sqlite3.connect(tmp_path / "sweeps.db", isolation_level=None)) as connection:
            connection.executescript("""ALTER TABLE goals DROP COLUMN checksum;
                ALTER TABLE choices DROP COLUMN checksum;
                DELETE FROM _sqlite_migrations WHERE name = '14_goal_checksums'; PRAGMA user_version = 13""")
        program("verify").must()
        program("run", config, "--goal", "per-context").must()
        sealed = "SELECT count(*) AS rows, count(checksum) AS sealed FROM goals"
        assert program.rows(sql=sealed) == [{"rows": 1, "sealed": 1}]
        program("verify").must()


def test_a_result_of_another_cell_is_told(measured: Program) -> None:
    path = measured.folder / "swapped.db"
    path.write_bytes((measured.folder / "sweeps.db").read_bytes())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("""UPDATE cells SET attempt_id = (SELECT attempt_id FROM cells AS other WHERE status = 'ok'
            AND other.id <> cells.id) WHERE id = 1""")
    assert "its result is no attempt of its own" in measured("verify", "--db", "swapped.db").must(4).stdout


def test_what_is_left_after_a_loss_agrees_with_itself(measured: Program) -> None:
    """Spreads and intervals are those of the loads that are there; what no load said is not told as a load's."""
    path = measured.folder / "lost.db"
    path.write_bytes((measured.folder / "sweeps.db").read_bytes())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM attempts WHERE id IN (SELECT max(id) FROM attempts WHERE status = 'ok')")
        connection.execute("UPDATE load_values SET squares = squares + 1, runs = 0 WHERE attempt_id < 5")
        connection.execute("UPDATE intervals SET factor = 9")
    measured("verify", "--db", "lost.db").must(4)
    measured("recover", "--db", "lost.db", "--to", "left.db").must()
    measured("verify", "--db", "left.db").must()
    wide = measured.rows("left.db", "SELECT max(factor) AS most FROM intervals")
    assert wide[0]["most"] < 9


def test_a_load_that_more_runs_or_a_pair_ask_for_has_its_checksum(tmp_path: Path) -> None:
    program = Program(tmp_path)
    with contextlib.closing(program):
        for repeats in (1, 2):
            program("run", program.grid(num_ctx=512, num_thread=1, warmup=0, repeats=repeats)).must()
        program("run", program.grid("both", num_ctx=512, warmup=0, repeats=2, pair={"num_thread": [1, 2]})).must()
        sql = "select purpose, count(*) as loads, count(checksum) as sealed from further_loads group by 1 order by 1"
        sealed = program.rows(sql=sql)
        assert sealed == [{"purpose": purpose, "loads": 2, "sealed": 2} for purpose in ("pair", "repeats")]
        program("verify").must()
