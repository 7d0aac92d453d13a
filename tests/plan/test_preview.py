"""What a run would do, for `plan` and for Python, against what `run` really does and what the store says."""

# ruff: noqa: F401, F811 - fixtures are imported, and asked for by their names
from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sweeping import Program, json_of, label, program

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.plan.load import load
from ollama_sweep.plan.preview import Preview, preview
from ollama_sweep.results.status import status
from ollama_sweep.store.writer import Store

FOUR = {label(num_ctx, num_batch) for num_ctx in (512, 1024) for num_batch in (2, 4)}


@pytest.fixture(autouse=True)
def _fake_engine(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in program.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(program.folder)


def planned(program: Program, config: Path, **keys: Any) -> Preview:
    return preview(load(config, **keys), program.folder / "sweeps.db")


# -- a sweep from Python ---------------------------------------------------------------------------------------------


def test_keys_win_over_the_file_and_take_what_python_has(program: Program, tmp_path: Path) -> None:
    prompt = tmp_path / "p.txt"
    prompt.write_text("a text")
    found = load(program.grid(), num_ctx=range(512, 2049, 512), prompt=prompt, timeout="2m", options={"num_gpu": 0})
    assert found.dimensions == {"num_ctx": (512, 1024, 1536, 2048), "num_batch": (2, 4)}
    assert (found.prompt.text, found.timeout_s, found.options["num_gpu"]) == ("a text", 120.0, 0)


def test_a_sweep_needs_no_file() -> None:
    text = "two\u2028lines\x85 and a \U0001f600"
    found = load(model="m", engine="fake", num_ctx=512, num_batch=[2, 4], prompt={"text": text}, task="chat")
    assert found.prompt.text == text
    assert found.setups["chat"].questions, "its tasks are set up"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"num_ctxx": 4096}, "num_ctxx"),
        ({"num_ctx": "many"}, "num_ctx"),
        ({"num_ctx": {4096}}, "num_ctx: is nothing that a sweep file could say (a set)"),
        ({"num_ctx": float("nan")}, "num_ctx"),
        ({"model": "m:cloud"}, "cloud"),
        ({"tasks": {"chat": {"data": "x"}}}, "tasks.chat"),
    ],
)
def test_a_wrong_key_is_one_line_that_names_it(program: Program, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(program.grid(), **keys)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


# -- what a run would do ---------------------------------------------------------------------------------------------


def test_a_preview_is_what_plan_prints(program: Program) -> None:
    config = program.grid(num_ctx=[8, 512, 1024])
    program("run", config, "--set", "num_ctx=[512]").must()
    found = planned(program, config)
    assert found.as_dict() == json_of(program("plan", config, "--json")) | {
        "dimensions": {"num_ctx": (8, 512, 1024), "num_batch": (2, 4)},
        **{name: getattr(found, name) for name in found.as_dict() if isinstance(getattr(found, name), tuple)},
    } | {"models": found.as_dict()["models"]}
    assert (found.cells, found.done, found.to_run, dict(found.why)) == (6, 2, 2, {"new": 2})
    assert found.does_not_fit == (8,)
    assert found.models["m"].memory[0].num_ctx == 8


def test_without_a_database_everything_is_new_and_nothing_is_made(program: Program) -> None:
    found = preview(load(program.grid()))
    assert (found.to_run, dict(found.why), found.seconds_left) == (4, {"new": 4}, None)
    assert program.files() == {"grid.yaml", "journal.txt"}


# -- measured again: before, in the store, and what really runs ------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "again", "reason"),
    [
        ({}, set(), None),
        ({"timeout": 30}, set(), None),
        ({"timeout": 1200}, {label(512, 4)}, "timed out after 600 s, the limit is 1200 s now"),
        ({"repeats": 5}, {label(512, 2), label(1024, 2)}, "has 3 runs, 5 are asked for now"),
        ({"num_batch": [2, 4, 8]}, {label(512, 8), label(1024, 8)}, "new"),
        ({"num_predict": 3}, FOUR, "new"),
    ],
)
def test_plan_run_and_the_store_name_the_same_cells(
    program: Program, keys: dict[str, Any], again: set[str], reason: str | None
) -> None:
    program.script(cells={label(512, 4): ["timeout"], label(1024, 4): ["oom"]})
    program("run", program.grid()).must()
    before = program.measured()
    config = program.grid(**keys)
    found = planned(program, config)
    assert dict(found.why) == ({reason: len(again)} if reason else {})
    assert found.to_run == len(again)
    said = program("run", config).must().stdout
    assert f"{found.to_run} to {'load once more' if 'repeats' in keys else 'run'}\n" in said
    assert {cell for cell, count in program.measured().items() if count > before[cell]} == again
    assert planned(program, config).to_run == 0


def test_more_rounds_of_a_tasks_questions_are_asked_where_plan_says_so(program: Program) -> None:
    keys: dict[str, Any] = {"task": "chat", "num_batch": 4, "prompt": None}
    program("run", program.grid(**keys, repeats=1)).must()
    config = program.grid(**keys, repeats=2)
    assert dict(planned(program, config).why) == {"has 1 runs, 2 are asked for now": 2}
    assert "2 of 2 cells already done, 0 to run, 2 to load once more" in program("run", config).must().stdout
    assert planned(program, config).to_run == 0


# -- one clock -------------------------------------------------------------------------------------------------------


def every_attempt_takes(seconds: int, db: Path) -> None:
    """From now on the database says so of each attempt, however fast this machine is."""
    Store.open(db).close()
    with sqlite3.connect(db) as connection:
        connection.execute(
            f"""CREATE TRIGGER slow AFTER UPDATE OF finished_at ON attempts WHEN NEW.finished_at IS NOT NULL BEGIN
                UPDATE attempts SET started_at =
                    strftime('%Y-%m-%dT%H:%M:%f+00:00', NEW.finished_at, '-{seconds} seconds') WHERE id = NEW.id; END"""
        )
    connection.close()


def test_run_plan_status_and_watch_say_the_same_time_left(program: Program) -> None:
    """Each cell crashes once and then works: two attempts of 500 s. Three of four cells are left: 3,000 s."""
    config, db = program.grid(), program.folder / "sweeps.db"
    every_attempt_takes(500, db)
    program.script(cells={cell: ["crashed", "ok"] for cell in FOUR})
    lines = program("run", config).must().stdout.splitlines()
    left = [line.rpartition(", ")[2] for line in lines if line.endswith(" left") and "tried again" not in line]
    assert left == ["50 min 0 s left", "33 min 20 s left", "16 min 40 s left"]
    with sqlite3.connect(db) as connection:
        connection.execute("UPDATE cells SET status = 'pending' WHERE id > 1")
    connection.close()
    assert round(planned(program, config).seconds_left or 0, 3) == 3000.0
    assert round(status(db).time.seconds_left or 0, 3) == 3000.0
    assert "Time left: about 50 min 0 s, at the rate so far" in program("plan", config).must().stdout
    for command in ("status", "watch"):
        assert "Pace: 16 min 40 s a cell, about 50 min 0 s left" in program(command).must().stdout
