"""The process dies, at every named point of a cell's life and at random: nothing that was acknowledged is lost."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ollama_fixture import ROOT, until
from sweep_runner import Started
from sweeping import Program, label, program

from ollama_sweep.core.crashpoints import LANE_POINTS, POINTS

OPEN = "select count(*) as open from attempts where finished_at is null"
SCOUTED = "scouted"
"""Only a scouted sweep comes by here (test_scout)."""
ONCE = ("plan_registered", "before_pictures", "in_picture", "before_close")
"""A run comes by here only once, at the others once an attempt."""
LINES = 5
"""So many lines of the journal a cell takes."""
MOST_TOO_MANY = 3
"""How many cells a run may do after its kill was due, however late that comes."""


def child(program: Program, *words: str | Path, crash_at: str = "") -> Started:
    """The program as a process of its own."""
    return program.start(*words, env={**program.environment(), "SWEEP_CRASH_AT": crash_at})


def acknowledged(program: Program) -> dict[str, tuple[Any, ...]]:
    """Every finished cell with its number and when it ended, as anybody's sqlite3 shows them."""
    sql = """select cell, status, prompt_eval_rate, runs, finished_at from results
        where status not in ('pending', 'started')"""
    return {row["cell"]: tuple(row.values()) for row in program.rows_now(sql)}


def check_whole(program: Program) -> None:
    with contextlib.closing(sqlite3.connect(f"file:{program.folder}/sweeps.db?mode=rw", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def measured_once(program: Program, cells: int) -> None:
    """Each cell has one attempt that ended well; all its others were interrupted."""
    rows = program.rows(sql="""select count(*) as attempts, sum(status = 'ok') as ok,
        sum(status = 'interrupted') as interrupted from attempts group by cell_id""")  # fmt: skip
    assert len(rows) == cells
    assert all((row["ok"], row["interrupted"]) == (1, row["attempts"] - 1) for row in rows)


@pytest.mark.parametrize(
    ("point", "times"),
    [(point, times) for point in POINTS if point != SCOUTED for times in ((1,) if point in ONCE else (1, 2))],
)
def test_a_death_at_any_point_costs_at_most_the_cell_at_hand(point: str, times: int, program: Program) -> None:
    program.script(cells={label(512, 2): ["crashed", "ok"]})
    config = program.grid(num_batch=[2, 4, 8], num_ctx=512, warmup=1, repeats=2)
    died = child(program, "run", config, crash_at=f"{point}:{times}").wait()
    assert died.returncode == -signal.SIGKILL, died
    before, generations = acknowledged(program), program.measured()
    check_whole(program)

    said = program("run", config).must().stdout
    check_whole(program)
    after = acknowledged(program)
    assert {cell: after[cell] for cell in before} == before
    assert {row["status"] for row in program.rows()} == {"ok"}
    assert f"{len(before)} of 3 cells already done, {3 - len(before)} to run" in said
    finished = {label(row["num_ctx"], row["num_batch"]) for row in program.rows() if row["cell"] in before}
    assert {cell: program.measured()[cell] for cell in finished} == {cell: generations[cell] for cell in finished}
    assert program.rows(sql=OPEN) == [{"open": 0}]
    assert program.rows(sql="select * from ledger") == []
    left = point not in ("plan_registered", "before_begin", "after_begin") or times > 1
    gone = point in ("before_pictures", "in_picture")
    assert program.events("clear") == (["fake-scratch"] if left and not gone else [])
    assert ("Removed fake-scratch, left by the previous session" in said) is (left and not gone)
    assert not list(program.folder.rglob("*.tmp"))
    assert (program.folder / "heatmaps/grid/heatmap_highlighted.png").stat().st_size > 0


def test_every_point_is_one_that_a_sweep_comes_by() -> None:
    """A name that is nowhere reached would make the test above show nothing."""
    sources = "\n".join(path.read_text("utf-8") for path in (ROOT / "ollama_sweep").rglob("*.py"))
    assert set(re.findall(r'reached\("(\w+)"\)', sources)) == {*POINTS, *LANE_POINTS}


def test_what_a_dead_process_was_writing_is_cleared_and_a_living_ones_is_not(program: Program) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    folder = program.folder / "heatmaps/grid"
    folder.mkdir(parents=True)
    dead, alive = (folder / f".ollama-sweep.{pid}-0123abcd.tmp" for pid in (gone.pid, os.getpid()))
    dead.write_text("half a picture")
    alive.write_text("half a picture")
    program("run", program.grid()).must()
    assert (dead.exists(), alive.exists()) == (False, True)


def test_a_database_that_died_while_it_was_made_is_made_again(program: Program) -> None:
    """A kill before the first sweep is registered leaves a database that the next run takes as its own."""
    started = child(program, "run", program.grid())
    until("the prompt is counted", lambda: program.events("count") or not started.is_running(), pause_s=0.001)
    started.kill()
    started.wait()
    program("run", program.grid()).must()
    assert {row["status"] for row in program.rows()} == {"ok"}
    check_whole(program)


@pytest.mark.parametrize("rounds", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_kills_at_random_lose_nothing_and_repeat_nothing(rounds: int, program: Program) -> None:
    chance = random.Random(50)
    config = program.grid(num_ctx=list(range(512, 512 + 4 * rounds)), warmup=1, repeats=1)
    cells, kept, generations = 8 * rounds, acknowledged(program), program.measured()
    for number in range(rounds):
        # Every other round finishes one cell at least, so that none dies three times in a row.
        more = chance.randint(*((1, 8) if number % 2 else (14, 40)))
        wanted = lines(program) + more
        started = child(program, "run", config, crash_at=f"after_finish:{more // LINES + MOST_TOO_MANY}")
        until("more work", lambda: lines(program) >= wanted or not started.is_running(), pause_s=0.001)  # noqa: B023
        started.kill()
        ended = started.wait()
        assert ended.returncode == -signal.SIGKILL, ended
        check_whole(program)
        now, done = acknowledged(program), program.measured()
        assert {cell: now[cell] for cell in kept} == kept
        names = {f"num_ctx {row['num_ctx']}, num_batch {row['num_batch']}": row["cell"] for row in program.rows()}
        said = set(re.findall(r"\d+/\d+  (num_ctx \d+, num_batch \d+): ✓", ended.stdout))
        assert {names[name] for name in said} <= set(now)
        assert {cell: done[cell] for cell, key in names.items() if key in kept} == {
            cell: generations[cell] for cell, key in names.items() if key in kept
        }
        kept, generations = now, done
    assert rounds / 2 <= len(kept) < cells
    said_last = program("run", config).must().stdout
    assert f"{len(kept)} of {cells} cells already done, {cells - len(kept)} to run" in said_last
    assert {row["status"] for row in program.rows()} == {"ok"}
    assert {cell: row for cell, row in acknowledged(program).items() if cell in kept} == kept
    interrupted = program.rows(
        sql="select count(*) as n from attempts where status = 'interrupted' and reason = 'died'"
    )
    repeated = sum(count > 2 for count in program.measured().values())
    assert repeated <= interrupted[0]["n"] <= rounds
    measured_once(program, cells)
    check_whole(program)


def lines(program: Program) -> int:
    return program.journal.read_bytes().count(b"\n") if program.journal.exists() else 0
