"""`verify` and `recover` name what is not as it was measured; what cannot be read costs its own row or field."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import contextlib
import json
import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from older_database import SCHEMA_4, lay_out
from store_helpers import stranger
from sweeping import Program, json_of, program

import ollama_sweep
from ollama_sweep.core.errors import UnreadableValue
from ollama_sweep.store.writer import Store

READS = (  # each of the first ones over each kind of damage, of the others one
    ["status", "--json"],
    ["export", "--format", "json"],
    ["report", "--json"],
    ["explain", "0"],
    ["status"],
    ["watch"],
    ["best"],
    ["export", "--format", "csv"],
    ["export", "--format", "md"],
    ["heatmap", "--out", "elsewhere"],
    ["plot", "avg_by_model_durations", "--out", "elsewhere"],
    ["plan", "tasks.yaml"],
)
SWEEP = "(SELECT id FROM sweeps WHERE name = 'tasks')"
CELL = f"(SELECT cell_id FROM plan WHERE sweep_id = {SWEEP} ORDER BY position LIMIT 1 OFFSET 1)"
ATTEMPT = f"(SELECT attempt_id FROM cells WHERE id = {CELL})"


@pytest.fixture
def measured(program: Program) -> Program:
    """Four finished cells of one sweep."""
    program("run", program.grid()).must()
    return program


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with every kind of task, whose definitions keep nothing out: what a disk may do to it."""
    path = lay_out(tmp_path_factory.mktemp("loose"))
    Store.open(path).close()
    with stranger(path) as connection:
        connection.execute("UPDATE sweeps SET run_order = 1000 WHERE name = 'tasks'")
        connection.execute("DROP TRIGGER cells_status_changed")
        connection.execute("PRAGMA writable_schema = ON")
        for name, sql in connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall():
            text = str(sql).replace(") STRICT, WITHOUT", ") WITHOUT").replace(") STRICT", ")").replace("NOT NULL", "")
            text = text.replace("CHECK (status IN", "CHECK ('' NOT IN")
            connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (text, name))
    return path


def change(program: Program, sql: str, name: str = "sweeps.db") -> None:
    with stranger(program.folder / name) as connection:
        connection.execute(sql)


def test_a_sound_database_is_sound(measured: Program) -> None:
    said = measured("verify").must().stdout
    assert said.startswith("4 attempts were compared with their checksums\n")
    assert re.search(r"\n(\d+) numbers of 4 attempts were made again: \1 agree\n$", said)
    found = json_of(measured("verify", "--json"))
    assert (found["checked"], found["unchecked"], found["differences"], found["missing_cells"]) == (4, 0, [], 0)


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("UPDATE attempts SET prompt_eval_rate = prompt_eval_rate * 1.0001 WHERE id = 3", "attempt differs"),
        ("UPDATE attempts SET status = 'oom' WHERE id = 3", "attempt differs"),
        ("UPDATE attempts SET finished_at = '2026-01-01T00:00:00+00:00' WHERE id = 3", "attempt differs"),
        ("UPDATE runs SET prompt_eval_count = 8 WHERE attempt_id = 3 AND part = 'run 2'", "runs differ"),
        ("DELETE FROM runs WHERE attempt_id = 3 AND part = 'run 2'", "runs differ"),
        ("UPDATE scores SET value = value + 1 WHERE attempt_id = 3", "scores differ"),
        ("DELETE FROM telemetry WHERE attempt_id = 3", "telemetry differ"),
        ("UPDATE cells SET num_batch = 3 WHERE id = 3", "cell differs"),
        ("UPDATE cells SET model_digest = 'sha256:other' WHERE id = 3", "cell differs"),
        ("UPDATE checksums SET checksum = '1 cell:0' WHERE attempt_id = 3", "checksum differ"),
    ],
)
def test_what_was_changed_is_named_by_its_sweep_its_cell_and_its_attempt(
    sql: str, what: str, measured: Program
) -> None:
    change(measured, sql)
    ended = measured("verify").must(4)
    assert f"sweep grid: num_ctx 1024, num_batch 2: attempt 1: {what}" in ended.stdout
    assert "not what was written to sweeps.db. A sound copy: ollama-sweep recover --db sweeps.db" in ended.stderr
    (one, *others) = json.loads(measured("verify", "--json").must(4).stdout)["differences"]
    assert (one["sweep"], one["attempt"], one["what"]) == ("grid", 1, [what])
    assert not others or what == "cell differs"
    found = json_of(measured("recover", "--to", "new.db", "--json"))
    assert [what] in [one["what"] for one in found["differences"]]
    row = measured.rows("new.db", "SELECT status FROM results WHERE position = 2")
    is_kept = what.endswith("differ")
    assert row == ([{"status": "ok"}] if is_kept else [{"status": "pending"}] if what.startswith("attempt") else [])
    said = measured("run", measured.grid(), "--db", "new.db").must().stdout
    assert f"{4 if is_kept else 3} of 4 cells already done" in said
    assert {row["status"] for row in measured.rows("new.db")} == {"ok"}


def test_a_place_in_the_plan_that_says_another_cell_is_named(measured: Program) -> None:
    change(measured, "UPDATE plan SET coordinates = replace(coordinates, '1024', '1025') WHERE position = 2")
    text = "num_ctx 1025, num_batch 2: its place in the plan says another num_ctx than the cell (1024)"
    assert text in measured("verify").must(4).stdout
    assert text in measured("recover", "--to", "new.db").must().stdout


def test_attempts_of_an_older_version_have_no_checksum_and_are_no_difference(program: Program) -> None:
    lay_out(program.folder)
    assert "0 attempts were compared with their checksums, 78 older ones have none\n" in program("verify").must().stdout
    Store.open(program.folder / "sweeps.db").close()
    assert "78 older ones have none" in program("verify").must().stdout


def test_what_version_4_stored_is_what_it_wrote(program: Program) -> None:
    lay_out(program.folder, SCHEMA_4)
    said = program("verify").must().stdout
    assert f"{SCHEMA_4.attempts - 1} attempts were compared with their checksums\n" in said
    Store.open(program.folder / "sweeps.db").close()
    assert program("verify").must().stdout == said


def test_a_checksum_that_knows_of_no_telemetry_is_still_compared(measured: Program) -> None:
    change(measured, "UPDATE checksums SET checksum = '1' || substr(checksum, 2, instr(checksum, ' telemetry') - 2)")
    assert "4 attempts were compared with their checksums\n" in measured("verify").must().stdout
    change(measured, "UPDATE runs SET prompt_eval_count = 8 WHERE attempt_id = 3 AND part = 'run 2'")
    assert "runs differ" in measured("verify").must(4).stdout


def test_a_run_looks_for_damage_before_it_writes(measured: Program) -> None:
    path = measured.folder / "sweeps.db"
    data = bytearray(path.read_bytes())
    root = measured.rows(sql="SELECT rootpage FROM sqlite_master WHERE name = 'cells_status'")[0]["rootpage"]
    data[(root - 1) * 4096 : root * 4096] = b"\x0a" + bytes(4095)
    path.write_bytes(data)
    ended = measured("run", measured.grid(num_batch=[2, 4, 8])).must(4)
    assert "sweeps.db is damaged" in ended.stderr
    assert "ollama-sweep recover --db sweeps.db --to new.db" in ended.stderr
    assert path.read_bytes() == bytes(data)


BROKEN = {
    "sweeps.spec": "'{'",
    "sweeps.dimensions": "'[1'",
    "sweeps.machine": "CAST(x'41ff' AS TEXT)",
    "sweeps.config_path": "NULL",
    "sweeps.pid": "'x'",
    "plan.coordinates": "'{\"num_ctx\": [1]}'",
    "plan.model": "x'00'",
    "cells.status": "'fine'",
    "cells.options": "'{'",
    "cells.task_options": "CAST(x'7bff' AS TEXT)",
    "cells.num_ctx": "x'ff'",
    "cells.quantization": "CAST(x'ff' AS TEXT)",
    "attempts.status": "NULL",
    "attempts.flags": "'strange,noisy'",
    "attempts.error": "CAST(x'41ff42' AS TEXT)",
    "attempts.scores": "'{'",
    "attempts.prompt_eval_rate": "x'00ff'",
    "attempts.started_at": "'yesterday'",
    "attempts.finished_at": "'never'",
    "runs.client_duration_s": "NULL",
    "runs.eval_count": "'many'",
    "runs.number": "NULL",
    "scores.value": "'good'",
    "answers.output": "x'00'",
    "answers.item": "CAST(x'ff' AS TEXT)",
    "answers.tries": "NULL",
    "prompts.text": "NULL",
    "segments.fingerprint": "'{'",
    "status_counts.status": "'fine'",
    "controls.drift": "'much'",
}
QUESTIONS = f"SELECT prompt_hash FROM answers WHERE attempt_id = {ATTEMPT}"
WHERE = {
    "sweeps": f"id = {SWEEP}",
    "plan": f"sweep_id = {SWEEP} AND cell_id = {CELL}",
    "cells": f"id = {CELL}",
    "attempts": f"id = {ATTEMPT}",
    "prompts": f"hash IN ({QUESTIONS})",
    "status_counts": f"sweep_id = {SWEEP} AND status = 'ok'",
}
"""The sweep that ran last, its second cell and that cell's attempt; of all else whatever belongs to it."""


@pytest.mark.parametrize("place", BROKEN)
def test_a_value_that_cannot_be_read_costs_its_row_or_field(place: str, loose: Path, program: Program) -> None:
    table, column = place.split(".")
    for file in loose.parent.iterdir():
        target = program.folder / file.name
        shutil.copytree(file, target, dirs_exist_ok=True) if file.is_dir() else shutil.copy(file, target)
    program.script(version="1.1", models=["e", "m", "n"], only_embedding=["e"])
    where = WHERE.get(table, f"attempt_id = {ATTEMPT}" if table in ("runs", "scores", "answers") else "true")
    change(
        program, f"UPDATE {table} SET {column} = {BROKEN[place]} WHERE {where.replace('rowid IS NOT NULL AND ', '')}"
    )
    warned = 0
    number = list(BROKEN).index(place)
    for words in (*READS[:4], READS[4 + number % (len(READS) - 4)]):
        ended = program(*words).must()
        lines = [line for line in ended.stderr.splitlines() if "cannot be read" in line]
        assert len(lines) <= 1, lines
        assert all("ollama-sweep verify --db" in line and "ollama-sweep recover" in line for line in lines)
        warned += len(lines)
    assert program("verify").returncode == 4
    if number % 3 == 0:
        assert program("recover", "--to", "new.db").must().stdout
    assert warned or place in SILENT


SILENT = {"sweeps.machine", "sweeps.config_path", "attempts.status", "prompts.text", "segments.fingerprint",
          "controls.drift"}  # fmt: skip
"""Of these something is shown in any case."""


def test_python_gets_the_rows_that_can_be_read_and_a_warning(measured: Program) -> None:
    change(measured, "UPDATE attempts SET flags = 'strange', error = CAST(x'ff' AS TEXT) WHERE id = 2")
    database = measured.folder / "sweeps.db"
    with pytest.warns(UnreadableValue, match="flags of num_ctx 512, num_batch 4"):
        rows = ollama_sweep.rows(database)
    assert [row["status"] for row in rows] == ["ok"] * 4
    with pytest.warns(UnreadableValue):
        assert ollama_sweep.best(database).cells


def test_run_does_not_measure_a_cell_that_it_cannot_read(measured: Program) -> None:
    change(measured, "UPDATE cells SET status = 'pending', options = '{' WHERE id = 2")
    ended = measured("run", measured.grid()).must(4)
    assert "sweeps.db is damaged" in ended.stderr
    assert "ollama-sweep recover" in ended.stderr


def test_recover_refuses_a_newer_schema_and_takes_a_header_that_is_damaged(measured: Program) -> None:
    change(measured, "PRAGMA user_version = 99")
    assert len(json_of(measured("recover", "--to", "new.db", "--json"))["tables"]) > 10
    change(
        measured, "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('ollama_sweep', '99_x', '')"
    )
    assert "was made by a newer version" in measured("recover", "--to", "other.db").must(2).stderr
    assert not (measured.folder / "other.db").exists()
