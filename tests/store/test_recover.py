"""A damaged database: what can be read comes into a new one that is sound, and what cannot is counted."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sweep_runner import Ended
from sweeping import Program, json_of, label, program

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.outcome import Effective
from ollama_sweep.engines.fake import Engine
from ollama_sweep.store.recovery import pages
from ollama_sweep.store.writer import Store

PAGE = 4096
CONTEXTS, BATCHES = list(range(512, 532)), list(range(1, 11))
CELLS = len(CONTEXTS) * len(BATCHES)
KEPT = {
    "attempts": "id, cell_id, status, error, flags, finished_at, prompt_eval_rate, scores, boot_id",
    "runs": "attempt_id, part, nonce, prompt_eval_rate, believed",
    "raw_outputs": "attempt_id, part, content",
    "cells": "id, key, options, model_digest",
    "prompts": "hash, text",
}
"""What must come through unchanged or not at all."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A finished sweep of 200 cells, one of them without a number."""
    made = Program(tmp_path_factory.mktemp("measured"))
    made.script(cells={label(512, 1): ["oom"]})
    made("run", large(made)).must()
    yield made
    made.close()


def large(program: Program) -> Path:
    return program.grid(num_ctx=CONTEXTS, num_batch=BATCHES, control="off", interim="off")


@pytest.fixture
def copied(measured: Program, program: Program) -> Program:
    """That sweep in this test's own folder."""
    shutil.copy(measured.folder / "sweeps.db", program.folder)
    return program


def damage(program: Program, change: Callable[[bytearray], object]) -> bytes:
    """Change the database's bytes; what they are then."""
    path = program.folder / "sweeps.db"
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    return bytes(data)


def recover(program: Program, *words: str) -> Ended:
    return program("recover", "--to", "new.db", *words)


def kept(database: Path, table: str) -> set[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return set(connection.execute(f"SELECT {KEPT[table]} FROM {table}"))


def check_sound(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        wrong = """select count(*) from cells where status not in ('pending', 'started', 'skipped')
            and attempt_id is null"""
        assert connection.execute(wrong).fetchone() == (0,)


def counts(found: Any) -> dict[str, tuple[int, int | None, int]]:
    return {one["table"]: (one["copied"], one["lost"], one["dropped"]) for one in found["tables"]}


def results(program: Program, db: str) -> list[dict[str, Any]]:
    return program.rows(db)


# Nothing is lost


def test_a_sound_database_comes_through_whole_and_needs_no_work(copied: Program) -> None:
    before = damage(copied, lambda data: None)
    found = json_of(recover(copied, "--json"))
    assert {lost for _, lost, _ in counts(found).values()} == {0}
    assert found["pending_again"] == 0
    assert results(copied, "new.db") == results(copied, "sweeps.db")
    assert (copied.folder / "sweeps.db").read_bytes() == before
    assert stat.S_IMODE((copied.folder / "new.db").stat().st_mode) == 0o600
    said = copied("run", large(copied), "--db", "new.db").must().stdout
    assert f"{CELLS} of {CELLS} cells already done, 0 to run" in said
    assert not copied.measured()
    assert results(copied, "new.db") == results(copied, "sweeps.db")


@pytest.mark.parametrize("header", [b"", bytes(100), bytes(PAGE), b"\xff" * PAGE, os.urandom(600)], ids=len)
def test_the_first_page_alone_costs_nothing(header: bytes, copied: Program) -> None:
    """It is written in every commit, so a torn write hits it first; where the tables begin is known without it."""
    damage(copied, lambda data: data.__setitem__(slice(0, len(header)), header))
    if header:
        assert copied("status").returncode in (3, 4)
    before = results(copied, "sweeps.db") if not header else None
    found = json_of(recover(copied, "--json"))
    assert {lost for _, lost, _ in counts(found).values()} == {0}
    check_sound(copied.folder / "new.db")
    assert len(results(copied, "new.db")) == CELLS
    assert before is None or results(copied, "new.db") == before
    assert f"{CELLS} of {CELLS} cells already done" in copied("run", large(copied), "--db", "new.db").must().stdout


def test_what_is_only_in_the_log_is_not_forgotten(program: Program) -> None:
    started = program.start(
        "run", program.grid(num_batch=[2, 4, 8]), env={**program.environment(), "SWEEP_CRASH_AT": "before_finish:5"}
    )
    started.wait()
    log = program.folder / "sweeps.db-wal"
    assert log.stat().st_size > 0
    sides = {file: file.read_bytes() for file in (program.folder / "sweeps.db", log)}
    found = json_of(recover(program, "--json"))
    assert {file: file.read_bytes() for file in sides} == sides
    assert counts(found)["attempts"] == (5, 0, 0)
    said = program("run", program.grid(num_batch=[2, 4, 8]), "--db", "new.db").must().stdout
    assert "4 of 6 cells already done, 2 to run" in said
    assert set(program.measured().values()) == {4, 8}
    assert [row["reason"] for row in program.rows("new.db", "select reason from attempts where id = 5")] == ["died"]


# Something is lost


def zeros(chance: random.Random, data: bytearray) -> None:
    start = chance.randrange(1, len(data) // PAGE - 16) * PAGE
    data[start : start + 16 * PAGE] = bytes(16 * PAGE)


def one_page(chance: random.Random, data: bytearray) -> None:
    start = chance.randrange(len(data) // PAGE) * PAGE
    data[start : start + PAGE] = chance.randbytes(PAGE)


def torn_page(chance: random.Random, data: bytearray) -> None:
    """Only the first sectors of a page reached the disk."""
    start = chance.randrange(len(data) // PAGE) * PAGE
    middle = start + 512 * chance.randrange(1, 8)
    data[middle : start + PAGE] = bytes(start + PAGE - middle)


def many_pages(chance: random.Random, data: bytearray) -> None:
    for _ in range(len(data) // PAGE // 8):
        one_page(chance, data)


def cut_off(chance: random.Random, data: bytearray) -> None:
    del data[chance.randrange(len(data) // 3, len(data)) :]


@pytest.mark.parametrize("seed", [0, *(pytest.param(more, marks=pytest.mark.slow) for more in range(1, 9))])
@pytest.mark.parametrize("kind", [zeros, one_page, torn_page, many_pages, cut_off])
def test_what_comes_through_is_right_and_the_rest_is_measured_again(
    kind: Callable[[random.Random, bytearray], None], seed: int, copied: Program, measured: Program
) -> None:
    before = damage(copied, lambda data: kind(random.Random(seed), data))
    ended = recover(copied, "--json")
    assert (copied.folder / "sweeps.db").read_bytes() == before
    assert sorted(file.name for file in copied.folder.glob("*.db*")) == (
        ["new.db", "sweeps.db"] if ended.returncode == 0 else ["sweeps.db"]
    )
    if ended.returncode:
        assert "no cell could be read from sweeps.db; no new database was made" in ended.must(4).stderr
        return
    new = copied.folder / "new.db"
    check_sound(new)
    found = json_of(ended)
    for table in KEPT:
        assert kept(new, table) <= kept(measured.folder / "sweeps.db", table), table
        copied_rows, lost, dropped = counts(found)[table]
        assert copied_rows == len(kept(new, table))
        if lost is not None and kind is not cut_off:
            assert copied_rows + lost + dropped >= len(kept(measured.folder / "sweeps.db", table))
    done = {row["cell"]: row for row in results(copied, "new.db") if row["status"] in ("ok", "oom")}
    numbers = {row["cell"]: row["prompt_eval_rate"] for row in results(measured, "sweeps.db")}
    assert {cell: row["prompt_eval_rate"] for cell, row in done.items()}.items() <= numbers.items()
    cells = copied.rows("new.db", "select count(*) as n from cells where status in ('ok', 'oom')")[0]["n"]

    said = copied("run", large(copied), "--db", "new.db").must().stdout
    assert f"{cells} of {CELLS} cells already done, {CELLS - cells} to run" in said
    assert len(copied.measured()) == CELLS - cells
    check_sound(new)
    after = {row["cell"]: row for row in results(copied, "new.db")}
    assert {cell: row["prompt_eval_rate"] for cell, row in after.items()} == {
        **numbers, **{row["cell"]: row["prompt_eval_rate"] for row in after.values() if row["num_ctx"] == 512}
    }  # fmt: skip
    assert {row["status"] for row in after.values()} <= {"ok", "oom"}


def root_of(program: Program, table: str) -> int:
    sql = f"select rootpage from sqlite_master where name = '{table}'"
    return int(program.rows("sweeps.db", sql)[0]["rootpage"])


def lose_page(program: Program, number: int) -> None:
    damage(program, lambda data: data.__setitem__(slice((number - 1) * PAGE, number * PAGE), bytes(PAGE)))


@pytest.mark.parametrize("table", ["cells", "attempts", "runs", "raw_outputs"])
def test_the_root_of_a_large_table_costs_no_row(table: str, copied: Program) -> None:
    lose_page(copied, root_of(copied, table))
    found = json_of(recover(copied, "--json"))
    assert {name: lost for name, (_, lost, _) in counts(found).items() if lost} == {}
    assert found["pending_again"] == 0
    assert len(results(copied, "new.db")) == CELLS


def test_cells_are_found_again_where_their_sweep_is_lost(copied: Program) -> None:
    lose_page(copied, root_of(copied, "sweeps"))
    found = json_of(recover(copied, "--json"))
    assert counts(found)["attempts"] == (CELLS, 0, 0)
    assert copied.rows("new.db", "select name from sweeps") == [{"name": "recovered 1"}]
    said = copied("run", large(copied), "--db", "new.db").must().stdout
    assert f"{CELLS} of {CELLS} cells already done" in said
    assert len(copied.rows("new.db", "select * from results where sweep = 'grid'")) == CELLS


def test_what_was_measured_is_shown_where_its_place_in_the_plan_is_lost(copied: Program) -> None:
    before = results(copied, "sweeps.db")
    with contextlib.closing(sqlite3.connect(copied.folder / "sweeps.db")) as connection:
        # bytes that are no text: such a row of the plan is lost
        connection.execute("UPDATE plan SET coordinates = CAST(x'ff' AS TEXT) WHERE position BETWEEN 5 AND 29")
        connection.commit()
    found = json_of(recover(copied, "--json"))
    assert counts(found)["plan"] == (CELLS - 25, 25, 0)
    assert results(copied, "new.db") == before
    said = copied("run", large(copied), "--db", "new.db").must().stdout
    assert f"{CELLS} of {CELLS} cells already done" in said
    assert results(copied, "new.db") == before


def test_what_is_lost_is_said_in_words(copied: Program) -> None:
    shape = (len(copied.rows("sweeps.db", "select * from cells limit 1")[0]), True)
    leaves = pages._pages_by_shape(copied.folder / "sweeps.db")[shape]
    rows = int.from_bytes(page_of(copied, leaves[0])[3:5])
    lose_page(copied, leaves[0])
    said = recover(copied).must().stdout.splitlines()
    table = {words[0]: tuple(map(int, words[1:])) for words in map(str.split, said[1:]) if words[0] in KEPT}
    assert table["cells"] == (CELLS - rows, rows, 0)
    assert table["attempts"] == (CELLS - rows, 0, rows)
    assert "dropped: what they belong to (a sweep, a cell, an attempt) is lost" in said
    assert said[-1] == "Go on with: ollama-sweep run CONFIG --db new.db"


def page_of(program: Program, number: int) -> bytes:
    return (program.folder / "sweeps.db").read_bytes()[(number - 1) * PAGE : number * PAGE]


def test_a_cell_without_its_attempt_is_no_result(copied: Program) -> None:
    with contextlib.closing(sqlite3.connect(copied.folder / "sweeps.db")) as connection:
        connection.execute("DELETE FROM attempts WHERE id IN (3, 4)")
        connection.commit()
    assert "2 cells lost their result and will be measured again" in recover(copied).must().stdout
    assert [row["position"] for row in results(copied, "new.db") if row["status"] == "pending"] == [2, 3]
    copied("run", large(copied), "--db", "new.db").must()
    assert len(copied.measured()) == 2


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE attempts SET scores = '{' WHERE id = 7",
        "UPDATE attempts SET finished_at = 'yesterday' WHERE id = 7",
        "UPDATE attempts SET flags = 'strange' WHERE id = 7",
        "UPDATE attempts SET prompt_eval_rate = 9e999 WHERE id = 7",
        "UPDATE attempts SET error = CAST(x'ff' AS TEXT) WHERE id = 7",
    ],
)
def test_a_row_that_is_nonsense_is_lost_and_stops_nothing(change: str, copied: Program) -> None:
    with contextlib.closing(sqlite3.connect(copied.folder / "sweeps.db")) as connection:
        connection.execute(change)
        connection.commit()
    found = json_of(recover(copied, "--json"))
    assert counts(found)["attempts"] == (CELLS - 1, 1, 0)
    assert counts(found)["runs"][2] == 4
    assert found["pending_again"] == 1
    copied("status", "--db", "new.db").must()
    copied("export", "--db", "new.db").must()


def test_bytes_that_the_disk_does_not_give_are_passed_over(copied: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    pread, bad = os.pread, range(20 * PAGE, 22 * PAGE)

    def fails(file: int, length: int, offset: int) -> bytes:
        if offset < bad.stop and offset + length > bad.start:
            raise OSError(errno.EIO, "Input/output error")
        return pread(file, length, offset)

    monkeypatch.setattr(os, "pread", fails)
    said = recover(copied).must().stdout
    assert f"{2 * PAGE} bytes of the file could not be read from the disk" in said
    monkeypatch.undo()
    check_sound(copied.folder / "new.db")
    copied("run", large(copied), "--db", "new.db").must()


# Cells that were saved beside the database


def rescued(program: Program) -> Path:
    """A sweep whose database was moved away while its second cell was measured, and moved back."""
    database = program.folder / "sweeps.db"
    prepare = Engine.prepare

    def move_and_prepare(engine: Engine, cell: Cell) -> Effective:
        if cell.num_batch == 4:
            database.rename(database.with_name("aside.db"))
        return prepare(engine, cell)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "prepare", move_and_prepare)
        ended = program("run", program.grid(num_ctx=512)).must(4)
    assert "sweeps.db was deleted or replaced while the sweep ran" in ended.stderr
    (file,) = program.folder.glob("sweeps.db.rescued-*.json")
    assert f"The cell at hand was saved to {file.name}" in ended.stderr
    database.with_name("aside.db").rename(database)
    return file


def test_a_rescued_cell_is_taken_over_and_not_measured_again(program: Program) -> None:
    file = rescued(program)
    said = recover(program).must().stdout
    assert f"num_ctx 512, num_batch 4 was taken over from {file.name}" in said
    row = results(program, "new.db")[1]
    assert (row["status"], row["attempts"], row["runs"]) == ("ok", 1, 3)
    assert row["prompt_eval_rate"] == pytest.approx(400 * 4 / 12 * (1 - 512 / 4e6))
    parts = program.rows("new.db", "select part from raw_outputs where attempt_id = 2 order by rowid")
    assert [part["part"] for part in parts] == ["warmup 1", "run 1", "run 2", "run 3"]
    assert program.rows("new.db", "select count(*) as n from telemetry")[0]["n"] == 2
    check_sound(program.folder / "new.db")
    said = program("run", program.grid(num_ctx=512), "--db", "new.db").must().stdout
    assert "2 of 2 cells already done, 0 to run" in said
    assert set(program.measured().values()) == {4}


def test_a_rescued_cell_whose_attempt_is_lost_becomes_an_attempt(program: Program) -> None:
    rescued(program)
    with contextlib.closing(sqlite3.connect(program.folder / "sweeps.db")) as connection:
        connection.execute("DELETE FROM attempts WHERE finished_at IS NULL")
        connection.commit()
    recover(program).must()
    assert [row["status"] for row in results(program, "new.db")] == ["ok", "ok"]


def test_a_file_that_is_no_saved_cell_is_left_alone(program: Program) -> None:
    file = rescued(program)
    content = json.loads(file.read_text("utf-8"))
    strange = {
        "a": "not json",
        "b": "[]",
        "c": json.dumps({**content, "key": "c1:unknown"}),
        "d": json.dumps({**content, "outcome": {**content["outcome"], "status": "fine"}}),
        "e": json.dumps({**content, "outcome": {**content["outcome"], "error": 5, "runs": [{"number": 1}]}}),
        "f": json.dumps({**content, "outcome": {**content["outcome"], "summary": {"prompt_eval_rate": "fast"}}}),
    }
    for name, text in strange.items():
        file.with_name(f"sweeps.db.rescued-0{name}.json").write_text(text, "utf-8")
    said = recover(program).must().stdout
    for name in strange.keys() - {"c"}:
        assert f"sweeps.db.rescued-0{name}.json is not a saved cell; it was left alone" in said
    assert "sweeps.db.rescued-0c.json: its cell is not in the plan; the file was left alone" in said
    assert f"was taken over from {file.name}" in said
    assert len(list(program.folder.glob("*.json"))) == len(strange) + 2
    check_sound(program.folder / "new.db")


def test_a_cell_that_was_measured_since_keeps_its_own_result(program: Program) -> None:
    file = rescued(program)
    program("run", program.grid(num_ctx=512)).must()
    before = results(program, "sweeps.db")
    assert f"{file.name}: num_ctx 512, num_batch 4 is ok already" in recover(program).must().stdout
    assert results(program, "new.db") == before


def test_a_rescued_failure_that_would_have_been_tried_again_still_is(program: Program) -> None:
    file = rescued(program)
    content = json.loads(file.read_text("utf-8"))
    content["outcome"].update(status="crashed", reason="assert", runs=[], summary={}, raw="")
    file.write_text(json.dumps(content), "utf-8")
    recover(program).must()
    row = results(program, "new.db")[1]
    assert (row["status"], row["attempts"]) == ("pending", 1)


# What is refused


def test_a_name_that_is_taken_is_refused(copied: Program) -> None:
    (copied.folder / "new.db").write_text("mine")
    assert "error: new.db exists; --to takes the name of a new file" in recover(copied).must(2).stderr
    assert (copied.folder / "new.db").read_text() == "mine"
    assert "sweeps.db exists" in copied("recover", "--to", "sweeps.db").must(2).stderr


def test_a_missing_database_or_folder_is_said(copied: Program) -> None:
    assert "error: no database at none.db" in recover(copied, "--db", "none.db").must(2).stderr
    assert "is a folder; --db takes a file" in recover(copied, "--db", ".").must(2).stderr
    ended = copied("recover", "--to", "none/new.db").must(2)
    assert "does not exist" in ended.stderr
    assert not (copied.folder / "none").exists()


def test_a_database_of_another_program_is_left_alone(program: Program) -> None:
    with contextlib.closing(sqlite3.connect(program.folder / "sweeps.db")) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    assert "belongs to another program (tables: bookmarks)" in recover(program).must(3).stderr
    assert {file.name for file in program.folder.iterdir()} == {"sweeps.db", "fake.json"}


@pytest.mark.parametrize("content", [b"", b"dear diary " * 5000, bytes(3 * PAGE)], ids=["empty", "text", "zeros"])
def test_a_file_without_a_single_cell_makes_no_database(content: bytes, program: Program) -> None:
    (program.folder / "sweeps.db").write_bytes(content)
    assert "no cell could be read from sweeps.db; no new database was made" in recover(program).must(4).stderr
    assert {file.name for file in program.folder.iterdir()} == {"sweeps.db", "fake.json"}
    assert (program.folder / "sweeps.db").read_bytes() == content


def test_a_sweep_that_runs_is_not_read_from_under_its_feet(copied: Program) -> None:
    with Store.open(copied.folder / "sweeps.db"):
        ended = recover(copied).must(3)
    assert f"Already running: pid {os.getpid()}" in ended.stderr
    assert "Stop it first" in ended.stderr
    recover(copied).must()


def test_what_a_killed_recovery_left_is_removed_by_the_next(copied: Program) -> None:
    old = copied.folder / f".new.db.recovering-{2**22 + 1}-abcdefgh"
    running = copied.folder / f".new.db.recovering-{os.getpid()}-abcdefgh"
    for folder in (old, running):
        folder.mkdir()
        (folder / "new.db").touch()
    recover(copied).must()
    assert [folder.name for folder in copied.folder.glob(".*")] == [running.name]
