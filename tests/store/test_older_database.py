"""The databases of earlier versions, with everything in them: their keys hold, their finished cells stay finished, and
what only reads shows them as they are and leaves nothing behind.

`tests/data/schema_2` is what a person has who used version 2: sweep files, data and database; `schema_4` and
`schema_11` are of versions 4 and 11. How they were made stands in `scripts/make_fixture_db`; `cells.json`
holds what the key of each cell was made of.
"""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from older_database import OLDER, SCHEMA_2, SCHEMA_4, SCHEMA_11, Older, lay_out
from store_helpers import message, public_folder, unprivileged
from sweeping import Program, json_of, program

from ollama_sweep import tasks
from ollama_sweep.core.cell import Cell, cell_key
from ollama_sweep.core.outcome import Flag, Status
from ollama_sweep.store import schema
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.view import results
from ollama_sweep.store.writer import Store

READS = (
    ["status"],
    ["status", "speed", "--json"],
    ["watch"],
    ["best", "speed"],
    ["best", "tasks", "--json"],
    ["export", "speed", "--format", "csv"],
    ["export", "tasks", "--format", "json"],
    ["export", "settings", "--format", "jsonl"],
    ["export", "old", "--format", "md"],
    ["export", "speed", "--format", "json", "--layout", "simple"],
    ["export", "settings", "--format", "parquet", "-o", "elsewhere/settings.parquet", "--force"],
    ["export", "settings", "--format", "llama-bench", "-o", "elsewhere", "--force"],
    ["export", "tasks", "--format", "benchstat"],
    ["report", "tasks", "--json"],
    ["report", "speed", "tasks", "openai", "--out", "elsewhere"],
    ["heatmap", "speed", "--out", "elsewhere"],
    ["plot", "grid", "tasks", "--out", "elsewhere"],
    ["plot", "avg_by_model_durations", "tasks", "--out", "elsewhere"],
    ["plan", "kept/speed.yaml"],
    ["doctor", "kept/speed.yaml"],
)
"""What only reads: all of it but `logs`, which does not read the database."""
READS_SINCE_11 = (
    ["status", "looked"],
    ["status", "waiting", "--json"],
    ["status", "pruned"],
    ["status", "lengths"],
    ["status", "at_once", "--json"],
    ["best", "looked"],
    ["best", "lengths", "--json"],
    ["best", "at_once"],
    ["explain", "4", "--sweep", "looked"],
    ["explain", "num_ctx=12288", "num_batch=64", "--sweep", "pruned", "--json"],
    ["compare", "speed@1", "speed@2"],
    ["verify"],
    ["export", "looked", "--format", "csv"],
    ["export", "reused", "--format", "jsonl"],
    ["export", "at_once", "--format", "json"],
    ["report", "looked", "lengths", "at_once", "--out", "elsewhere"],
    ["plan", "kept/waiting.yaml"],
    ["plan", "kept/pruned.yaml"],
    ["heatmap", "pruned", "--out", "elsewhere"],
    ["plot", "concurrency", "at_once", "--out", "elsewhere"],
)
"""What reads sweeps that only version 11 could measure."""
OWN_COLUMN = {"cells": "later TEXT NOT NULL DEFAULT 'as before'", "attempts": "later_rate REAL"}


def _later() -> str:
    """A migration that adds a column to every table, and a table."""
    with contextlib.closing(sqlite3.connect(":memory:")) as latest:
        latest.executescript("".join(script for _, script in schema.MIGRATIONS))
        names = [name for (name,) in latest.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    added = [f"ALTER TABLE {name} ADD COLUMN {OWN_COLUMN.get(name, 'later TEXT')};" for name in names
             if not name.startswith("sqlite_")]  # fmt: skip
    table = "CREATE TABLE later (cell_id INTEGER NOT NULL REFERENCES cells (id), at TEXT NOT NULL) STRICT;"
    return "\n".join([*added, table])


LATER = _later()
"""A version to come, which adds a column to every table, and a table; see `later`."""
DRAWS = ("doctor", "heatmap", "plot")
READS_OF = [
    *((SCHEMA_2, words) for words in READS),
    *((older, words) for older in (SCHEMA_4, SCHEMA_11) for words in READS if words[0] not in DRAWS),
    *((SCHEMA_11, words) for words in READS_SINCE_11),
]
"""Pictures of the first one are enough, where it has them."""


def cells_of(older: Older) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((older.folder / "cells.json").read_text("utf-8"))
    return found


def laid_out(program: Program, older: Older = SCHEMA_2) -> Path:
    """The database in the folder in which the program runs."""
    program.script(version="1.1", models=["e", "m", "n"], only_embedding=["e"])
    return lay_out(program.folder, older)


@pytest.mark.parametrize("older", OLDER, ids=str)
def test_every_key_is_made_of_the_same_and_is_the_same(older: Older) -> None:
    for known in cells_of(older):
        if known["key"].startswith("import:"):
            continue
        fields: dict[str, Any] = {
            name: tuple(map(tuple, value)) if isinstance(value, list) else value
            for name, value in known["cell"].items()
        }
        identity = ("engine", "model_digest", "modelfile", "prompt_hash", "task_version")
        assert cell_key(Cell(**fields), **{name: known[name] for name in identity}) == known["key"], known


@pytest.mark.parametrize("older", OLDER, ids=str)
def test_the_database_has_these_keys_and_no_others(older: Older, program: Program) -> None:
    laid_out(program, older)
    found = program.rows(sql="SELECT key, engine, model_digest, prompt_hash, task, options, server FROM cells")
    cells = cells_of(older)
    assert len(found) == len(cells)
    known = {cell["key"]: cell for cell in cells}
    for row in found:
        if row["engine"] == "imported":
            assert row["key"] in known
            continue
        cell = known[row["key"]]
        assert [row[name] for name in ("engine", "model_digest", "prompt_hash")] == [
            cell[name] for name in ("engine", "model_digest", "prompt_hash")
        ]
        assert (row["task"], json.loads(row["options"]), json.loads(row["server"])) == (
            cell["cell"]["task"], dict(cell["cell"]["options"]), dict(cell["cell"]["server"]),
        )  # fmt: skip


@pytest.mark.parametrize("older", OLDER, ids=str)
def test_it_holds_every_status_flag_task_and_engine(older: Older, program: Program) -> None:
    """A fixture that lacks something holds nothing against it."""
    laid_out(program, older)
    statuses = program.rows(sql="SELECT status FROM cells UNION SELECT status FROM attempts")
    assert {row["status"] for row in statuses} == set(Status)
    flagged = program.rows(sql="SELECT flags FROM attempts UNION SELECT flags FROM results")
    flags = {flag for row in flagged for flag in row["flags"].split(",") if flag}
    assert flags == set(Flag) - older.flags_since
    cells = program.rows(sql="SELECT engine, task FROM cells")
    assert {row["task"] for row in cells} == {
        "prompt_eval", "chat", "items", "json_quality", "mmlu", "embeddings", "capitals",
    }  # fmt: skip
    assert {row["engine"] for row in cells} == {
        "fake", "imported", "llamacpp", "lmstudio", "ollama", "ollama_http", "openai", "sentence_transformers",
    }  # fmt: skip


@pytest.mark.parametrize("older", OLDER, ids=str)
def test_no_table_of_it_is_empty(older: Older, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(lay_out(tmp_path, older))) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert [name for name in names if not connection.execute(f"SELECT * FROM {name} LIMIT 1").fetchall()] == []


def test_version_4_holds_what_was_new_in_it(program: Program) -> None:
    laid_out(program, SCHEMA_4)
    thought = program.rows(sql="SELECT 1 FROM runs JOIN answers USING (attempt_id, part) WHERE thinking_count > 0")
    assert len(thought) == 8
    reasons = {row["reason"] for row in program.rows(sql="SELECT reason FROM cells")}
    assert {"only_thoughts", "cannot_think"} <= reasons
    (row,) = program.rows(sql="SELECT count(*) AS sealed FROM checksums")
    assert row["sealed"] == SCHEMA_4.attempts - 1, "all but the one that is under way"
    stored = program.rows(sql="SELECT name FROM scores WHERE name LIKE 'prompt_eval_rate_%' AND part = 'attempt'")
    assert len(stored) == 6, "an interval of the runs alone"


def test_version_11_holds_what_was_new_in_it(program: Program) -> None:
    laid_out(program, SCHEMA_11)
    purposes = {row["purpose"] for row in program.rows(sql="SELECT purpose FROM attempts")}
    assert purposes == {None, "control", "pass", "repeats", "second_look"}
    states = {(row["purpose"], row["state"]) for row in program.rows(sql="SELECT purpose, state FROM further_loads")}
    assert {("pass", "waiting"), ("pass", "failed"), ("pass", "done"), ("second_look", "done")} <= states
    chosen = program.rows(sql="SELECT max(loads) AS loads, max(choice) AS choice FROM attempts")[0]
    assert min(chosen.values()) >= 1, "values of several loads, and of those after a choice"
    places = [json.loads(row["coordinates"]) for row in program.rows(sql="SELECT coordinates FROM plan")]
    dimensions = {name for place in places for name in place}
    assert {"prompt_tokens", "concurrency"} <= dimensions
    left_out = program.rows(sql="SELECT 1 FROM plan WHERE skip = 'memory' AND witness_id IS NOT NULL")
    copies = program.rows(sql="SELECT 1 FROM results WHERE flags LIKE '%reused%'")
    corrected = program.rows(sql="SELECT 1 FROM results WHERE prompt_eval_rate_corrected <> prompt_eval_rate")
    assert all((left_out, copies, corrected))
    assert {row["result"] for row in program.rows(sql="SELECT result FROM scans")} == {"spilled", "oom"}


def test_an_interval_of_the_runs_alone_is_none_of_the_cell(program: Program) -> None:
    kept = kept_of(program, SCHEMA_4)
    rows = json_of(program("export", "repeated", "--format", "json", "--db", kept / "sweeps.db"))["results"]
    assert {(row["prompt_eval_rate_low"], row["prompt_eval_rate_high"]) for row in rows} == {(None, None)}
    assert "range" in program("best", "repeated", "--db", kept / "sweeps.db").must().stdout


@pytest.mark.parametrize(("older", "name"), [(older, name) for older in OLDER for name in older.done], ids=str)
def test_a_run_measures_nothing_again(older: Older, name: str, program: Program) -> None:
    laid_out(program, older)
    finished = "SELECT * FROM attempts WHERE status <> 'started' ORDER BY id"
    before = program.rows(sql=finished)
    once = ("--set", "control=off", "--set", "second_look=off", "--set", "cooldown=off")
    said = program("run", f"{name}.yaml", *once).must().stdout
    assert f"{older.done[name]} cells already done" in said
    raised = {f"num_ctx {size}, num_batch 16, task {task}" for size in (512, 1024) for task in older.raised}
    assert set(program.measured()) == {"shared": older.unfinished, "tasks": raised}.get(name, set())
    assert {tasks.load(task).version for task in older.raised} <= {2}
    after = program.rows(sql=finished)
    assert [{name: row[name] for name in had} for had, row in zip(before, after, strict=False)] == before


# -- what only reads ------------------------------------------------------------------------------------------------


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def called(value: Older | list[str]) -> str:
    return " ".join(value).replace("/", " ") if isinstance(value, list) else str(value)


def kept_of(program: Program, older: Older) -> Path:
    """The person's folder beside the one in which the program runs and may write."""
    program.script(models=["e", "m", "n"], only_embedding=["e"])
    return lay_out(program.folder / "kept", older).parent


@pytest.fixture
def kept(program: Program) -> Path:
    return kept_of(program, SCHEMA_2)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program is of the version to come: it has one more migration, and its view one more column."""
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, ("later", LATER)))
    monkeypatch.setattr(schema, "USER_VERSION", schema.USER_VERSION + 1)
    monkeypatch.setattr(results, "MEASURED", (*results.MEASURED, "later_rate"))


@pytest.mark.parametrize(("older", "words"), READS_OF, ids=called)
def test_reading_leaves_nothing_behind(older: Older, words: list[str], program: Program) -> None:
    kept = kept_of(program, older)
    before = content(kept)
    assert program(*words, "--db", "kept/sweeps.db").must().stdout
    assert content(kept) == before


@pytest.mark.parametrize(("older", "words"), READS_OF, ids=called)
def test_an_older_version_reads_like_this_one_and_stays_as_it_is(
    older: Older, words: list[str], program: Program, later: None
) -> None:
    """The same is said of it as when a `run` has brought it up to date."""
    kept = kept_of(program, older)
    before = content(kept)
    said = program(*words, "--db", "kept/sweeps.db").must()
    drawn = content(program.folder / "elsewhere")
    assert content(kept) == before
    Store.open(kept / "sweeps.db").close()
    (kept / "sweeps.db.lock").unlink()
    assert content(kept) != before, "it is of the later version now"
    again = program(*words, "--db", "kept/sweeps.db").must()
    if words[0] == "doctor":
        warning = "was made by an older version"
        assert (warning in said.stdout, warning in again.stdout) == (True, False)
    else:
        assert (said.stdout, said.stderr) == (again.stdout, again.stderr)
        assert content(program.folder / "elsewhere").keys() == drawn.keys()


def test_what_an_older_version_lacks_is_empty(kept: Path, program: Program, later: None) -> None:
    exported = json_of(program("export", "speed", "--format", "json", "--db", "kept/sweeps.db"))["results"]
    assert {row["later_rate"] for row in exported} == {None}
    with Reader.open(kept / "sweeps.db") as reader:
        assert reader.is_older
        assert set(reader._rows("SELECT later FROM cells")) == {("as before",)}
        assert set(reader._rows("SELECT later FROM raw_outputs UNION SELECT later FROM plan")) == {(None,)}
        assert reader._rows("SELECT cell_id, at FROM later") == []


def test_a_newer_version_is_one_line(kept: Path, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "USER_VERSION", 1)
    before = content(kept)
    found = program("status", "--db", "kept/sweeps.db").must(2)
    assert found.stderr == "error: kept/sweeps.db was made by a newer version of this program; update it\n"
    assert content(kept) == before


def test_a_folder_that_cannot_be_written_is_read(program: Program, later: None) -> None:
    """Of an older version, too; nobody tries to write there."""
    words = [
        words
        for words in READS
        if words[0] in ("status", "best", "export", "report") and "elsewhere" not in " ".join(words)
    ]
    with public_folder() as folder:
        path = lay_out(folder / "kept")
        path.chmod(0o444)
        path.parent.chmod(0o555)
        before = content(path.parent)
        assert unprivileged(lambda: message(lambda: read_all(program, words, path))) == "nothing was raised"
        assert content(path.parent) == before
        path.parent.chmod(0o755)


def read_all(program: Program, commands: list[list[str]], path: Path) -> None:
    program.folder = path.parent
    for words in commands:
        assert program(*words, "--db", str(path)).must().stdout


def test_a_reader_takes_away_what_it_made_and_nothing_that_is_in_use(kept: Path) -> None:
    """The log of a run that goes on, or that holds what is nowhere else, is not its own."""
    path = kept / "sweeps.db"
    alone = set(os.listdir(kept))
    with Reader.open(path) as first:
        first.sweeps()
        with Reader.open(path) as second:
            second.sweeps()
        assert {"sweeps.db-wal", "sweeps.db-shm"} <= set(os.listdir(kept)), "the first one reads on"
        assert len(first.sweeps()) == SCHEMA_2.sweeps
    assert set(os.listdir(kept)) == alone
    with Store.open(path) as store:
        with Reader.open(path) as reader:
            reader.sweeps()
        store.save_prompt("sha256:1", "kept")
        assert {"sweeps.db-wal", "sweeps.db-shm"} <= set(os.listdir(kept))
        with Reader.open(path) as reader:
            reader.sweeps()
        assert (kept / "sweeps.db-wal").stat().st_size > 0


def test_an_import_of_the_same_changes_nothing(program: Program) -> None:
    laid_out(program)
    assert "0 of 2 results are new" in program("import", "old_results.json", "--name", "old").must().stdout
