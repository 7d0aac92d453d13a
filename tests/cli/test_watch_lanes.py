"""`watch` shows lanes as `status` does, in the room that the terminal has; the log names them."""

# ruff: noqa: F401, F811 - fixtures are imported, and asked for by their names
from __future__ import annotations

import os
from pathlib import Path

from detached_runs import call, detached, ended
from ollama_fixture import until
from sweeping import Program, label, program
from terminals import Terminal, gate, measuring, terminals
from watched import shows, watching

from ollama_sweep.core.lanes.lane import Lane
from ollama_sweep.store.lanes.keeping import State
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.writer import Store

AWAY = "no Ollama server answers at http://10.0.0.7:11434"


def lanes(program: Program, *names: str) -> Path:
    hosts = [{"name": name, "host": f"127.0.0.1:{number}"} for number, name in enumerate(names, 1)]
    return program.grid(hosts=hosts, interim="off")


def more_lanes(program: Program, count: int) -> None:
    """So many that the terminal has no room for all; the last one is away."""
    with Reader.open(program.folder / "sweeps.db") as reader:
        sweep_id = reader.sweep("grid").sweep_id
    store = Store.open(program.folder / "sweeps.db")
    for number in range(count):
        is_last = number == count - 1
        store.keep_lane(sweep_id, Lane(f"more{number}"), State.AWAY if is_last else State.AT_WORK, AWAY * is_last)
    store.close()


def test_a_line_for_each_lane_while_it_runs_and_the_log_names_them(
    program: Program, terminals: list[Terminal], gate: Path
) -> None:
    running = detached(program, lanes(program, "a", "b"))
    measuring(program, 2)
    terminal = watching(program, terminals)
    until("lane a measures", lambda: shows(terminal, "Lane a: num_ctx 512, num_batch "))
    until("lane b measures", lambda: shows(terminal, "Lane b: num_ctx 512, num_batch "))
    assert shows(terminal, "; 0 measured")
    assert shows(terminal, "▶ now")
    os.write(terminal.master, b"q")
    assert terminal.wait() == 0
    gate.touch()
    ended(running)
    log = program("logs").must().stdout
    assert f"  a  {label(512, 2)}" in log or f"  b  {label(512, 2)}" in log
    shown = [line for line in call(program, "watch").must().stdout.splitlines() if line.startswith("Lane ")]
    assert [line.partition(";")[0] for line in shown] == ["Lane a: ended", "Lane b: ended"]


def test_of_more_lanes_than_there_is_room_for_those_in_trouble_are_seen_and_the_others_counted(
    program: Program,
) -> None:
    program("run", lanes(program, "a")).must()
    more_lanes(program, 40)
    every = [line for line in program("status").must().stdout.splitlines() if line.startswith("Lane ")]
    assert len(every) == 41
    said = call(program, "watch").must().stdout.splitlines()
    shown = [line for line in said if line.startswith("Lane ")]
    assert shown[0].startswith("Lane a: ended")
    assert shown[-1].startswith("Lane more39: away")
    left = 41 - len(shown)
    assert f"{left} more lanes: {left} at work (each of them: ollama-sweep status)" in said
    assert len(said) <= 40
    assert any("best" in line for line in said), "the map has its room"


def test_in_a_low_terminal_lanes_are_one_line(program: Program, terminals: list[Terminal]) -> None:
    program("run", lanes(program, "a")).must()
    more_lanes(program, 3)
    terminal = watching(program, terminals, size=(100, 5))
    until("all in one", lambda: shows(terminal, "4 lanes: 1 ended, 2 at work, 1 away"))
    os.write(terminal.master, b"q")
    assert terminal.wait() == 0
