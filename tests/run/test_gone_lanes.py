"""What a lane has left outside that was taken off the list: the next run clears it, once its process has died."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ollama_fixture import free_port, until
from sweeping import Program, program

from ollama_sweep.run.lanes.room import Room

CLEARED = "Lane b: Removed fake-scratch, left by the previous process"


def hosts(*names: str) -> list[dict[str, str]]:
    return [{"name": name, "host": f"127.0.0.1:{free_port()}"} for name in names]


def lanes(program: Program, on: Sequence[dict[str, str]], **keys: Any) -> Path:
    return program.grid(hosts=list(on), warmup=0, repeats=1, interim="off", **keys)


def room(program: Program, name: str) -> Room:
    return Room(program.folder / "sweeps.db.lanes" / name)


@pytest.fixture
def left(program: Program) -> list[dict[str, str]]:
    """The lanes a and b, both of which were killed with a scratch model on their servers, as was their coordinator."""
    found = hosts("a", "b")
    program.script(gate=str(program.folder / "gate"))
    running = program.start("run", lanes(program, found), env=program.environment())
    until("every lane has a cell in hand", lambda: len(program.events("generate")) >= 2)
    running.kill()
    running.wait()
    for name in "ab":
        os.kill(room(program, name).pid(), signal.SIGKILL)
    until("both have died", lambda: not any(room(program, name).is_held() for name in "ab"))
    program.script()
    assert all(room(program, name).ledger.leftovers() for name in "ab")
    return found


def test_a_run_without_the_lane_clears_what_it_has_left(program: Program, left: list[dict[str, str]]) -> None:
    said = program("run", lanes(program, left[:1])).must().stdout
    assert said.count(CLEARED) == 1
    assert {row["status"] for row in program.rows()} == {"ok"}
    assert not any(room(program, name).ledger.leftovers() for name in "ab")
    assert CLEARED not in program("run", lanes(program, left[:1], num_ctx=[512, 4096])).must().stdout


def test_the_same_server_under_another_name(program: Program, left: list[dict[str, str]]) -> None:
    said = program("run", lanes(program, [left[0], {"name": "c", "host": left[1]["host"]}])).must().stdout
    assert said.count(CLEARED) == 1
    assert not room(program, "b").ledger.leftovers()


def test_so_does_a_run_without_lanes(program: Program, left: list[dict[str, str]]) -> None:
    said = program("run", program.grid(warmup=0, repeats=1, interim="off")).must().stdout
    assert said.count(CLEARED) == 1
    assert "Lane a: Removed fake-scratch" in said
    assert not any(room(program, name).ledger.leftovers() for name in "ab")


def test_what_nobody_can_read_stays_and_is_told(program: Program, left: list[dict[str, str]]) -> None:
    room(program, "b").post.write_text("torn", "ascii")
    said = program("run", lanes(program, left[:1])).must().stdout
    assert "Lane b: what its process has left is not cleared: " in said
    assert {row["status"] for row in program.rows()} == {"ok"}
    assert room(program, "b").ledger.leftovers()


def test_a_process_that_lives_is_left_alone(program: Program) -> None:
    found, gate = hosts("a", "b"), program.folder / "gate"
    program.script(gate=str(gate))
    first = program.start("run", lanes(program, found), env=program.environment())
    until("every lane has a cell in hand", lambda: len(program.events("generate")) >= 2)
    first.kill()
    first.wait()
    second = program.start("run", lanes(program, found[:1]), env=program.environment())
    until("it has begun", lambda: "0 of 4 cells already done" in second.said)
    gate.touch()
    said = second.wait().must().stdout
    assert "Lane b: " not in said
    assert not room(program, "b").ledger.leftovers(), "it has cleared its own, as it ended"
