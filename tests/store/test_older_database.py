"""The database of an earlier version, with everything in it: its keys hold, its finished cells stay finished, and what
only reads shows it as it is and leaves nothing behind.

`tests/data/schema_2` is what a person has who used version 2: sweep files, data and database. How it was made stands in
`scripts/make_fixture_db`; `cells.json` holds what the key of each cell was made of.
"""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from older_database import DATA, lay_out
from store_helpers import message, public_folder, unprivileged
from sweeping import Program, json_of, program

from ollama_sweep import tasks
from ollama_sweep.core.cell import Cell, cell_key
from ollama_sweep.core.outcome import Flag, Status
from ollama_sweep.store import schema
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.writer import Store

CELLS: list[dict[str, Any]] = json.loads((DATA / "cells.json").read_text("utf-8"))
UNFINISHED = {"num_ctx 32768, num_batch 16", "num_ctx 65536, num_batch 8", "num_ctx 65536, num_batch 16"}
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
    ["report", "tasks", "--json"],
    ["report", "speed", "tasks", "openai", "--out", "elsewhere"],
    ["heatmap", "speed", "--out", "elsewhere"],
    ["plot", "grid", "tasks", "--out", "elsewhere"],
    ["plot", "avg_by_model_durations", "tasks", "--out", "elsewhere"],
    ["plan", "kept/speed.yaml"],
    ["doctor", "kept/speed.yaml"],
)
"""What only reads: all of it but `logs`, which does not read the database."""
LATER = """
ALTER TABLE sweeps ADD COLUMN later TEXT;
ALTER TABLE cells ADD COLUMN later TEXT NOT NULL DEFAULT 'as before';
ALTER TABLE plan ADD COLUMN later TEXT;
ALTER TABLE status_counts ADD COLUMN later TEXT;
ALTER TABLE attempts ADD COLUMN later_rate REAL;
ALTER TABLE runs ADD COLUMN later TEXT;
ALTER TABLE scores ADD COLUMN later TEXT;
ALTER TABLE raw_outputs ADD COLUMN later TEXT;
ALTER TABLE answers ADD COLUMN later TEXT;
ALTER TABLE prompts ADD COLUMN later TEXT;
ALTER TABLE prompt_tokens ADD COLUMN later TEXT;
ALTER TABLE made_prompts ADD COLUMN later TEXT;
ALTER TABLE ledger ADD COLUMN later TEXT;
ALTER TABLE controls ADD COLUMN later TEXT;
ALTER TABLE segments ADD COLUMN later TEXT;
ALTER TABLE view_columns ADD COLUMN later TEXT;
CREATE TABLE later (cell_id INTEGER NOT NULL REFERENCES cells (id), at TEXT NOT NULL) STRICT;
"""
"""A version to come, which adds a column to every table, and a table; see `later`."""
JUDGED_OTHERWISE = ("json_quality", "mmlu")
"""Tasks whose version was raised since, because the same answer is judged otherwise: their cells have other keys."""
DONE = {"speed": "20 of 24", "settings": "16 of 16", "tasks": "10 of 14", "shared": "3 of 6"}
"""The sweeps of the scripted engine, with what `run` says of them; what is skipped is not counted as done."""


FLAGS_SINCE = {Flag.BUSY}
"""What version 2 did not know."""


@pytest.fixture
def older(program: Program) -> Path:
    """The database in the folder in which the program runs."""
    program.script(version="1.1", models=["e", "m", "n"], only_embedding=["e"])
    return lay_out(program.folder)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[tuple[Any, ...]]]:
    """Every table of it."""
    path = lay_out(tmp_path_factory.mktemp("older"))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}


def test_every_key_is_made_of_the_same_and_is_the_same() -> None:
    for known in CELLS:
        if known["key"].startswith("import:"):
            continue
        fields: dict[str, Any] = {
            name: tuple(map(tuple, value)) if isinstance(value, list) else value
            for name, value in known["cell"].items()
        }
        identity = ("engine", "model_digest", "modelfile", "prompt_hash", "task_version")
        assert cell_key(Cell(**fields), **{name: known[name] for name in identity}) == known["key"], known


def test_the_database_has_these_keys_and_no_others(older: Path, program: Program) -> None:
    found = program.rows(sql="SELECT key, engine, model_digest, prompt_hash, task, options, server FROM cells")
    assert len(found) == len(CELLS)
    known = {cell["key"]: cell for cell in CELLS}
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


def test_it_holds_every_status_flag_task_and_engine(older: Path, program: Program) -> None:
    """A fixture that lacks something holds nothing against it."""
    statuses = program.rows(sql="SELECT status FROM cells UNION SELECT status FROM attempts")
    assert {row["status"] for row in statuses} == set(Status)
    flags = {flag for row in program.rows(sql="SELECT flags FROM attempts") for flag in row["flags"].split(",") if flag}
    assert flags | FLAGS_SINCE == set(Flag)
    cells = program.rows(sql="SELECT engine, task FROM cells")
    assert {row["task"] for row in cells} == {
        "prompt_eval", "chat", "items", "json_quality", "mmlu", "embeddings", "capitals",
    }  # fmt: skip
    assert {row["engine"] for row in cells} == {
        "fake", "imported", "llamacpp", "lmstudio", "ollama", "ollama_http", "openai", "sentence_transformers",
    }  # fmt: skip


def test_no_table_of_it_is_empty(rows: Mapping[str, list[tuple[Any, ...]]]) -> None:
    assert [name for name, found in rows.items() if not found] == []


@pytest.mark.parametrize("name", DONE)
def test_a_run_measures_nothing_again(name: str, older: Path, program: Program) -> None:
    finished = "SELECT * FROM attempts WHERE status <> 'started' ORDER BY id"
    before = program.rows(sql=finished)
    said = program("run", f"{name}.yaml").must().stdout
    assert f"{DONE[name]} cells already done" in said
    raised = {f"num_ctx {size}, num_batch 16, task {task}" for size in (512, 1024) for task in JUDGED_OTHERWISE}
    assert set(program.measured()) == {"shared": UNFINISHED, "tasks": raised}.get(name, set())
    assert {tasks.load(task).version for task in JUDGED_OTHERWISE} == {2}
    assert program.rows(sql=finished)[: len(before)] == before


# -- what only reads ------------------------------------------------------------------------------------------------


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def called(words: list[str]) -> str:
    return " ".join(words).replace("/", " ")


@pytest.fixture
def kept(program: Program) -> Path:
    """The person's folder beside the one in which the program runs and may write."""
    program.script(models=["e", "m", "n"], only_embedding=["e"])
    return lay_out(program.folder / "kept").parent


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program is of the version to come: it has one more migration, and its view one more column."""
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, ("later", LATER)))
    monkeypatch.setattr(schema, "USER_VERSION", schema.USER_VERSION + 1)
    monkeypatch.setattr(schema, "_MEASURED", (*schema._MEASURED, "later_rate"))


@pytest.mark.parametrize("words", READS, ids=called)
def test_reading_leaves_nothing_behind(words: list[str], kept: Path, program: Program) -> None:
    before = content(kept)
    assert program(*words, "--db", "kept/sweeps.db").must().stdout
    assert content(kept) == before


@pytest.mark.parametrize("words", READS, ids=called)
def test_an_older_version_reads_like_this_one_and_stays_as_it_is(
    words: list[str], kept: Path, program: Program, later: None
) -> None:
    """The same is said of it as when a `run` has brought it up to date."""
    before = content(kept)
    said = program(*words, "--db", "kept/sweeps.db").must()
    drawn = content(program.folder / "elsewhere")
    assert content(kept) == before
    Store.open(kept / "sweeps.db").close()
    (kept / "sweeps.db.lock").unlink()
    assert content(kept) != before, "it is of the later version now"
    again = program(*words, "--db", "kept/sweeps.db").must()
    if words[0] == "doctor":
        older = "was made by an older version"
        assert (older in said.stdout, older in again.stdout) == (True, False)
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
        words for words in READS if words[0] in ("status", "best", "export", "report") and "elsewhere" not in words
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
        assert len(first.sweeps()) == 11
    assert set(os.listdir(kept)) == alone
    with Store.open(path) as store:
        with Reader.open(path) as reader:
            reader.sweeps()
        store.save_prompt("sha256:1", "kept")
        assert {"sweeps.db-wal", "sweeps.db-shm"} <= set(os.listdir(kept))
        with Reader.open(path) as reader:
            reader.sweeps()
        assert (kept / "sweeps.db-wal").stat().st_size > 0


def test_an_import_of_the_same_changes_nothing(older: Path, program: Program) -> None:
    assert "0 of 2 results are new" in program("import", "old_results.json", "--name", "old").must().stdout
