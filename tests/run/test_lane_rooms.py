"""The folder of a lane: a bounded outbox, a ledger that survives, a lock that ends with its process."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ollama_fixture import ROOT, until
from sweeping import Program, program

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.lanes.order import Handed, Order
from ollama_sweep.core.outcome import Outcome, Status, Summary
from ollama_sweep.run.lanes import outbox
from ollama_sweep.run.lanes.outbox import Outbox
from ollama_sweep.run.lanes.room import FileLedger, Room, at_work, rooms

CELL = Cell((("num_ctx", 512),), "m", (("num_ctx", 512),))


def handed(attempt_id: int, database: str = "d" * 32, error: str = "") -> Handed:
    order = Order(database, "grid", attempt_id, 1, "c1:abc", CELL, "a", 60.0)
    return Handed(order, Outcome(Status.OK, error=error))


def test_what_was_put_is_read_and_removed(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "outbox")
    names = [box.put(handed(number)) for number in (12, 3)]
    assert box.names() == [names[1], names[0]], "the oldest attempt first"
    assert box.read(names[0]) == handed(12)
    box.remove(names[0])
    box.remove(names[0])
    assert box.names() == [names[1]]


def test_putting_it_twice_keeps_one(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    assert box.put(handed(1)) == box.put(handed(1))
    assert len(box.names()) == 1


def test_nan_is_never_put(tmp_path: Path) -> None:
    one = handed(1)
    nan = replace(one, outcome=replace(one.outcome, summary=Summary(prompt_eval_rate=float("nan"))))
    with pytest.raises(ValueError):
        Outbox(tmp_path).put(nan)
    assert Outbox(tmp_path).names() == []


def test_what_a_dead_process_was_writing_is_no_result(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    half = tmp_path / f".ollama-sweep.{gone.pid}-0123abcd.tmp"
    half.write_text('{"order"')
    assert Outbox(tmp_path).names() == []
    assert not half.exists()


def test_a_file_that_is_cut_off_is_told_and_set_aside(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    name = box.put(handed(1))
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ConfigError, match="is no JSON: it is cut off or was changed"):
        box.read(name)
    box.set_aside(name)
    assert box.names() == []
    assert (tmp_path / f"{name}.unreadable").exists()


def test_an_outbox_is_bounded_by_files_and_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Outbox(tmp_path)
    monkeypatch.setattr(outbox, "MOST_FILES", 2)
    box.put(handed(1))
    assert box.fullness() == ""
    box.put(handed(2))
    assert box.fullness().startswith(f"the outbox {tmp_path} is full (2 finished attempts, ")
    monkeypatch.setattr(outbox, "MOST_FILES", 64)
    monkeypatch.setattr(outbox, "MOST_BYTES", 100)
    assert "is full" in box.fullness()


def test_a_lane_whose_outbox_is_full_takes_no_order_until_there_is_room(program: Program) -> None:
    box = Outbox(program.folder / "sweeps.db.lanes" / "a" / "outbox")
    for number in range(outbox.MOST_FILES):
        box.put(handed(number, "f" * 32))
    hosts = [{"name": "a", "host": "127.0.0.1:1"}]
    running = program.start("run", program.grid(hosts=hosts, interim="off"), env=program.environment())
    until("it says so", lambda: "is full (64 finished attempts" in running.said)
    assert program.events("prepare") == []
    for name in box.names():
        box.remove(name)
    said = running.wait().must()
    assert "64 finished attempts belong to another database" in said.stdout + said.stderr
    assert {row["status"] for row in program.rows()} == {"ok"}


def test_a_ledger_is_read_by_the_process_that_comes_next(tmp_path: Path) -> None:
    first = FileLedger(tmp_path / "ledger.json")
    one, two = (first.record("scratch_model", name, {"host": "h"}) for name in ("x", "y"))
    first.settle(one)
    second = FileLedger(tmp_path / "ledger.json")
    (left,) = second.leftovers()
    assert (left.number, left.kind, left.name, left.details) == (two, "scratch_model", "y", {"host": "h"})
    three = second.record("process", "token", {})
    assert three > two
    second.settle(two)
    assert [one.name for one in FileLedger(tmp_path / "ledger.json").leftovers()] == ["token"]
    assert (tmp_path / "ledger.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", "{", "[[1]]", '{"a": 1}', "[[1, 2, 3, 4]]"])
def test_a_ledger_that_is_none_says_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / "ledger.json").write_text(content, "utf-8")
    assert FileLedger(tmp_path / "ledger.json").leftovers() == []


def test_a_room_is_held_as_long_as_its_process_lives(tmp_path: Path) -> None:
    room = Room(tmp_path / "x.db.lanes" / "a")
    room.make()
    assert not room.is_held()
    code = (
        "import sys\nfrom pathlib import Path\nfrom ollama_sweep.run.lanes.room import Room\n"
        "held = Room(Path(sys.argv[1])).hold()\nprint('held', flush=True)\nsys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(room.folder)]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        assert room.is_held()
        assert room.pid() == child.pid
        assert at_work(room.folder.parent) == [child.pid]
        assert rooms(tmp_path / "x.db") == [room]
        child.kill()
        child.wait()
    assert not room.is_held()
    assert at_work(room.folder.parent) == []
    os.close(room.hold())
