"""The database of an earlier version, with everything in it: its keys hold, and its finished cells stay finished.

`tests/data/schema_2` is what a person has who used version 2: sweep files, data and database. How it was made stands in
`scripts/make_fixture_db`; `cells.json` holds what the key of each cell was made of.
"""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import contextlib
import gzip
import json
import shutil
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sweeping import Program, program

from ollama_sweep.cells import Cell, Flag, Status, cell_key

DATA = Path(__file__).parent / "data" / "schema_2"
CELLS: list[dict[str, Any]] = json.loads((DATA / "cells.json").read_text("utf-8"))
UNFINISHED = {"num_ctx 32768, num_batch 16", "num_ctx 65536, num_batch 8", "num_ctx 65536, num_batch 16"}
DONE = {"speed": "20 of 24", "settings": "16 of 16", "tasks": "14 of 14", "shared": "3 of 6"}
"""The sweeps of the scripted engine, with what `run` says of them; what is skipped is not counted as done."""


def lay_out(folder: Path) -> Path:
    """The person's folder; its database."""
    shutil.copytree(DATA, folder, dirs_exist_ok=True)
    path = folder / "sweeps.db"
    path.write_bytes(gzip.decompress((folder / "sweeps.db.gz").read_bytes()))
    return path


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


def options(pairs: list[list[Any]]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, value) for name, value in pairs)


def test_every_key_is_made_of_the_same_and_is_the_same() -> None:
    for known in CELLS:
        if known["key"].startswith("import:"):
            continue
        fields = {name: options(value) if isinstance(value, list) else value for name, value in known["cell"].items()}
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
    assert flags == set(Flag)
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
    assert set(program.measured()) == (UNFINISHED if name == "shared" else set())
    assert program.rows(sql=finished)[: len(before)] == before


def test_an_import_of_the_same_changes_nothing(older: Path, program: Program) -> None:
    assert "0 of 2 results are new" in program("import", "old_results.json", "--name", "old").must().stdout
