"""A sweep that nobody sits in front of: detached, looked at, paused, stopped and gone on with from other terminals."""

# ruff: noqa: F401, F811 - fixtures are imported, and asked for by their names
from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pytest
from detached_runs import call, detached, ended, is_gone
from hypothesis import given, settings
from hypothesis import strategies as st
from ollama_fixture import MARK, clean_environment, until
from sweep_runner import Ended, Started
from sweeping import Program, label, program
from terminals import Terminal, gate, measuring, terminals

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.events import CellFinished, SweepStarted
from ollama_sweep.core.outcome import Outcome, Status
from ollama_sweep.machine import keep_awake
from ollama_sweep.plan.spec import Interim
from ollama_sweep.run.detached import keep_short
from ollama_sweep.run.interim import InterimPictures

FIRST, SECOND = label(512, 2), label(512, 4)
OTHER_PROGRAM = """
import fcntl, sys, time
file = open(sys.argv[1], "r+b")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


def log_of(program: Program, db: str = "sweeps.db") -> str:
    return (program.folder / f"{db}.log").read_text("utf-8")


def statuses_of(program: Program) -> list[str]:
    return [row["status"] for row in program.rows()]


# -- run --detach ----------------------------------------------------------------------------------------------------


def test_a_detached_run_goes_on_by_itself_and_says_how_to_look_and_to_stop(program: Program, gate: Path) -> None:
    said = call(program, "run", program.grid(), "--detach").must().stdout
    pid = int(said.partition("Running in the background: pid ")[2].partition(".")[0])
    for words in ("status", "watch", "logs -f", "pause", "continue", "stop"):
        assert f"ollama-sweep {words}" in said
    assert "0 of 4 cells already done, 4 to run" in said
    running = psutil.Process(pid)
    assert os.getsid(pid) == pid
    assert running.terminal() is None
    gate.touch()
    ended(running)
    assert statuses_of(program) == ["ok"] * 4
    assert f"Log: {program.folder / 'sweeps.db.log'}" in said
    assert "4/4" in log_of(program)
    assert "Picture:" in log_of(program)


def test_it_lives_through_the_end_of_its_terminal_and_a_hang_up(
    program: Program, terminals: list[Terminal], gate: Path
) -> None:
    terminal = Terminal(program, "run", program.grid(), "--detach")
    terminals.append(terminal)
    assert terminal.wait() == 0
    pid = int(terminal.shown.partition("background: pid ")[2].partition(".")[0])
    terminal.close()
    os.kill(pid, signal.SIGHUP)
    gate.touch()
    ended(psutil.Process(pid))
    assert statuses_of(program) == ["ok"] * 4
    assert "Traceback" not in log_of(program)


def test_nohup_is_respected(program: Program, gate: Path) -> None:
    words = [sys.executable, str(program.file), "run", str(program.grid())]
    environment = {**clean_environment(), **program.environment(), MARK: program.mark}
    with subprocess.Popen(["sh", "-c", "trap '' HUP; exec \"$@\"", "sh", *words], cwd=program.folder, env=environment,
                          stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL) as running:  # fmt: skip
        measuring(program)
        running.send_signal(signal.SIGHUP)
        gate.touch()
        assert running.wait() == 0
    assert statuses_of(program) == ["ok"] * 4


def test_where_everything_is_done_it_ends_in_the_foreground(program: Program) -> None:
    program("run", program.grid()).must()
    said = call(program, "run", program.grid(), "--detach").must().stdout
    assert "4 of 4 cells already done, 0 to run" in said
    assert "Best: num_ctx" in said
    assert "background" not in said
    assert not program.left_running()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--set", "repeats=-1"], 2, "repeats must be 1 to 1000"),
        (["--model", "nope"], 5, "nope is not installed here. Run: ollama pull nope"),
        (["--engine", "olama"], 2, "unknown engine olama"),
        (["--db", "nowhere/sweeps.db"], 2, "does not exist"),
        (["--set", "quiet_hours=9-17"], 2, '"9-17" is not a time like 09:00-18:00'),
    ],
)
def test_what_keeps_it_from_starting_is_said_in_the_terminal_and_nothing_is_left(
    program: Program, words: list[str], code: int, said: str
) -> None:
    program.script(missing_models=["nope"])
    found = call(program, "run", program.grid(), *words, "--detach").must(code)
    assert found.stderr.startswith("error: ")
    assert said in found.stderr
    assert len(found.stderr.splitlines()) == 1
    assert program.files() <= {"grid.yaml", "journal.txt"}
    assert not program.left_running()


def test_a_held_database_is_refused_before_anything_starts(program: Program, gate: Path) -> None:
    running = detached(program, program.grid())
    before = log_of(program)
    for words in ((), ("--detach",)):
        found = call(program, "run", program.grid(), *words).must(3)
        assert f"error: Already running: pid {running.pid} since " in found.stderr
    assert log_of(program) == before


def test_ctrl_c_before_the_first_cell_takes_the_start_back(program: Program, terminals: list[Terminal]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{nobody.getsockname()[1]}"
        words = ("--engine", "ollama", "--ollama", "/bin/true", "--host", host, "--detach")
        terminal = Terminal(program, "run", program.grid(), *words)
        terminals.append(terminal)
        until("the run waits for its server", lambda: "waiting" in terminal.read())
        terminal.press_ctrl_c()
        assert terminal.wait() == 130
    assert not program.left_running()
    assert program.files() == {"grid.yaml"}


def test_the_log_is_private_and_a_second_run_goes_on_in_it(program: Program) -> None:
    ended(detached(program, program.grid(num_ctx=[512])))
    ended(detached(program, program.grid()))
    log = program.folder / "sweeps.db.log"
    assert log.stat().st_mode & 0o077 == 0
    assert "0 of 2 cells already done" in log_of(program)
    assert "2 of 4 cells already done" in log_of(program)


# -- stop ------------------------------------------------------------------------------------------------------------


def test_stop_lets_the_cell_end_and_says_what_is_done(program: Program, gate: Path) -> None:
    running = detached(program, program.grid())
    measuring(program)
    assert FIRST in call(program, "stop", "--no-wait").must().stdout
    stopping = program.start("stop", env=program.environment())
    until("the request is passed on", lambda: "Asked pid" in so_far(stopping))
    assert running.is_running()
    gate.touch()
    said = stopping.wait().must().stdout
    assert "Stopped: 1 of 4 cells are done. Go on with: ollama-sweep run " in said
    assert is_gone(running)
    assert program.measured() == {FIRST: 4}
    assert "error: stopped; everything measured is saved. Go on with" in log_of(program)
    program("run", program.grid()).must()
    assert statuses_of(program) == ["ok"] * 4


def so_far(started: Started) -> str:
    return started._files[0].read_text("utf-8")


def test_stop_now_gives_the_cell_up_and_run_measures_it_again(program: Program, gate: Path) -> None:
    running = detached(program, program.grid())
    measuring(program)
    said = call(program, "stop", "--now").must().stdout
    assert f"Asked pid {running.pid} to stop now ({FIRST}, for " in said
    assert "Stopped: 0 of 4 cells are done" in said
    (attempt,) = program.rows(sql="select status, reason from attempts")
    assert attempt == {"status": "interrupted", "reason": "stopped"}
    gate.touch()
    program("run", program.grid()).must()
    assert statuses_of(program) == ["ok"] * 4


def test_a_run_in_the_foreground_is_stopped_the_same_way(program: Program, gate: Path) -> None:
    running = program.start("run", program.grid(), env=program.environment())
    measuring(program)
    call(program, "stop", "--no-wait").must()
    gate.touch()
    found = running.wait().must(143)
    assert "Stopping after this cell" in found.stdout
    assert statuses_of(program) == ["ok", "pending", "pending", "pending"]


@pytest.mark.parametrize("words", [["stop"], ["stop", "--now"], ["pause"], ["continue"], ["logs"], ["status"]])
def test_without_a_database_each_command_says_so_and_makes_none(program: Program, words: list[str]) -> None:
    found = program(*words).must(2)
    assert found.stderr.startswith("error: no database at sweeps.db")
    assert len(found.stderr.splitlines()) == 1
    assert program.files() == set()


@pytest.mark.parametrize("words", [["stop"], ["stop", "--now"], ["stop", "--no-wait"], ["continue"]])
def test_where_nothing_runs_nothing_can_be_stopped(program: Program, words: list[str]) -> None:
    program("run", program.grid()).must()
    found = program(*words).must(2)
    assert "no sweep runs on" in found.stderr
    assert "ollama-sweep run CONFIG" in found.stderr
    assert len(found.stderr.splitlines()) == 1


@contextlib.contextmanager
def held_by_another_program(program: Program, signed: str) -> Iterator[subprocess.Popen[str]]:
    """The lock of the database, held by a program that is no sweep; its file names somebody else."""
    lock = program.folder / "sweeps.db.lock"
    lock.write_text(signed, "utf-8")
    with subprocess.Popen([sys.executable, "-c", OTHER_PROGRAM, str(lock)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        try:
            yield other
        finally:
            other.kill()


@pytest.mark.parametrize("words", [["stop"], ["stop", "--now"]])
def test_a_pid_of_another_program_is_never_signalled(program: Program, words: list[str]) -> None:
    program("run", program.grid()).must()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as bystander:
        signed = f"pid {bystander.pid}\nsince 2026-01-01T00:00:00+00:00\nhost {platform.node()}\n"
        try:
            with held_by_another_program(program, signed) as other:
                found = program(*words).must(3)
                assert f"pid {bystander.pid} (python" in found.stderr
                assert "is not the sweep that holds it, so nothing was sent to it" in found.stderr
                assert len(found.stderr.splitlines()) == 1
                assert other.poll() is None
            assert bystander.poll() is None
        finally:
            bystander.kill()


def test_a_sweep_on_another_host_is_named_and_not_signalled(program: Program) -> None:
    program("run", program.grid()).must()
    signed = f"pid {os.getpid()}\nsince 2026-01-01T00:00:00+00:00\nhost elsewhere\n"
    with held_by_another_program(program, signed):
        found = program("stop").must(3)
    assert found.stderr == f"error: the sweep runs on host elsewhere (pid {os.getpid()}); stop it there\n"


def test_a_pid_that_does_not_live_is_said_to_be_gone(program: Program) -> None:
    program("run", program.grid()).must()
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    signed = f"pid {child.pid}\nsince 2026-01-01T00:00:00+00:00\nhost {platform.node()}\n"
    with held_by_another_program(program, signed):
        assert f"pid {child.pid} (gone) is not the sweep" in program("stop").must(3).stderr


# -- pause, continue, conditions -------------------------------------------------------------------------------------


def on_hold(program: Program) -> str:
    """What `status` says of the hold, once there is one."""

    def ask() -> str:
        lines = program("status").must().stdout.splitlines()
        return next((line for line in lines if line.startswith("On hold: ")), "")

    return until("the sweep is on hold", lambda: ask() or None)


def test_pause_waits_before_the_next_cell_with_the_model_unloaded(program: Program, gate: Path) -> None:
    running = detached(program, program.grid())
    measuring(program)
    assert f"The sweep (pid {running.pid}) waits before its next cell" in program("pause").must().stdout
    assert "A pause is asked for: it waits before its next cell" in program("status").must().stdout
    gate.touch()
    assert on_hold(program).endswith("go on with: ollama-sweep continue")
    assert program.measured() == {FIRST: 4}
    assert program.events("release") == ["done"]
    assert "Was paused already" in program("pause").must().stdout
    assert f"The pause is over: the sweep (pid {running.pid}) goes on" in program("continue").must().stdout
    ended(running)
    assert statuses_of(program) == ["ok"] * 4
    assert "On hold: paused since" in log_of(program)
    assert "Going on" in log_of(program)


def test_a_pause_outlives_the_run(program: Program) -> None:
    program("run", program.grid(num_ctx=[512])).must()
    assert "No sweep runs now; the next run waits before its first cell" in program("pause").must().stdout
    assert "A pause is asked for, so a run would wait" not in program("status").must().stdout
    running = detached(program, program.grid())
    on_hold(program)
    call(program, "stop").must()
    assert is_gone(running)
    assert "A pause is asked for, so a run would wait until: ollama-sweep continue" in program("status").must().stdout
    assert "The pause is over, but no sweep runs" in program("continue").must().stdout
    program("run", program.grid()).must()
    assert statuses_of(program) == ["ok"] * 4


def test_continue_of_a_sweep_that_is_not_paused_says_so(program: Program, gate: Path) -> None:
    running = detached(program, program.grid())
    assert f"Was not paused: the sweep (pid {running.pid}) runs" in program("continue").must().stdout


def test_in_quiet_hours_nothing_starts_and_stop_ends_the_wait(program: Program) -> None:
    begin, end = (datetime.now() + timedelta(hours=hours) for hours in (-1, 2))
    hours = f"{begin:%H}:00-{end:%H}:00"
    running = detached(program, program.grid(quiet_hours=hours))
    line = on_hold(program)
    assert line in (f"On hold: quiet hours until {end:%H}:00", f"On hold: quiet hours until {end:%a %H}:00")
    assert program.measured() == {}
    call(program, "stop").must()
    assert is_gone(running)
    assert statuses_of(program) == ["pending"] * 4


def test_a_gpu_that_cannot_be_asked_is_one_warning(program: Program, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = call(program, "run", program.grid(wait_for_idle_gpu=True), PATH=str(tmp_path / "empty")).must()
    if not list(Path("/sys/class/drm").glob("card*/device/gpu_busy_percent")):
        assert found.stdout.count("no GPU here says how busy it is") == 1
    assert statuses_of(program) == ["ok"] * 4


# -- logs ------------------------------------------------------------------------------------------------------------


def test_logs_shows_the_last_lines(program: Program) -> None:
    ended(detached(program, program.grid()))
    whole = log_of(program).splitlines()
    assert call(program, "logs", "-n", "1000").must().stdout.splitlines() == whole
    assert call(program, "logs", "-n", "3").must().stdout.splitlines() == whole[-3:]
    assert call(program, "logs").must().stdout.splitlines() == whole[-20:]
    assert call(program, "logs", "-n", "0").must().stdout == ""


def test_logs_f_goes_on_until_the_run_ends(program: Program, gate: Path) -> None:
    running = detached(program, program.grid())
    measuring(program)
    following = program.start("logs", "-f", env=program.environment())
    until("what is there is shown", lambda: "4 to run" in so_far(following))
    gate.touch()
    said = following.wait().must().stdout
    assert said.count("4/4") == 1
    assert said.splitlines()[-1].startswith("Database: sweeps.db")
    ended(running)


def test_ctrl_c_leaves_logs_f_quietly_and_the_sweep_alone(
    program: Program, terminals: list[Terminal], gate: Path
) -> None:
    running = detached(program, program.grid())
    terminal = Terminal(program, "logs", "-f")
    terminals.append(terminal)
    until("what is there is shown", lambda: "4 to run" in terminal.read())
    terminal.press_ctrl_c()
    assert terminal.wait() == 0
    assert "error" not in terminal.shown
    assert running.is_running()


def test_logs_of_a_sweep_that_never_ran_detached_is_one_line(program: Program) -> None:
    program("run", program.grid()).must()
    found = program("logs").must(2)
    assert found.stderr.startswith("error: sweeps.db has no log: no run on it was started with --detach")
    assert len(found.stderr.splitlines()) == 1


def test_a_log_cannot_steer_the_terminal(program: Program) -> None:
    program("run", program.grid()).must()
    (program.folder / "sweeps.db.log").write_bytes(b"\x1b[2Jred\x07 \xff\r\n")
    said = call(program, "logs").must().stdout
    assert said.rstrip() == "\\x1b[2Jred\\x07 \N{REPLACEMENT CHARACTER}"


def test_a_long_log_loses_its_older_half_and_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "sweeps.db.log"
    with log.open("ab", buffering=0) as writer:
        for number in range(1000):
            writer.write(b"line %d\n" % number)
            keep_short(log, limit=2000)
        assert log.stat().st_size <= 2000
        writer.write(b"the end\n")
    lines = log.read_text("ascii").splitlines()
    assert lines[0] == "[older lines were dropped]"
    assert lines[-2:] == ["line 999", "the end"]
    assert lines[1:-1] == [f"line {number}" for number in range(1000 - len(lines) + 2, 1000)]


def test_logs_f_finds_its_place_again_in_a_log_that_was_cut(program: Program, gate: Path) -> None:
    running = detached(program, program.grid())
    measuring(program)
    log = program.folder / "sweeps.db.log"
    with log.open("ab", buffering=0) as other_writer:
        other_writer.write(b"".join(b"padding %d\n" % number for number in range(5000)))
    following = program.start("logs", "-f", "-n", "1", env=program.environment())
    until("the last line is shown", lambda: "padding 4999" in so_far(following))
    keep_short(log, limit=20_000)
    gate.touch()
    said = following.wait().must().stdout
    assert said.count("padding") == 1
    assert "1/4" in said
    assert "4/4" in said
    ended(running)


# -- interim pictures ------------------------------------------------------------------------------------------------


def test_pictures_are_there_while_the_sweep_runs(program: Program) -> None:
    program.script(cells={label(1024, 2): ["hang"]})
    running = detached(program, program.grid(interim=2))
    picture = program.folder / "heatmaps/grid/heatmap_highlighted.png"
    until("the interim picture", picture.exists)
    until("the third cell", lambda: label(1024, 2) in program.events("prepare"))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert running.is_running()
    call(program, "stop", "--now").must()


CELL = Cell((("num_ctx", 512),), "m", (("num_ctx", 512),))


def interim(when: Interim, words: Sequence[str], cells: int = 6) -> list[str]:
    """The warnings of a sweep of so many cells."""
    warnings: list[str] = []
    listen = InterimPictures(when, words, warnings.append)
    listen(SweepStarted("s", cells, 0))
    for _ in range(cells):
        listen(CellFinished(CELL, Outcome(Status.OK), 1.0, will_retry=False))
    return warnings


@pytest.mark.parametrize(
    ("when", "times"),
    [(Interim(2, None), 2), (Interim(None, 0.0), 5), (Interim(None, 3600.0), 0), (Interim(None, None), 0)],
)
def test_pictures_are_drawn_when_they_are_due_and_not_at_the_end(when: Interim, times: int, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn"
    assert interim(when, ["sh", "-c", f"echo drawn >> {drawn}"]) == []
    assert (drawn.read_text().count("drawn") if drawn.exists() else 0) == times


@pytest.mark.parametrize("words", [["sh", "-c", "echo error: no space left >&2; exit 4"], ["/nowhere/at/all"]])
def test_pictures_that_cannot_be_drawn_are_one_warning(words: list[str]) -> None:
    (warning,) = interim(Interim(1, None), words)
    assert warning.startswith("Warning: no interim pictures: ")
    assert "error:" not in warning


# -- one sweep per server --------------------------------------------------------------------------------------------


def on_a_server(program: Program, db: str, *words: str) -> tuple[str | Path, ...]:
    return ("run", program.grid(), "--host", "127.0.0.1:9", "--db", db, *words)


def test_a_second_sweep_on_the_same_server_is_refused_unless_told_otherwise(program: Program, gate: Path) -> None:
    alone = {"OLLAMA_SWEEP_SHARE_SERVER": "0", "XDG_CACHE_HOME": str(program.folder / "cache")}
    first = detached(program, *on_a_server(program, "one.db")[1:], **alone)
    refused = call(program, *on_a_server(program, "two.db"), **alone).must(3)
    assert "The server at 127.0.0.1:9 is in use by another sweep" in refused.stderr
    assert f"pid {first.pid} since " in refused.stderr
    assert f"database {program.folder / 'one.db'}" in refused.stderr
    assert "--share-server" in refused.stderr
    assert not (program.folder / "two.db").exists()
    gate.touch()
    call(program, *on_a_server(program, "two.db", "--share-server"), **alone).must()
    ended(first)
    call(program, *on_a_server(program, "three.db"), **alone).must()


def test_a_killed_sweep_leaves_its_server_free(program: Program, gate: Path) -> None:
    alone = {"OLLAMA_SWEEP_SHARE_SERVER": "0", "XDG_CACHE_HOME": str(program.folder / "cache")}
    first = detached(program, *on_a_server(program, "one.db")[1:], **alone)
    first.kill()
    ended(first)
    gate.touch()
    call(program, *on_a_server(program, "two.db"), **alone).must()


def test_a_cache_folder_that_cannot_be_written_is_a_warning(program: Program) -> None:
    blocked = program.folder / "file"
    blocked.write_text("", "utf-8")
    alone = {"OLLAMA_SWEEP_SHARE_SERVER": "0", "XDG_CACHE_HOME": str(blocked)}
    found = call(program, *on_a_server(program, "one.db"), **alone).must()
    assert "Warning: nothing keeps a second sweep away from The server at 127.0.0.1:9" in found.stdout


# -- keep awake ------------------------------------------------------------------------------------------------------


def inhibitor(program: Program, text: str) -> str:
    """A PATH with this systemd-inhibit in front."""
    folder = program.folder / "bin"
    folder.mkdir()
    tool = folder / "systemd-inhibit"
    tool.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
    tool.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_the_computer_is_kept_awake_for_the_time_of_the_run(program: Program, gate: Path) -> None:
    asked = program.folder / "asked"
    path = inhibitor(program, f'echo $$ "$@" > {asked}; while [ "${{1#--}}" != "$1" ]; do shift; done; exec "$@"')
    running = detached(program, program.grid(), "--keep-awake", PATH=path)
    until("it is asked", lambda: asked.exists() and asked.read_text("utf-8").endswith("\n"))
    pid, _, words = asked.read_text("utf-8").partition(" ")
    assert "--what=idle:sleep" in words
    helper = psutil.Process(int(pid))
    assert helper.is_running()
    gate.touch()
    ended(running)
    until("the helper ends", lambda: is_gone(helper))


def test_a_helper_that_may_not_do_its_work_is_one_warning(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep_awake, "SETTLE_S", 120.0)
    path = inhibitor(program, "echo Failed to connect to bus >&2; exit 1")
    found = program("run", program.grid(), "--keep-awake", env={"PATH": path}).must()
    assert found.stdout.count("systemd-inhibit did not work, so the computer may go to sleep: Failed to connect") == 1


def test_without_a_helper_it_is_one_warning(program: Program) -> None:
    empty = program.folder / "empty"
    empty.mkdir()
    found = call(program, "run", program.grid(), "--keep-awake", PATH=str(empty)).must()
    assert found.stdout.count("neither systemd-inhibit nor caffeinate is here") == 1


# -- status ----------------------------------------------------------------------------------------------------------


def test_status_names_the_process_the_cell_and_the_next_one(program: Program, gate: Path) -> None:
    running = detached(program, program.grid())
    measuring(program)
    said = program("status").must().stdout
    assert f"Running: pid {running.pid} since " in said
    assert f"Now: {FIRST}, for " in said
    assert f"Next: {SECOND}" in said
    found = json.loads(program("status", "--json").must().stdout)
    assert (found["running"]["coordinates"], found["next"]["num_batch"]) == ({"num_ctx": 512, "num_batch": 2}, 4)


def test_status_says_what_a_run_waits_for(program: Program) -> None:
    program.script(cells={FIRST: ["ok"], SECOND: ["unavailable"]})
    detached(program, program.grid())
    until("the wait", lambda: "Waiting: could not connect to the fake server" in program("status").must().stdout)
    call(program, "stop").must()


def test_status_of_another_sweep_in_the_same_database_says_which_one_runs(program: Program) -> None:
    program.script(cells={SECOND: ["unavailable"]})
    program("run", program.grid("early"), "--wait-engine", "0.1s").must(5)
    program.script(gate=str(program.folder / "gate"))
    running = detached(program, program.grid("late", num_ctx=[4096]))
    assert f"Running: pid {running.pid}" in program("status", "late").must().stdout
    said = program("status", "early").must().stdout
    assert f"Not running: pid {running.pid} runs sweep late in this database" in said


def test_status_of_a_killed_sweep_says_how_to_go_on(program: Program, gate: Path) -> None:
    config = program.grid()
    running = detached(program, config)
    measuring(program)
    running.kill()
    ended(running)
    until("the lock is free", lambda: "Not running" in program("status").must().stdout)
    said = program("status").must().stdout
    assert f"Not running. Go on with: ollama-sweep run {config}" in said
    assert "Now:" not in said


def test_pictures_of_a_run_inside_another_program_are_drawn_by_this_one(program: Program) -> None:
    program("run", program.grid(interim=1)).must()
    assert (program.folder / "heatmaps/grid/heatmap_highlighted.png").exists()
