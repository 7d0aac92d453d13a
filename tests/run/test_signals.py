"""Ctrl-C, SIGTERM and a closed terminal: asked once the cell at hand is finished, asked twice it is given up."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ollama_fixture import MARK, clean_environment, until
from sweep_runner import Started, stands_at
from sweeping import Program, label, program
from terminals import Terminal, gate, measuring, terminals

FIRST, SECOND = label(512, 2), label(512, 4)
MANY: dict[str, Any] = {"num_ctx": [512, 1024, 1536, 2048, 4096], "num_batch": list(range(2, 42))}
STATES = "select status, reason, error, finished_at from attempts order by id"


def so_far(started: Started) -> str:
    """What the program has said until now."""
    return started._files[0].read_text("utf-8")


def goes_on(program: Program, config: Path, done: int, total: int) -> None:
    said = program("run", config).must().stdout
    assert f"{done} of {total} cells already done, {total - done} to run" in said
    assert {row["status"] for row in program.rows()} == {"ok"}
    assert program.rows(sql="select * from ledger") == []


# Once


def test_ctrl_c_once_finishes_the_cell_and_says_how_to_go_on(
    program: Program, terminals: list[Terminal], gate: Path
) -> None:
    config, program.draws = program.grid(), True
    terminal = Terminal(program, "run", config)
    terminals.append(terminal)
    measuring(program)
    terminal.press_ctrl_c()
    until("it says so", lambda: "Stopping after this cell" in terminal.read())
    assert terminal.child.poll() is None
    gate.touch()
    assert terminal.wait() == 130
    assert program.measured() == {FIRST: 4}
    assert [row["status"] for row in program.rows()] == ["ok", "pending", "pending", "pending"]
    assert terminal.shown.count("Stopping after this cell") == 1
    assert f"Go on with: ollama-sweep run {config}" in terminal.shown
    assert "Traceback" not in terminal.shown
    assert "Picture: heatmaps/grid/heatmap_highlighted.png" in terminal.shown
    assert (program.folder / "heatmaps/grid/heatmap_highlighted.png").read_bytes().startswith(b"\x89PNG")
    goes_on(program, config, 1, 4)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_cell(number: signal.Signals, code: int, program: Program, gate: Path) -> None:
    config = program.grid()
    started = program.start("run", config, env=program.environment())
    measuring(program)
    started.kill(number)
    until("it was heard", lambda: "Stopping after this cell" in so_far(started))
    gate.touch()
    ended = started.wait().must(code)
    assert program.measured() == {FIRST: 4}
    assert ended.stderr == f"error: stopped; everything measured is saved. Go on with: ollama-sweep run {config}\n"
    goes_on(program, config, 1, 4)


def test_a_sweep_in_the_background_of_a_shell_can_be_stopped(program: Program, gate: Path) -> None:
    """A shell without job control makes `&` ignore SIGINT; Ctrl-C's signal works all the same."""
    words = shlex.join([sys.executable, str(program.file), "run", str(program.grid())])
    environment = {**clean_environment(), **program.environment(), MARK: program.mark}
    said = program.folder / "said"
    with subprocess.Popen(
        ["sh", "-c", f"{words} >said 2>&1 & echo $!; wait $!; echo $?"],
        cwd=program.folder, env=environment, stdout=subprocess.PIPE, text=True,
    ) as shell:  # fmt: skip
        assert shell.stdout is not None
        pid = int(shell.stdout.readline())
        measuring(program)
        os.kill(pid, signal.SIGINT)
        until("it was heard", lambda: "Stopping after this cell" in said.read_text())
        gate.touch()
        assert shell.stdout.readline() == "130\n"
    assert program.measured() == {FIRST: 4}


def test_a_signal_in_the_last_cell_lets_the_sweep_end_as_it_should(program: Program, gate: Path) -> None:
    started = program.start("run", program.grid(num_ctx=512, num_batch=2), env=program.environment())
    measuring(program)
    started.kill(signal.SIGTERM)
    until("it was heard", lambda: "Stopping after this cell" in so_far(started))
    gate.touch()
    assert "Best: num_ctx 512 with num_batch 2" in started.wait().must().stdout
    assert [row["status"] for row in program.rows()] == ["ok"]


# Twice


def test_ctrl_c_twice_gives_the_cell_up_and_the_next_run_measures_it(
    program: Program, terminals: list[Terminal]
) -> None:
    program.script(cells={SECOND: ["hang", "ok"]})
    config = program.grid()
    terminal = Terminal(program, "run", config)
    terminals.append(terminal)
    until("the second cell hangs", lambda: SECOND in program.events("prepare"))
    terminal.press_ctrl_c()
    until("it says so", lambda: "Stopping after this cell" in terminal.read())
    assert terminal.child.poll() is None
    terminal.press_ctrl_c()
    assert terminal.wait() == 130
    assert "Traceback" not in terminal.shown
    assert [(row["status"], row["reason"]) for row in program.rows(sql=STATES)] == [
        ("ok", ""), ("interrupted", "stopped"),
    ]  # fmt: skip
    assert [row["status"] for row in program.rows()] == ["ok", "pending", "pending", "pending"]
    goes_on(program, config, 1, 4)
    assert program.measured() == {label(ctx, batch): 4 for ctx in (512, 1024) for batch in (2, 4)}


def test_a_stop_while_the_engine_is_away_is_heard(program: Program) -> None:
    program.script(cells={FIRST: ["unavailable"]})
    started = program.start("run", program.grid(), env=program.environment())
    until("it waits", lambda: "waiting" in so_far(started))
    started.kill(signal.SIGINT)
    started.wait().must(130)
    assert {row["status"] for row in program.rows()} == {"pending"}


# The terminal


@pytest.mark.parametrize("shows_errors", [True, False])
def test_a_closed_terminal_loses_no_cell_and_shows_no_traceback(
    shows_errors: bool, program: Program, terminals: list[Terminal], gate: Path
) -> None:
    config = program.grid()
    errors = None if shows_errors else program.folder / "errors"
    terminal = Terminal(program, "run", config, errors_to=errors)
    terminals.append(terminal)
    measuring(program)
    terminal.close()
    gate.touch()
    assert terminal.child.wait(60) == 129
    if errors:
        assert errors.read_text() == (
            f"error: stopped; everything measured is saved. Go on with: ollama-sweep run {config}\n"
        )
    goes_on(program, config, len(program.measured()), 4)
    assert program.measured() == {label(ctx, batch): 4 for ctx in (512, 1024) for batch in (2, 4)}


def test_ctrl_c_while_the_terminal_takes_no_more_is_heard(program: Program, terminals: list[Terminal]) -> None:
    """A terminal that nobody reads (Ctrl-S, a stopped pager) blocks the program in the middle of a line."""
    terminal = Terminal(program, "run", program.grid(**MANY))
    terminals.append(terminal)
    until("the program waits for the terminal", lambda: stands_at(terminal.child.pid, 1, 2))
    begun = len(program.events("prepare"))
    terminal.press_ctrl_c()
    assert terminal.wait() == 130
    assert "Traceback" not in terminal.shown
    assert "Stopping after this cell" in terminal.shown
    assert begun <= len(program.events("prepare")) <= begun + 1
    assert {row["status"] for row in program.rows(sql=STATES)} == {"ok"}


def test_the_live_line_stays_on_one_line_of_a_narrow_terminal(program: Program, terminals: list[Terminal]) -> None:
    terminal = Terminal(program, "run", program.grid(num_ctx=[512]))
    terminals.append(terminal)
    assert terminal.wait() == 0
    parts = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", part) for part in terminal.shown.split("\r\x1b[2K")]
    drawn = [part for part in parts if part and "\n" not in part]
    assert any("warm-up 1" in part for part in drawn)
    assert all(len(part) < 80 for part in drawn)
