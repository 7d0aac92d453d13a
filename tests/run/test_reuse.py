"""`reuse_duplicates`: cells that are the same configuration are measured once, and shown as such."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sweeping import Program, json_of, label, program

from ollama_sweep.results import pictures

GRID: Mapping[str, Any] = {
    "num_ctx": [512, 1024, 4096], "num_batch": [256, 512, 1024], "warmup": 0, "repeats": 1, "control": "off",
}  # fmt: skip
ORIGINALS = {(512, 256), (512, 512), (1024, 256), (1024, 512), (1024, 1024)}
"""With a model that was trained for 1024 tokens."""
COPIES = {(512, 1024): (512, 512), (4096, 256): (1024, 256), (4096, 512): (1024, 512), (4096, 1024): (1024, 1024)}


@pytest.fixture
def config(program: Program) -> Path:
    program.script(context_length=1024)
    return program.grid(**GRID, reuse_duplicates=True)


def without(program: Program) -> Path:
    """The same sweep without the key."""
    return program.grid(**GRID)


def measured(program: Program) -> Counter[str]:
    """How often each cell was loaded."""
    return Counter(program.events("prepare"))


def once(places: Any) -> dict[str, int]:
    return {label(*place): 1 for place in places}


def check_copies(program: Program) -> None:
    cells = program.cells()
    for copy, original in COPIES.items():
        for name in ("status", "reason", "prompt_eval_rate", "runs", "size_bytes", "error"):
            assert cells[copy][name] == cells[original][name]


def test_the_same_configuration_is_measured_once_and_the_others_are_flagged(program: Program, config: Path) -> None:
    plan = program("plan", config).must().stdout
    assert "9 cells, 0 done, 5 to run" in plan
    assert "Saved: 4 cells take the result of another one of the same configuration" in plan
    said = program("run", config).must().stdout
    assert "4 cells are the same configuration as another one and take its result" in said
    assert "0 of 9 cells already done, 5 to run" in said
    assert f"3/9  {label(512, 512)}" in said
    assert "9/9" in said
    assert measured(program) == once(ORIGINALS)
    check_copies(program)
    flags = {place: set(row["flags"].split(",")) - {"unfilled"} for place, row in program.cells().items()}
    assert flags == {place: {"clamped", "reused"} if place in COPIES else set() for place in flags}
    assert "9 of 9 cells done" in program("status").must().stdout
    again = program("plan", config).must().stdout
    assert "9 cells, 9 done, 0 to run" in again
    assert "Saved" not in again
    assert "9 of 9 cells already done" in program("run", config).must().stdout
    assert measured(program) == once(ORIGINALS)
    assert "clamped, reused, unfilled" in program("export", "--format", "md", "-o", "-").must().stdout
    program("verify").must()


def test_a_copy_is_no_rival_of_its_original(program: Program, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program("run", config).must()
    best = json_of(program("best", "--json"))
    assert (best["best"]["num_ctx"], best["best"]["num_batch"]) == (1024, 1024)
    assert best["tied"] == []
    assert [one["num_ctx"] for one in best["best_of_each_num_ctx"]] == [512, 1024, 4096]
    assert "  4096       1024       397 (1 run) reused\n" in program("best").must().stdout
    monkeypatch.setattr(pictures, "MANY", 3)  # as a sweep of very many cells is read
    said = program("run", config).must().stdout
    assert "Best: num_ctx 1024 with num_batch 1024" in said
    assert "Tied" not in said


def test_explain_names_the_original_and_shows_its_attempts(program: Program, config: Path) -> None:
    program("run", config).must()
    said = program("explain", "num_ctx=4096", "num_batch=512").must().stdout
    key = program.cells()[1024, 512]["cell"]
    assert f"the same configuration as {label(1024, 512)} ({key}), measured there" in said
    assert f"Attempts at {label(1024, 512)}" in said
    assert "asked num_ctx 4096, used 1024" in said
    found = json_of(program("explain", "num_ctx=4096", "num_batch=512", "--json"))
    assert (found["reused_from"], len(found["attempts"])) == (key, 1)
    assert json_of(program("explain", "num_ctx=1024", "num_batch=512", "--json"))["reused_from"] is None


def test_a_failure_is_taken_too_and_tried_again_once_for_all(program: Program, config: Path) -> None:
    program.script(context_length=1024, cells={label(1024, 512): ["timeout", "ok"]})
    program("run", config).must()
    assert program.cells()[4096, 512]["status"] == "timeout"
    check_copies(program)
    program("run", config, "--retry", "timeout").must()
    assert measured(program) == {**once(ORIGINALS), label(1024, 512): 2}
    assert program.cells()[4096, 512]["status"] == "ok"
    check_copies(program)


def test_copies_follow_when_the_original_gets_more_runs(program: Program, config: Path) -> None:
    program("run", config).must()
    more = program.grid(**{**GRID, "repeats": 3}, reuse_duplicates=True)
    plan = program("plan", more).must().stdout
    assert "9 cells, 0 done, 5 to run" in plan
    assert "Saved: 4 cells" in plan
    program("run", more).must()
    assert measured(program) == dict.fromkeys(once(ORIGINALS), 2)
    assert {row["runs"] for row in program.rows()} == {3}
    check_copies(program)


def test_without_the_key_they_are_measured_themselves_and_keep_that_with_it(program: Program, config: Path) -> None:
    program("run", config).must()
    plan = program("plan", without(program)).must().stdout
    assert "Would run: 4 cells (had the result of another cell)" in plan
    program("run", without(program)).must()
    assert measured(program) == once({*ORIGINALS, *COPIES})
    assert not any("reused" in row["flags"] for row in program.rows())
    rates = [row["prompt_eval_rate"] for row in program.rows()]
    assert "9 cells, 9 done, 0 to run" in program("plan", program.grid(**GRID, reuse_duplicates=True)).must().stdout
    program("run", program.grid(**GRID, reuse_duplicates=True)).must()
    assert measured(program) == once({*ORIGINALS, *COPIES})
    assert [row["prompt_eval_rate"] for row in program.rows()] == rates


def test_what_a_sweep_without_the_key_is_about_to_measure_shows_no_number(program: Program, config: Path) -> None:
    program("run", config).must()
    program.script(context_length=1024, cells={label(512, 1024): ["unavailable"]})
    program("run", without(program), "--wait-engine", "0").must(5)
    pending = program.cells()[512, 1024]
    assert (pending["status"], pending["prompt_eval_rate"], pending["flags"]) == ("pending", None, "")


def test_one_that_was_measured_before_is_the_original_wherever_it_stands(program: Program, config: Path) -> None:
    program("run", program.grid(**{**GRID, "num_ctx": [4096], "num_batch": [512]})).must()
    plan = program("plan", program.grid(**GRID, reuse_duplicates=True)).must().stdout
    assert "9 cells, 1 done, 4 to run" in plan
    assert "Saved: 4 cells" in plan
    program("run", program.grid(**GRID, reuse_duplicates=True)).must()
    assert measured(program) == once({*ORIGINALS - {(1024, 512)}, (4096, 512)})
    cells = program.cells()
    assert "reused" in cells[1024, 512]["flags"]
    assert "reused" not in cells[4096, 512]["flags"]
    assert cells[1024, 512]["prompt_eval_rate"] == cells[4096, 512]["prompt_eval_rate"]


def test_a_sweep_that_shares_a_cell_measures_it_itself_and_the_first_one_keeps_that(
    program: Program, config: Path
) -> None:
    program("run", config).must()
    other = program.grid("other", **{**GRID, "num_ctx": [4096], "num_batch": [512]})
    program("run", other).must()
    assert measured(program) == once({*ORIGINALS, (4096, 512)})
    program("run", program.grid(**GRID, reuse_duplicates=True)).must()
    assert measured(program) == once({*ORIGINALS, (4096, 512)})
    flags = {(row["num_ctx"], row["num_batch"]): row["flags"] for row in program.rows() if row["sweep"] == "grid"}
    assert "reused" not in flags[4096, 512]
    assert "reused" in flags[4096, 256]


def test_a_smaller_grid_keeps_what_was_taken(program: Program, config: Path) -> None:
    program("run", config).must()
    program("run", program.grid(**{**GRID, "num_ctx": [4096]}, reuse_duplicates=True)).must()
    assert measured(program) == once(ORIGINALS)
    assert {row["status"] for row in program.rows()} == {"ok"}
    said = program("explain", "num_ctx=4096", "num_batch=512").must().stdout
    assert "of another sweep, measured there" in said


@pytest.mark.parametrize("point", ["in_finish", "after_finish"])
def test_a_kill_loses_nothing_and_nothing_is_measured_twice(program: Program, config: Path, point: str) -> None:
    crash = {**program.environment(), "SWEEP_CRASH_AT": f"{point}:2"}
    assert program.start("run", config, env=crash).wait().returncode == -signal.SIGKILL
    finished = point == "after_finish"
    cells = program.cells()
    assert cells[512, 1024]["status"] == ("ok" if finished else "pending")
    assert [row["cells"] for row in program.rows(sql="select sum(cells) as cells from status_counts")] == [9]
    program("run", config).must()
    assert measured(program) == {**once(ORIGINALS), label(512, 512): 1 + (point == "in_finish")}
    check_copies(program)
    assert {row["status"]: row["cells"] for row in program.rows(sql="select * from status_counts where cells > 0")} == {
        "ok": 9
    }


def test_a_recovered_database_keeps_them(program: Program, config: Path) -> None:
    program("run", config).must()
    before = program.rows()
    program("recover", "--to", "new.db").must()
    assert program.rows("new.db") == before
    program("run", config, "--db", "new.db").must()
    assert measured(program) == once(ORIGINALS)


def test_any_order_measures_one_of_each(program: Program, config: Path) -> None:
    for order in ("shuffled", "row-first", "columns-bisected"):
        program.journal.unlink(missing_ok=True)
        program("run", program.grid(**GRID, reuse_duplicates=True, order=order), "--db", f"{order}.db").must()
        assert sum(measured(program).values()) == len(ORIGINALS)
        assert {row["status"] for row in program.rows(f"{order}.db")} == {"ok"}


def test_num_ctx_that_is_padded_to_the_same_is_no_doubt_for_strict(program: Program) -> None:
    program.script(tokens_per_word=200)
    config = program.grid(**{**GRID, "num_ctx": [1800, 1900, 2049], "num_batch": [64]}, reuse_duplicates=True)
    program("run", config, "--strict").must()
    assert [row["flags"] for row in program.rows()] == ["", "reused", ""]
